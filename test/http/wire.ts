/** A client of bare sockets, for tests in which bytes, chunks, moments and departures matter. Knows HTTP/1.1 and no more. */
import { connect, type Socket } from 'node:net';

export interface WireHead {
  readonly status: number;
  /** Lower-case names; of repeated ones the last. */
  readonly headers: Readonly<Record<string, string>>;
  /** performance.now() */
  readonly at: number;
}

export interface WireAnswer {
  readonly socket: Socket;
  readonly head: Promise<WireHead>;
  /** The payloads of the body's HTTP chunks so far, one for each write of the server; a body with a length is one piece a read. */
  readonly chunks: readonly Buffer[];
  /** The body so far. */
  readonly body: string;
  /** performance.now() of each chunk */
  readonly times: readonly number[];
  /** Resolves when the body so far passes; rejects if the answer is over before. */
  until(passes: (body: string) => boolean): Promise<void>;
  /** `complete`: the body came to its proper end. `cut`: the connection ended before. */
  readonly done: Promise<'complete' | 'cut'>;
  /** Closes the connection, as a client that is closed does. */
  leave(): void;
}

export interface WireRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON unless it is a string or bytes. */
  readonly body?: unknown;
  /** The client's own address, another of 127.0.0.0/8 for another caller. */
  readonly from?: string;
}

/** A promise that is settled from outside. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

export function deferred<T = void>(): Deferred<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve: (value) => resolve(value), reject: (error) => reject(error) };
}

const endOfHead = Buffer.from('\r\n\r\n');

/** Takes the raw bytes of one response apart as they come. */
class ResponseReader {
  readonly chunks: Buffer[] = [];
  readonly times: number[] = [];
  head: WireHead | undefined;
  complete = false;
  #pending: Buffer = Buffer.alloc(0);
  /** Of the chunk, or of a body with a length; undefined while a chunk's size is to come. */
  #left: number | undefined;
  #chunked = false;

