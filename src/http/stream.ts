/** Writes an event stream to a client: commit, heartbeats, backpressure, and one clear end. Knows no dialect's bytes. */
import type { FastifyReply } from 'fastify';
import { GatewayError } from '../chat/errors.ts';
import type { ChatEvent } from '../chat/events.ts';
import { isContent } from '../chat/events.ts';
import type { StreamEncoder } from '../facades/encoder.ts';
import type { EventSink } from '../gateway/attempt.ts';
import type { Call } from '../gateway/call.ts';
import { startStream } from './headers.ts';
import { cutOffWhenStalled, longestStallMs, type ReadAhead, sharedReadAhead } from './stall.ts';

export interface StreamOptions {
  /** How long the first content may keep the headers back. Milliseconds; 0 = as long as it takes. */
  readonly commitMs: number;
  /** Silence after which a heartbeat is written. Milliseconds; 0 = never. */
  readonly heartbeatMs: number;
  /** See `cutOffWhenStalled`. Milliseconds; 120,000 if unset. */
  readonly stallMs?: number;
  /** The process's own if unset. */
  readonly readAhead?: ReadAhead;
}

export class EventStream {
  readonly #reply: FastifyReply;
  readonly #call: Call;
  readonly #options: StreamOptions;
  #encoder: StreamEncoder | undefined;
  #commitTimer: NodeJS.Timeout | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #watched = false;
  /** What the client has not taken yet, while it is behind. Bytes. */
  #held = 0;
  #behind = false;
  #drained: Promise<void> | undefined;
  #resume: (() => void) | undefined;
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
    if (!this.#behind) this.#fallBehind();
    if (this.#keep()) return undefined;
    this.#drained ??= new Promise((resolve) => {
      this.#resume = resolve;
    });
    return this.#drained;
  }

  /** @returns whether more may be read ahead of the client */
  #keep(): boolean {
    const before = this.#held;
    this.#held = this.#reply.raw.writableLength;
    return (this.#options.readAhead ?? sharedReadAhead).move(before, this.#held);
  }

  /** From now until it has taken everything. */
  #fallBehind(): void {
    const { raw } = this.#reply;
    this.#behind = true;
    this.#watchStall();
    const catchUp = (): void => {
      raw.removeListener('drain', catchUp);
      raw.removeListener('close', catchUp);
      raw.setTimeout(0);
      this.#behind = false;
      this.#drained = undefined;
      (this.#options.readAhead ?? sharedReadAhead).move(this.#held, 0);
      this.#held = 0;
      this.#resume?.();
      this.#resume = undefined;
    };
    raw.on('drain', catchUp);
    raw.on('close', catchUp);
  }

  #watchStall(): void {
    const { raw } = this.#reply;
    const stallMs = this.#options.stallMs ?? longestStallMs;
    if (this.#watched) raw.setTimeout(stallMs);
    else cutOffWhenStalled(raw, this.#call, stallMs);
    this.#watched = true;
  }

  /** Ends the body once. What the client has not taken by then is still watched. */
  #end(bytes: string): void {
    if (this.#ended) return;
    this.#ended = true;
    const { raw } = this.#reply;
    if (raw.destroyed) return;
    if (bytes === '') raw.end();
    else raw.end(bytes);
    if (raw.writableLength > 0) this.#watchStall();
  }
}
