/** Clients that stop taking a stream, and those that are only slow. */
import { once } from 'node:events';
import { type AddressInfo, connect, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import Fastify from 'fastify';
import { expect, it, onTestFinished, vi } from 'vitest';
import type { ChatEvent } from '../../src/chat/events.ts';
import { UnifiedEncoder } from '../../src/facades/unified.ts';
import { Call } from '../../src/gateway/call.ts';
import { sendJson } from '../../src/http/generation.ts';
import { ReadAhead } from '../../src/http/stall.ts';
import { EventStream } from '../../src/http/stream.ts';
import { since } from './stage.ts';
import { deferred, requestBytes } from './wire.ts';

const stallMs = 500;
const megabyte = 1024 * 1024;

/** A server whose only answer is that text, in pieces of so many bytes; as in the gateway, but with less patience. */
async function serve(pieces: number, bytes: number): Promise<{ client: Client; call: Call; server: Server }> {
  const app = Fastify();
  const call = new Call('id', { id: 'somebody', address: '127.0.0.1' }, '/api/llm/chat');
  app.get('/', async (_request, reply) => {
    const stream = new EventStream(reply, call, { commitMs: 0, heartbeatMs: 20, stallMs });
    const events: ChatEvent[] = [{ type: 'text', text: 'x'.repeat(bytes) }];
    const sink = stream.begin(new UnifiedEncoder(() => undefined));
    const produce = async (): Promise<void> => {
      for (let sent = 1; sent < pieces && !call.signal.aborted; sent += 1) await sink(events);
      // Nothing waits for the last of an answer to be taken: the call is over.
      void sink([...events, { type: 'finish', reason: 'stop', raw: null }]);
      call.end('stop');
    };
    await stream.follow(produce());
    return reply;
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  onTestFinished(() => {
    app.server.closeAllConnections();
    return app.close();
  });
  const { port } = app.server.address() as AddressInfo;
  const client = connectTo(port);
  await once(client.socket, 'data');
  client.socket.pause();
  return { client, call, server: app.server };
}

const connectionsOf = promisify((server: Server, done: (error: Error | null, count: number) => void) =>
  server.getConnections(done),
);

interface Client {
  readonly socket: Socket;
  readonly bytes: number;
  /** The last characters that came. */
  readonly tail: string;
}

/** Counts what it reads, and forgets it. */
function connectTo(port: number): Client {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  socket.on('error', () => {});
  socket.write(requestBytes('/', { method: 'GET', headers: { connection: 'close' } }));
  let bytes = 0;
  let tail = '';
  socket.on('data', (data: Buffer) => {
    bytes += data.length;
    tail = (tail + data.subarray(-100).toString('latin1')).slice(-100);
  });
  return {
    socket,
    get bytes() {
      return bytes;
    },
    get tail() {
      return tail;
    },
  };
}

it('a client that takes nothing is cut off, and its call ends as client_stalled', async () => {
  const { client, call } = await serve(1000, 64 * 1024);
  const paused = performance.now();
  await once(call.signal, 'abort');
  expect(since(paused)).toBeGreaterThan(stallMs - 100);
  expect(call.ending).toBe('client_stalled');
  client.socket.resume();
  await once(client.socket, 'close');
  expect(client.tail).not.toContain('[DONE]');
});

it('a client that stops at the end of an answer is cut off as well', async () => {
  const { client, server } = await serve(1, 20 * megabyte);
  await vi.waitFor(async () => expect(await connectionsOf(server)).toBe(0), { timeout: 5000, interval: 20 });
  client.socket.resume();
  await once(client.socket, 'close');
  expect(client.tail).not.toContain('[DONE]');
});

it('a client that is slow gets all of it, though no write is ever taken at once', async () => {
  const { client, call } = await serve(1, 40 * megabyte);
  const start = performance.now();
  while (since(start) < 4 * stallMs) {
    client.socket.resume();
    await once(client.socket, 'data');
    client.socket.pause();
    await sleep(10);
  }
  expect(client.bytes).toBeLessThan(30 * megabyte);
  client.socket.resume();
  await once(client.socket, 'close');
  expect(client.tail).toContain('data: [DONE]\n\n');
  expect(call.ending).toBe('stop');
});

/** A stream to a client that takes nothing: what its sink says to so many bytes, and what the client has not taken of them. */
async function behind(readAhead: ReadAhead): Promise<{
  push(bytes: number): boolean;
  readonly held: number;
  readonly client: Client;
}> {
  const app = Fastify();
  const call = new Call('id', { id: 'somebody', address: '127.0.0.1' }, '/api/llm/chat');
  const ready = deferred<{ push(bytes: number): boolean; readonly held: number }>();
  app.get('/', (_request, reply) => {
    const stream = new EventStream(reply, call, { commitMs: 0, heartbeatMs: 0, readAhead });
    const sink = stream.begin(new UnifiedEncoder(() => undefined));
    ready.resolve({
      push: (bytes) => sink([{ type: 'text', text: 'x'.repeat(bytes) }]) === undefined,
      get held() {
        return reply.raw.writableLength;
      },
    });
    return stream.follow(new Promise(() => {}));
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  onTestFinished(() => {
    app.server.closeAllConnections();
    return app.close();
  });
  const { port } = app.server.address() as AddressInfo;
  const client = connectTo(port);
  client.socket.pause();
  const stream = await ready.promise;
  // What the system's own buffers take is no concern of ours.
  while (stream.held === 0) {
    stream.push(64 * 1024);
    await new Promise(setImmediate);
  }
  return {
    push: stream.push,
    client,
    get held() {
      return stream.held;
    },
  };
}

it('what a slow client has not taken is read ahead, up to a bound for each stream', async () => {
  const stream = await behind(new ReadAhead(megabyte, 64 * megabyte));
  const piece = 100 * 1024;
  while (stream.held + piece + 1024 < megabyte) expect(stream.push(piece)).toBe(true);
  expect(stream.held).toBeGreaterThan(megabyte / 2);
  expect(stream.push(2 * piece)).toBe(false);
});

it('and up to a bound for all streams together, which those that are gone leave to others', async () => {
  const readAhead = new ReadAhead(megabyte, megabyte);
  const first = await behind(readAhead);
  const second = await behind(readAhead);
  const piece = 300 * 1024;
  expect(first.push(piece)).toBe(true);
  expect(second.push(piece)).toBe(true);
  expect(second.push(2 * piece)).toBe(false);
  second.client.socket.destroy();
  await vi.waitFor(() => expect(readAhead.held).toBe(first.held));
  expect(first.push(piece)).toBe(true);
});

it('a whole answer that nobody takes is cut off as well', async () => {
  const app = Fastify();
  const call = new Call('id', { id: 'somebody', address: '127.0.0.1' }, '/api/llm/chat');
  app.get('/', (_request, reply) => sendJson(reply, call, 'x'.repeat(32 * megabyte), stallMs));
  await app.listen({ host: '127.0.0.1', port: 0 });
  onTestFinished(() => app.close());
  const { port } = app.server.address() as AddressInfo;
  const client = connectTo(port);
  await once(client.socket, 'data');
  client.socket.pause();
  const start = performance.now();
  await vi.waitFor(async () => expect(await connectionsOf(app.server)).toBe(0), { timeout: 10_000 });
  expect(since(start)).toBeGreaterThan(stallMs * 0.8);
  expect(call.ending).toBe('client_stalled');
});
