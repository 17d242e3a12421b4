/** HTTP to the upstreams over undici: one exchange per call, pushed chunk by chunk. Knows no wire format and no retries. */
import { Socket } from 'node:net';
import { Agent, buildConnector, type Dispatcher } from 'undici';
import type { UpstreamAnswer, UpstreamCall } from '../chat/adapter.ts';
import { atEndOfTurn, endOfTurn } from '../turn.ts';
import { ForbiddenAddressError, isForbiddenAddress, lookupAllowed } from './addresses.ts';
import { BodyDecoder, codingOf, looksLikeGzip } from './decoding.ts';
import { TransportError } from './errors.ts';
import { plainText, strictText } from './text.ts';

/**
 * Takes what one turn of the event loop brought; the bytes are its own only until it returns. A returned promise holds the upstream
 * back until it settles (backpressure).
 */
export type ChunkSink = (chunk: Buffer) => Promise<void> | undefined;

/** The head of an upstream's answer. */
export interface ResponseHead {
  readonly status: number;
  /** Lower case, without parameters; empty if the upstream sent none. */
  readonly contentType: string;
  readonly retryAfterSeconds: number | undefined;
  /** All of them, names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** A body that is finished is given this long to end by itself, so that its connection can be used again. */
const lingerMs = 1000;

/** An error's words are read for this long and up to this length: its status is known, and they must not hold it back. */
const errorTextMs = 2000;
const largestErrorText = 1024 * 1024;

/** A body is not read on in a turn that has brought this much: Node would read 2 MB before its reader could hold it back. Bytes. */
const largestTurn = 64 * 1024;

/** Largest body that is read as a whole: 64 MiB. Embeddings of a large batch are the longest known. */
export const largestText = 64 * 1024 * 1024;

/** How many gateways a request has come through, ours included, so that those that ask each other in a circle notice it. */
const hopsHeader = 'x-gateway-hops';

const headerValue = (value: string | string[] | undefined): string =>
  (Array.isArray(value) ? value[0] : value) ?? '';

/** A day: what an upstream asks for beyond that is no plan. Seconds. */
const longestRetryAfter = 86_400;

/**
 * Seconds until `Retry-After` (seconds or an HTTP date) allows a new try; undefined where it says nothing usable: a negative number,
 * one with a unit, a time beyond a day.
 */
function parseRetryAfter(value: string): number | undefined {
  const isDate = /^[A-Za-z]/.test(value);
  if (!isDate && !/^\d+(?:\.\d+)?$/.test(value)) return undefined;
  const seconds = isDate ? Math.ceil((Date.parse(value) - Date.now()) / 1000) : Number(value);
  return Number.isNaN(seconds) || seconds > longestRetryAfter ? undefined : Math.max(0, seconds);
}

const ignore = (): void => {};

/** Where what came in pieces is put together for its reader. */
const together = Buffer.allocUnsafeSlow(2 * largestTurn);

const lengthOf = (chunks: readonly Buffer[]): number => chunks.reduce((sum, chunk) => sum + chunk.length, 0);

/** Copies only where there is more than one. Good until the next are joined. */
function joined(chunks: readonly Buffer[]): Buffer {
  const [first] = chunks;
  if (first !== undefined && chunks.length === 1) return first;
  const length = lengthOf(chunks);
  if (length > together.length) return Buffer.concat(chunks, length);
  let at = 0;
  for (const chunk of chunks) at += chunk.copy(together, at);
  return together.subarray(0, length);
}

/** One request and its answer. The caller ends it: by reading to the end, `release()` or `destroy()`. */
export class Exchange implements Dispatcher.DispatchHandler {
  readonly head: Promise<ResponseHead>;
  /** Both undefined once the head came. */
  #resolveHead: ((head: ResponseHead) => void) | undefined;
  #rejectHead: ((error: TransportError) => void) | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #connectTimer: NodeJS.Timeout | undefined;
  #lingerTimer: NodeJS.Timeout | undefined;
  #sink: ChunkSink | undefined;
  #resolveBody: (() => void) | undefined;
  #rejectBody: ((error: TransportError) => void) | undefined;
  /** What came in this turn, or before the first `read`. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #scheduled = false;
  /** Bytes of the body that have not come. NaN where its head did not tell. */
  #missing = Number.NaN;
  /** What the sink has not taken yet: a read that was under way may follow the first. */
  #holds = 0;
  /** `received`: all bytes came, and are not decoded yet. */
  #state: 'connecting' | 'sent' | 'streaming' | 'received' | 'ended' | 'failed' = 'connecting';
  /** What the head said of the body. */
  #coding: string | undefined;
  /** Only for a body that comes compressed. */
  #decoder: BodyDecoder | undefined;
  /** What cut the body short whose bytes are still decoded. */
  #cut: TransportError | undefined;
  #begun = false;
  #failure: TransportError | undefined;
  #released = false;
  #status: number | undefined;

