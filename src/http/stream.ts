/** Writes an event stream to a client: commit, heartbeats, backpressure, and one clear end. Knows no dialect's bytes. */
import type { FastifyReply } from 'fastify';
import { GatewayError } from '../chat/errors.ts';
import type { ChatEvent } from '../chat/events.ts';
import { isContent } from '../chat/events.ts';
import type { StreamEncoder } from '../facades/encoder.ts';
import type { EventSink } from '../gateway/attempt.ts';
import type { Call } from '../gateway/call.ts';
import { startStream } from './headers.ts';

export interface StreamOptions {
  /** How long the first content may keep the headers back. Milliseconds; 0 = as long as it takes. */
  readonly commitMs: number;
  /** Silence after which a heartbeat is written. Milliseconds; 0 = never. */
  readonly heartbeatMs: number;
  /** A client that took nothing for this long is cut off; its socket would be kept for ever. Milliseconds; 120,000 if unset. */
  readonly stallMs?: number;
}

const longestStallMs = 120_000;

export class EventStream {
  readonly #reply: FastifyReply;
  readonly #call: Call;
  readonly #options: StreamOptions;
  #encoder: StreamEncoder | undefined;
  #commitTimer: NodeJS.Timeout | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #watched = false;
  #drained: Promise<void> | undefined;
  #committed = false;
  #early = false;
  /** The terminal chunk was written. */
  #finished = false;
  #ended = false;

  constructor(reply: FastifyReply, call: Call, options: StreamOptions) {
    this.#reply = reply;
    this.#call = call;
    this.#options = options;
  }

  /** Whether the headers left before the answering route was known, so that the terminal chunk must name it. */
  get early(): boolean {
    return this.#early;
  }

  /** Begins: what the sink is given is written as this encoder says. */
  begin(encoder: StreamEncoder): EventSink {
    this.#encoder = encoder;
    if (this.#options.commitMs > 0) {
      this.#commitTimer = setTimeout(() => this.#commitEarly(), this.#options.commitMs);
    }
    return (events) => this.#push(events);
  }

  /**
   * Ends when what feeds the sink has ended. Before the headers left it throws what that threw, for an ordinary HTTP error; from
   * then on every failure becomes the encoder's last bytes.
   */
  async follow(produced: Promise<void>): Promise<void> {
    try {
      await produced;
    } catch (error) {
      const encoder = this.#encoder;
      if (!this.#committed || encoder === undefined) throw error;
      this.#end(encoder.fail(error instanceof GatewayError ? error : new GatewayError('INTERNAL_ERROR')));
      if (!(error instanceof GatewayError) && !this.#call.stopped) {
        this.#reply.log.error({ requestId: this.#call.requestId, err: error }, 'stream failed');
      }
    } finally {
      clearTimeout(this.#commitTimer);
      clearTimeout(this.#heartbeat);
    }
    this.#end('');
  }

  #push(events: readonly ChatEvent[]): Promise<void> | undefined {
    if (this.#ended || this.#encoder === undefined) return undefined;
    if (!this.#committed) {
      const decisive = events.some((event) => isContent(event) || event.type === 'finish');
      // What the terminal chunk tells (tools that the upstream ran, usage) sends no headers by itself.
      if (decisive || events.some((event) => event.type === 'progress')) this.#commit(!decisive);
    }
    this.#finished = events.at(-1)?.type === 'finish';
    const bytes = this.#encoder.encode(events);
    return bytes === '' ? undefined : this.#write(bytes);
  }

  #commitEarly(): void {
    this.#commit(true);
    if (this.#options.heartbeatMs > 0) this.#beat();
  }

  /** Sends status and headers. */
  #commit(early: boolean): void {
    clearTimeout(this.#commitTimer);
    this.#commitTimer = undefined;
    this.#committed = true;
    this.#early = early;
    startStream(this.#reply, this.#call, !early, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    if (this.#options.heartbeatMs > 0) {
      this.#heartbeat = setTimeout(() => this.#beat(), this.#options.heartbeatMs);
    }
  }

  #beat(): void {
    if (this.#ended || this.#finished || this.#encoder === undefined) return;
    if (this.#reply.raw.writableNeedDrain) this.#heartbeat?.refresh();
    else void this.#write(this.#encoder.heartbeat());
  }

  #write(bytes: string): Promise<void> | undefined {
    const { raw } = this.#reply;
    if (raw.destroyed) return undefined;
    this.#heartbeat?.refresh();
    if (raw.write(bytes)) return undefined;
    this.#drained ??= this.#waitForDrain();
    return this.#drained;
  }

  #waitForDrain(): Promise<void> {
    const { raw } = this.#reply;
    this.#watchStall();
    return new Promise((resolve) => {
      const settle = (): void => {
        raw.removeListener('drain', settle);
        raw.removeListener('close', settle);
        raw.setTimeout(0);
        this.#drained = undefined;
        resolve();
      };
      raw.on('drain', settle);
      raw.on('close', settle);
    });
  }

  /** By the socket's own clock: it knows whether a part of a long write was taken, and a timer of ours would not. */
  #watchStall(): void {
    const { raw } = this.#reply;
    if (!this.#watched) {
      this.#watched = true;
      raw.on('timeout', () => {
        this.#call.stop('client_stalled');
        raw.destroy();
      });
    }
    raw.setTimeout(this.#options.stallMs ?? longestStallMs);
  }

  /** Ends the body once. What the client has not taken by then is still watched. */
  #end(bytes: string): void {
    if (this.#ended) return;
    this.#ended = true;
    const { raw } = this.#reply;
    if (raw.destroyed) return;
    if (bytes === '') raw.end();
    else raw.end(bytes);
    // Once all is taken, the socket's clock is the server's again, which sets it to the keep-alive time.
    if (raw.writableLength > 0) this.#watchStall();
  }
}
