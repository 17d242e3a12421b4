/** Sockets of the load process: one read buffer for all of them, and requests as prebuilt bytes. */
import net from 'node:net';
import type { Endpoint } from './jobs.ts';

/** Each read is consumed before the next begins, so all sockets may share it. */
const readBuffer = Buffer.allocUnsafe(256 * 1024);

export function requestBytes({ port, path, headers, body }: Endpoint): Buffer {
  const all = {
    host: `127.0.0.1:${port}`,
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`);
}

/** @param onEnd runs once, with a reason that is empty after an ordinary end */
export function openSocket(
  port: number,
  onBytes: (bytes: Buffer, length: number) => void,
  onEnd: (reason: string) => void,
): net.Socket {
  const socket = net.connect({
    port,
    host: '127.0.0.1',
    noDelay: true,
    onread: {
      buffer: readBuffer,
      callback: (length) => {
        onBytes(readBuffer, length);
        return true;
      },
    },
  });
  let reason = '';
  socket.on('error', (error: NodeJS.ErrnoException) => {
    reason = error.code ?? error.message;
  });
  socket.on('close', () => onEnd(reason));
  return socket;
}