  constructor() {
    this.head = new Promise((resolve, reject) => {
      this.#resolveHead = resolve;
      this.#rejectHead = reject;
    });
  }

  /** From now on a connection has to be there after so many milliseconds. 0: whenever it comes. */
  limitConnecting(milliseconds: number): void {
    // On an open connection undici sends the request while it is dispatched.
    if (milliseconds === 0 || this.#state !== 'connecting') return;
    this.#connectTimer = setTimeout(
      () => this.#fail(new TransportError('connect-timeout', false)),
      milliseconds,
    );
  }

  /** Whether the request was written to a connection. */
  get sent(): boolean {
    return this.#controller !== undefined;
  }

  /** The HTTP status of the answer, once its head came. */
  get status(): number | undefined {
    return this.#status;
  }

  /** Reads the body: `sink` gets every chunk as it comes. Resolves at its clean end. @throws TransportError */
  read(sink: ChunkSink): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#resolveBody = resolve;
      this.#rejectBody = reject;
      this.#sink = sink;
      this.#flush();
      if (this.#state === 'ended') resolve();
      else if (this.#state === 'received') this.#decodeRest();
    });
  }

  /** The whole body as text. @throws TransportError (`too-large` beyond `maxBytes`) */
  async text(maxBytes = largestText): Promise<string> {
    // A short answer comes in one read, and has ended before anybody asks for its body.
    const ended = this.#state === 'ended';
    const chunks = ended ? this.#pending : await this.#gather(maxBytes);
    if (ended && lengthOf(chunks) > maxBytes) throw new TransportError('too-large', true);
    await endOfTurn();
    return plainText(joined(chunks));
  }