  push(data: Buffer): void {
    this.#pending = this.#pending.length === 0 ? data : Buffer.concat([this.#pending, data]);
    if (this.head === undefined && !this.#readHead()) return;
    if (this.#chunked) this.#readChunks();
    else this.#readPlain();
  }

  #readHead(): boolean {
    const end = this.#pending.indexOf(endOfHead);
    if (end < 0) return false;
    const [first = '', ...lines] = this.#pending.subarray(0, end).toString('latin1').split('\r\n');
    this.#pending = this.#pending.subarray(end + endOfHead.length);
    const headers: Record<string, string> = {};
    for (const line of lines) {
      const colon = line.indexOf(':');
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const status = Number(first.split(' ')[1]);
    this.head = { status, headers, at: performance.now() };
    this.#chunked = headers['transfer-encoding'] === 'chunked';
    if (!this.#chunked) this.#left = Number(headers['content-length'] ?? 0);
    return true;
  }

  #take(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.chunks.push(bytes);
    this.times.push(performance.now());
  }

  #readPlain(): void {
    this.#take(this.#pending);
    this.#left = (this.#left ?? 0) - this.#pending.length;
    this.#pending = Buffer.alloc(0);
    if (this.#left <= 0) this.complete = true;
  }

  #readChunks(): void {
    for (;;) {
      const lineEnd = this.#pending.indexOf('\r\n');
      if (lineEnd < 0) return;
      const size = Number.parseInt(this.#pending.subarray(0, lineEnd).toString('latin1'), 16);
      const end = lineEnd + 2 + size + 2;
      if (this.#pending.length < end) return;
      this.#take(this.#pending.subarray(lineEnd + 2, lineEnd + 2 + size));
      this.#pending = this.#pending.subarray(end);
      if (size > 0) continue;
      this.complete = true;
      return;
    }
  }
}

/** The bytes of a request, for those who send them in pieces. */
export function requestBytes(path: string, { method = 'POST', headers = {}, body }: WireRequest): Buffer {
  const payload =
    body === undefined
      ? Buffer.alloc(0)
      : Buffer.isBuffer(body)
        ? body
        : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  const all = {
    host: 'localhost',
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    ...(method === 'GET' ? {} : { 'content-length': String(payload.length) }),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`), payload]);
}

/** Reads one response from a connection that was just made. */
export function readAnswer(socket: Socket): WireAnswer {
  const reader = new ResponseReader();
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let body = '';
  let decoded = 0;
  const waiting = new Set<() => void>();
  const head = deferred<WireHead>();
  const done = deferred<'complete' | 'cut'>();
  let over = false;
  head.promise.catch(() => {});
  const notify = (): void => {
    for (const check of [...waiting]) check();
  };
  socket.on('data', (data: Buffer) => {
    reader.push(data);
    for (; decoded < reader.chunks.length; decoded += 1) {
      body += decoder.decode(reader.chunks[decoded], { stream: true });
    }
    if (reader.head !== undefined) head.resolve(reader.head);
    if (reader.complete && !over) {
      over = true;
      done.resolve('complete');
    }
    notify();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    if (!over) done.resolve('cut');
    over = true;
    head.reject(new Error('the connection was closed before an answer'));
    notify();
  });
  return {
    socket,
    head: head.promise,
    chunks: reader.chunks,
    times: reader.times,
    get body() {
      return body;
    },
    until: (passes) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          if (passes(body)) resolve();
          else if (over)
            reject(new Error(`the answer ended without what was waited for: ${body.slice(-300)}`));
          else return;
          waiting.delete(check);
        };
        waiting.add(check);
        check();
      }),
    done: done.promise,
    leave: () => socket.destroy(),
  };
}

/** Sends one request over a connection of its own. */
export function request(port: number, path: string, options: WireRequest = {}): WireAnswer {
  const socket = connect({ port, host: '127.0.0.1', localAddress: options.from });
  socket.setNoDelay(true);
  const answer = readAnswer(socket);
  socket.write(requestBytes(path, options));
  return answer;
}

export interface Chunk {
  readonly content: string;
  readonly finish_reason: string | null;
  readonly [key: string]: unknown;
}

export interface EventReading {
  readonly chunks: readonly Chunk[];
  /** The chunks' contents, each as it came. */
  readonly deltas: readonly string[];
  readonly text: string;
  readonly terminal: Chunk | undefined;
  readonly heartbeats: number;
  readonly done: boolean;
}

/** A chunk that says nothing. */
export const heartbeat = 'data: {"content":"","finish_reason":null}';

/** Reads a unified stream under the contract's rules. @throws Error where a byte of it breaks them */
export function readEvents(body: string, options: { readonly partial?: boolean } = {}): EventReading {
  const blocks = body.split('\n\n');
  const rest = blocks.pop() ?? '';
  if (rest !== '' && options.partial !== true) throw new Error(`no blank line after: ${rest}`);
  const chunks: Chunk[] = [];
  let heartbeats = 0;
  let done = false;
  let terminal: Chunk | undefined;
  for (const block of blocks) {
    if (done) throw new Error(`something after [DONE]: ${block}`);
    if (block === heartbeat) {
      if (terminal !== undefined) throw new Error('a heartbeat after the terminal chunk');
      heartbeats += 1;
    } else if (block === 'data: [DONE]') {
      done = true;
    } else {
      const chunk = readChunk(block);
      if (terminal !== undefined) throw new Error(`a chunk after the terminal one: ${block}`);
      if (chunk.finish_reason !== null) terminal = chunk;
      chunks.push(chunk);
    }
  }
  if (done && terminal === undefined) throw new Error('[DONE] without a terminal chunk');
  const deltas = chunks.map((chunk) => chunk.content).filter((content) => content !== '');
  return { chunks, deltas, text: deltas.join(''), terminal, heartbeats, done };
}

function readChunk(block: string): Chunk {
  if (!block.startsWith('data: ') || /[\r\n]/.test(block)) throw new Error(`not one data line: ${block}`);
  const value: unknown = JSON.parse(block.slice('data: '.length));
  if (!isChunk(value)) throw new Error(`a chunk without content or finish_reason: ${block}`);
  return value;
}

function isChunk(value: unknown): value is Chunk {
  if (typeof value !== 'object' || value === null) return false;
  if (!('content' in value) || typeof value.content !== 'string') return false;
  return (
    'finish_reason' in value && (value.finish_reason === null || typeof value.finish_reason === 'string')
  );
}
