/** The benchmark's upstream: raw sockets and prebuilt bytes, cheaper than what it measures. Knows HTTP just well enough. */
import net from 'node:net';
import { serveRequests } from '../process-messages.ts';
import { type Answer, answers, modelList, unknownModel, unknownPath } from './answers.ts';

/** What the upstream has seen since it was last reset. */
export interface UpstreamStats {
  readonly streams: number;
  readonly done: number;
  /** Streams whose socket closed before their end. */
  readonly aborted: number;
  readonly active: number;
  readonly peak: number;
}

export type UpstreamRequest = { readonly kind: 'port' | 'stats' | 'reset' };

interface Connection {
  readonly socket: net.Socket;
  /** What came of a request's head before it was complete. */
  pending: Buffer | undefined;
  /** Bytes of the request's body that are still to come. */
  remaining: number;
  path: string;
  /** The beginning of the body, where the model stands. */
  prefix: string;
  answer: Answer | undefined;
  sent: number;
  startedAt: number;
  timer: NodeJS.Timeout | undefined;
}

const prefixLength = 1024;
const stats = { streams: 0, done: 0, aborted: 0, active: 0, peak: 0 };

let ready: Connection[] = [];

function makeReady(connection: Connection): void {
  if (ready.length === 0) setImmediate(pump);
  ready.push(connection);
}

/** One write for each stream that can take one, then a turn of the loop for what has come in. */
function pump(): void {
  const round = ready;
  ready = [];
  for (const connection of round) advance(connection);
}

function advance(connection: Connection): void {
  const { answer, socket } = connection;
  if (answer === undefined || socket.destroyed) return;
  const { script, middle, last } = answer;
  if (connection.sent >= script.chunks) {
    connection.answer = undefined;
    stats.active -= 1;
    stats.done += 1;
    socket.write(last);
    return;
  }
  connection.sent += script.eventsPerWrite;
  const flowing = socket.write(middle);
  if (script.delayMs > 0) schedule(connection, script.delayMs);
  else if (flowing) makeReady(connection);
  else socket.once('drain', () => makeReady(connection));
}

function schedule(connection: Connection, delayMs: number): void {
  const { answer } = connection;
  const last = answer !== undefined && connection.sent >= answer.script.chunks;
  // The end of a slow stream follows its last chunk at once.
  const due = last ? 0 : connection.startedAt + connection.sent * delayMs - performance.now();
  connection.timer = setTimeout(() => advance(connection), Math.max(0, due));
}

function startStream(connection: Connection, answer: Answer): void {
  stats.streams += 1;
  stats.active += 1;
  stats.peak = Math.max(stats.peak, stats.active);
  connection.answer = answer;
  connection.sent = answer.script.eventsPerWrite;
  connection.startedAt = performance.now();
  connection.socket.write(answer.first);
  if (answer.script.delayMs > 0) schedule(connection, answer.script.delayMs);
  else makeReady(connection);
}

function respond(connection: Connection): void {
  const { socket, path } = connection;
  if (path === '/api/v0/models' || path === '/v1/models') socket.write(modelList);
  else if (!path.endsWith('/chat/completions')) socket.write(unknownPath);
  else {
    const from = connection.prefix.indexOf('bench-');
    const name = connection.prefix.slice(from, connection.prefix.indexOf('"', from));
    const answer = answers.get(name);
    if (answer === undefined) socket.write(unknownModel);
    else if (answer.script.chunks === 0) socket.write(answer.first);
    else startStream(connection, answer);
  }
}

function receive(connection: Connection, bytes: Buffer): void {
  if (connection.remaining > 0) {
    if (connection.prefix.length < prefixLength)
      connection.prefix += bytes.toString('latin1', 0, prefixLength);
    connection.remaining -= bytes.length;
    if (connection.remaining <= 0) respond(connection);
    return;
  }
  const data = connection.pending === undefined ? bytes : Buffer.concat([connection.pending, bytes]);
  const end = data.indexOf('\r\n\r\n');
  if (end < 0) {
    connection.pending = data;
    return;
  }
  connection.pending = undefined;
  const head = data.toString('latin1', 0, end);
  const pathStart = head.indexOf(' ') + 1;
  connection.path = head.slice(pathStart, head.indexOf(' ', pathStart));
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  const bodyStart = end + 4;
  connection.prefix = data.toString('latin1', bodyStart, bodyStart + prefixLength);
  connection.remaining = Number(length ?? 0) - (data.length - bodyStart);
  if (connection.remaining <= 0) respond(connection);
}

const server = net.createServer({ noDelay: true }, (socket) => {
  const connection: Connection = {
    socket,
    pending: undefined,
    remaining: 0,
    path: '',
    prefix: '',
    answer: undefined,
    sent: 0,
    startedAt: 0,
    timer: undefined,
  };
  socket.on('data', (bytes) => receive(connection, bytes));
  // A client that leaves resets its connection: 'close' follows, which counts it.
  socket.on('error', () => {});
  socket.on('close', () => {
    clearTimeout(connection.timer);
    if (connection.answer === undefined) return;
    connection.answer = undefined;
    stats.active -= 1;
    stats.aborted += 1;
  });
});

server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  serveRequests<UpstreamRequest, number | UpstreamStats>(async ({ kind }) => {
    if (kind === 'port') {
      const address = server.address();
      return address !== null && typeof address === 'object' ? address.port : 0;
    }
    const seen = { ...stats };
    if (kind === 'reset') Object.assign(stats, { streams: 0, done: 0, aborted: 0, peak: stats.active });
    return seen;
  });
});