  async #gather(maxBytes: number): Promise<readonly Buffer[]> {
    const chunks: Buffer[] = [];
    let size = 0;
    await this.read((chunk) => {
      size += chunk.length;
      if (size > maxBytes) this.#fail(new TransportError('too-large', true));
      else chunks.push(Buffer.from(chunk));
      return undefined;
    });
    return chunks;
  }

  /**
   * The words of an error, as far as they come: a body that is long, cut or without an end gives what it gave, one that is no text gives none.
   * @throws TransportError where we ended it
   */
  async errorText(): Promise<string> {
    const chunks: Buffer[] = [];
    let size = 0;
    const timer = setTimeout(() => this.release(), errorTextMs);
    try {
      await this.read((chunk) => {
        chunks.push(Buffer.from(chunk));
        size += chunk.length;
        if (size >= largestErrorText) this.release();
        return undefined;
      });
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      if (error.kind === 'undecodable') return '';
      if (error.kind !== 'cut') throw error;
    } finally {
      clearTimeout(timer);
    }
    return strictText(joined(chunks));
  }

  /** The answer is complete for the caller: a running `read` resolves. What still comes is dropped, and not waited for long. */
  release(): void {
    if (this.#state === 'ended' || this.#state === 'failed') return;
    this.#released = true;
    this.#sink = undefined;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#decoder?.destroy();
    if (this.#state === 'received') {
      this.#end();
      return;
    }
    this.#lingerTimer ??= setTimeout(() => this.destroy(), lingerMs).unref();
    this.#readOn();
    this.#resolveBody?.();
  }

  /** Destroys the connection: the only thing that stops LM Studio's generation. Harmless after the end. */
  destroy(): void {
    if (this.#state === 'ended' || this.#state === 'failed') return;
    this.#fail(new TransportError('aborted', this.sent));
  }

  #fail(error: TransportError): void {
    if (this.#state === 'ended' || this.#state === 'failed') return;
    this.#state = 'failed';
    this.#failure = error;
    this.#stopConnectTimer();
    clearTimeout(this.#lingerTimer);
    this.#decoder?.destroy();
    this.#controller?.abort(error);
    // A caller that gave up before the head does not wait for it any more.
    this.head.catch(ignore);
    this.#rejectHead?.(error);
    this.#rejectBody?.(error);
  }

  /** And lets it go, since thousands may stream at once. */
  #stopConnectTimer(): void {
    clearTimeout(this.#connectTimer);
    this.#connectTimer = undefined;
  }

  /** Hands on what came in this turn as one chunk, and holds the connection back if the reader is behind. */
  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#pending.length === 0 || this.#sink === undefined) return;
    const chunk = joined(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    const held = this.#decoder === undefined ? this.#sink(chunk) : this.#decoder.push(chunk);
    if (held === undefined) {
      this.#readOn();
      return;
    }
    this.#holds += 1;
    if (!this.#released) this.#controller?.pause();
    held.then(
      () => {
        this.#holds -= 1;
        this.#readOn();
      },
      () => this.destroy(),
    );
  };

  #readOn(): void {
    const free = this.#holds === 0 || this.#released;
    if (free && this.#state === 'streaming' && this.#controller?.paused === true) this.#controller.resume();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#stopConnectTimer();
    this.#controller = controller;
    if (this.#state === 'failed') controller.abort(this.#failure ?? new TransportError('aborted', false));
    else this.#state = 'sent';
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    statusCode: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (statusCode < 200 || this.#state !== 'sent') return;
    this.#state = 'streaming';
    this.#status = statusCode;
    this.#missing = Number(headers['content-length']);
    this.#coding = codingOf(headers['content-encoding']);
    const contentType = headerValue(headers['content-type']);
    const parametersAt = contentType.indexOf(';');
    // Slices of the first read of the socket, which they would keep.
    controller.rawHeaders = null;
    this.#resolveHead?.({
      status: statusCode,
      contentType: (parametersAt < 0 ? contentType : contentType.slice(0, parametersAt)).trim().toLowerCase(),
      retryAfterSeconds: parseRetryAfter(headerValue(headers['retry-after'])),
      headers,
    });
    this.#resolveHead = undefined;
    this.#rejectHead = undefined;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#state !== 'streaming' || this.#released || chunk.length === 0) return;
    if (!this.#begun && !this.#begin(chunk)) return;
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    this.#missing -= chunk.length;
    if (this.#pendingBytes >= largestTurn) controller.pause();
    if (this.#sink === undefined || this.#scheduled) return;
    // undici calls once per HTTP chunk; servers that send an event a chunk put many into one read of the socket. They are
    // handed on together, at the end of the turn.
    this.#scheduled = true;
    atEndOfTurn(this.#flush);
  }

  /** The body's first bytes are here. Whether it can be read. */
  #begin(first: Buffer): boolean {
    this.#begun = true;
    const coding = this.#coding ?? (looksLikeGzip(first) ? 'gzip' : undefined);
    if (coding === undefined) return true;
    const fail = (cause?: Error): void => this.#fail(new TransportError('undecodable', true, cause));
    this.#decoder = BodyDecoder.for(coding, first, (chunk) => this.#sink?.(chunk), fail);
    if (this.#decoder === undefined) fail();
    return this.#decoder !== undefined;
  }

  /** No more bytes come; those that did are decoded once somebody reads them. */
  #receive(): void {
    this.#flush();
    this.#state = 'received';
    if (this.#sink !== undefined) this.#decodeRest();
  }

  #decodeRest(): void {
    this.#decoder?.end(() => {
      if (this.#cut === undefined) this.#end();
      else this.#fail(this.#cut);
    });
  }

  #end(): void {
    this.#state = 'ended';
    clearTimeout(this.#lingerTimer);
    this.#resolveBody?.();
  }

  onResponseEnd(): void {
    if (this.#state !== 'streaming') return;
    if (this.#decoder !== undefined && !this.#released) {
      this.#receive();
      return;
    }
    this.#flush();
    this.#end();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    // A connection may break behind the last byte, before a reader that is held back was told of the end.
    if (this.#missing === 0) {
      this.onResponseEnd();
      return;
    }
    const failure =
      error instanceof TransportError
        ? error
        : new TransportError(this.sent ? 'cut' : 'connect', this.sent, error);
    // What was read before a cut was said.
    if (this.#state === 'streaming' && this.#sink !== undefined) {
      if (this.#decoder !== undefined) {
        this.#cut = failure;
        this.#receive();
        return;
      }
      this.#flush();
    }
    this.#fail(failure);
  }
}

/** The most that one read of a socket brings, whichever it is. Bytes. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);

const connect = buildConnector({
  timeout: 60_000,
  lookup: lookupAllowed,
  // Else Node allocates as much for each read, to give nearly all of it back.
  onread: {
    buffer: readBuffer,
    callback(this: Socket, length: number): boolean {
      return this.push(Buffer.from(readBuffer.subarray(0, length)));
    },
  },
});

/** Longest request that leaves as one string: Node copies it without allocating anything. Bytes. */
const shortRequest = 16_384;

/**
 * A `_writev` of sockets, see https://nodejs.org/api/stream.html#writable_writevchunks-callback. undici writes the head of a request as
 * Latin-1 and its body as bytes; Node would allocate one more buffer for the two, and have them written as a list.
 */
function writeAtOnce(
  this: Socket,
  pieces: Parameters<NonNullable<Socket['_writev']>>[0],
  done: (error?: Error | null) => void,
): void {
  let text = '';
  let length = 0;
  for (const { chunk, encoding } of pieces as { chunk: string | Buffer; encoding: string }[]) {
    length += chunk.length;
    if (length > shortRequest || (typeof chunk === 'string' && encoding !== 'latin1')) {
      Socket.prototype._writev?.call(this, pieces, done);
      return;
    }
    text += typeof chunk === 'string' ? chunk : chunk.toString('latin1');
  }
  this._write(text, 'latin1', done);
}

/** What undici 7 reads a connection's bytes with. It is `paused` while the reader of a body is held back. */
interface ResponseParser {
  paused: boolean;
  shouldKeepAlive: boolean;
  resume(): void;
  readonly llhttp: { llhttp_resume(parser: number): void };
  readonly ptr: number;
}

/** Undefined where nothing is held back. */
function pausedParserOf(socket: Socket): ResponseParser | undefined {
  const key = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'parser');
  if (key === undefined) return undefined;
  const parser = (socket as unknown as Record<symbol, ResponseParser | undefined>)[key];
  return parser?.paused === true ? parser : undefined;
}

/** The upstream has said its last: no reader is waited for any more. */
function readToEnd(this: Socket): void {
  const parser = pausedParserOf(this);
  if (parser === undefined) return;
  // Brings a body of known length to its end. One that only this end completes is paused once more by the reader's hold.
  parser.resume();
  parser.llhttp.llhttp_resume(parser.ptr);
  parser.paused = false;
}

/** The connection broke. What was not read yet is lost, so that not even a body that only its connection ends is whole. */
function cutShort(this: Socket): void {
  const parser = pausedParserOf(this);
  if (parser !== undefined) parser.shouldKeepAlive = true;
}

const connectAndJoin: buildConnector.connector = (options, callback) => {
  // An address is never looked up.
  if (isForbiddenAddress(options.hostname)) {
    process.nextTick(callback, new ForbiddenAddressError(), null);
    return;
  }
  connect(options, (...connected: Parameters<buildConnector.Callback>) => {
    const [, socket] = connected;
    if (socket instanceof Socket) {
      socket._writev = writeAtOnce;
      // Before undici's own listeners, which throw into nobody's hands where the reader is held back (undici 7, mended in 8:
      // https://github.com/nodejs/undici/issues/5360), or mistake a whole body for a cut one, and a cut one for whole.
      socket.on('end', readToEnd).on('error', cutShort);
    }
    callback(...connected);
  });
};

/** Owns the connections to all upstreams. One for the process; `close()` at its end. */
export class UpstreamClient {
  // Unlimited connections per origin: a pool that is too small would queue streams behind each other, unseen by our limits.
  // All limits are ours (stack: undici's timers are a second coarse), so its own are off.
  readonly #agent = new Agent({
    connections: null,
    pipelining: 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 30_000,
    keepAliveMaxTimeout: 600_000,
    connect: connectAndJoin,
  });

  /**
   * Sends a call. Failures, the connect limit included, reject the exchange's `head`. 0 switches the limit off.
   * @param hops gateways on its way, this one included
   */
  open(baseUrl: string, call: UpstreamCall, connectTimeoutMs: number, hops = 1): Exchange {
    const exchange = new Exchange();
    const origin = originOf(baseUrl);
    try {
      this.#agent.dispatch(
        {
          origin: origin.origin,
          path: origin.prefix + call.path,
          method: call.method,
          headers: { ...call.headers, 'accept-encoding': 'identity', [hopsHeader]: String(hops) },
          body: call.body ?? null,
        },
        exchange,
      );
      exchange.limitConnecting(connectTimeoutMs);
    } catch (error) {
      // undici throws where a header or path cannot be sent (a key with a newline, say).
      exchange.onResponseError(nothing, error instanceof Error ? error : new Error(String(error)));
    }
    return exchange;
  }

  /**
   * The whole answer of a short call.
   * @throws TransportError (`timeout` when `totalTimeoutMs` ran out, `aborted` by the signal)
   */
  async fetchText(
    baseUrl: string,
    call: UpstreamCall,
    options: {
      readonly connectTimeoutMs: number;
      readonly totalTimeoutMs: number;
      readonly signal?: AbortSignal;
      readonly maxBytes?: number;
      /** See `open`. */
      readonly hops?: number;
    },
  ): Promise<ResponseHead & UpstreamAnswer> {
    const exchange = this.open(baseUrl, call, options.connectTimeoutMs, options.hops);
    let timedOut = false;
    const timer =
      options.totalTimeoutMs > 0
        ? setTimeout(() => {
            timedOut = true;
            exchange.destroy();
          }, options.totalTimeoutMs)
        : undefined;
    const abort = (): void => exchange.destroy();
    options.signal?.addEventListener('abort', abort, { once: true });
    if (options.signal?.aborted === true) abort();
    try {
      const head = await exchange.head;
      const body = head.status < 400 ? exchange.text(options.maxBytes) : exchange.errorText();
      return { ...head, body: await body };
    } catch (error) {
      throw timedOut ? new TransportError('timeout', exchange.sent) : error;
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', abort);
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

const origins = new Map<string, { readonly origin: string; readonly prefix: string }>();

/** Splits a base URL once; providers are few, so the memory is bounded by the catalog. */
function originOf(baseUrl: string): { readonly origin: string; readonly prefix: string } {
  let known = origins.get(baseUrl);
  if (known === undefined) {
    const url = new URL(baseUrl);
    known = { origin: url.origin, prefix: url.pathname.replace(/\/+$/, '') + url.search };
    origins.set(baseUrl, known);
  }
  return known;
}

/** Stands in for undici's controller where a call failed before undici made one. */
const nothing: Dispatcher.DispatchController = {
  aborted: true,
  paused: false,
  reason: null,
  rawHeaders: null,
  rawTrailers: null,
  abort() {},
  pause() {},
  resume() {},
};
