/** One try of one call on one route: sends it, decodes what comes, and ends it in exactly one way. Knows no retries. */
import type {
  Frame,
  ProviderAdapter,
  StreamDecoder,
  Target,
  UpstreamAnswer,
  UpstreamCall,
} from '../chat/adapter.ts';
import { GatewayError, silentUpstreamError } from '../chat/errors.ts';
import { type ChatEvent, type ChatResult, Collector, toEvents } from '../chat/events.ts';
import type { GenerationRequest } from '../chat/request.ts';
import type { Timeouts } from '../config.ts';
import type { Exchange, ResponseHead, UpstreamClient } from '../upstream/client.ts';
import { TransportError } from '../upstream/errors.ts';
import { FrameReader, FrameTooLong } from '../upstream/sse.ts';
import type { Call } from './call.ts';
import { StreamLimits } from './limits.ts';
import { SurrogatePairs } from './surrogates.ts';

/**
 * Takes the events of one network read, in order. A returned promise means that the reader is behind: the upstream is not
 * read until it settles. The last batch of a good stream ends with `finish`; `start` and `error` never arrive here.
 */
export type EventSink = (events: readonly ChatEvent[]) => Promise<void> | undefined;

export interface Attempt {
  readonly client: UpstreamClient;
  readonly call: Call;
  readonly request: GenerationRequest;
  readonly baseUrl: string;
  readonly target: Target;
  readonly adapter: ProviderAdapter;
  readonly timeouts: Timeouts;
  /** What became of it as far as retries are concerned. */
  readonly progress: AttemptProgress;
}

export interface AttemptProgress {
  /** The request reached a connection: the upstream may have acted on it. */
  sent: boolean;
  /** An event came, so that the upstream notices at once when it is left. */
  heard: boolean;
  /** A part of the answer came. Once it was shown to the client, no other try may take over. */
  committed: boolean;
  /** The HTTP status of the upstream's answer, once it came. */
  status: number | undefined;
}

/** A finished stream may still owe its usage; it is waited for this long. Milliseconds. */
const settleMs = 2000;

function buildCall({ adapter, request, target }: Attempt): UpstreamCall {
  if (request.kind === 'chat') return adapter.chat(request, target);
  if (adapter.completion === undefined) throw new Error(`${adapter.name} has no completions`);
  return adapter.completion(request, target);
}

/** The upstream's request with what all requests of this call carry. */
export function withCallHeaders(request: UpstreamCall, { upstreamHeaders }: Call): UpstreamCall {
  if (upstreamHeaders === undefined) return request;
  return { ...request, headers: { ...request.headers, ...upstreamHeaders } };
}

export const isSuccess = (status: number): boolean => status >= 200 && status < 300;

/** What is left of the total limit, which spans all tries; 0 = no limit. @throws GatewayError TIMEOUT if nothing is */
export function remainingMs({ timeouts, call }: Pick<Attempt, 'timeouts' | 'call'>): number {
  if (timeouts.totalMs === 0) return 0;
  const remaining = timeouts.totalMs - call.tryingMs;
  if (remaining <= 0) throw totalTimeout();
  return Math.ceil(remaining);
}

export const totalTimeout = (): GatewayError =>
  new GatewayError('TIMEOUT', { retryable: false, cause: 'total limit' });

/**
 * Runs one try. With a sink the events go there and nothing is returned; without one the answer is collected, also from a
 * model that can only stream.
 * @throws GatewayError
 */
export async function runAttempt(
  attempt: Attempt,
  sink: EventSink | undefined,
): Promise<ChatResult | undefined> {
  const upstreamCall = buildCall(attempt);
  const totalMs = remainingMs(attempt);
  const exchange = attempt.client.open(
    attempt.baseUrl,
    withCallHeaders(upstreamCall, attempt.call),
    attempt.timeouts.connectMs,
  );
  const stop = (): void => exchange.destroy();
  const forget = attempt.call.onStop(stop);
  try {
    if (!upstreamCall.stream) return await readWhole(attempt, exchange, totalMs);
    if (sink !== undefined) {
      await new StreamAttempt(attempt, exchange, totalMs, sink).run();
      return undefined;
    }
    const collector = new Collector();
    const collect: EventSink = (events) => {
      collector.push(events);
      return undefined;
    };
    await new StreamAttempt(attempt, exchange, totalMs, collect).run();
    return collector.result();
  } finally {
    attempt.progress.sent = exchange.sent;
    attempt.progress.status = exchange.status;
    // What was only collected was shown to nobody.
    if (sink === undefined) attempt.progress.committed = false;
    forget();
    exchange.release();
  }
}

async function readWhole(attempt: Attempt, exchange: Exchange, totalMs: number): Promise<ChatResult> {
  let expired = false;
  const timer =
    totalMs > 0
      ? setTimeout(() => {
          expired = true;
          exchange.destroy();
        }, totalMs)
      : undefined;
  try {
    const head = await exchange.head;
    const result = await decodeWhole(attempt, exchange, head);
    noteModel(attempt, result.model);
    attempt.call.usage = result.usage;
    attempt.call.reasoningTokens = result.stats?.reasoning_tokens;
    attempt.call.responseId = result.responseId;
    attempt.call.end(result.finish.reason);
    return result;
  } catch (error) {
    throw expired ? totalTimeout() : asGatewayError(attempt, error);
  } finally {
    clearTimeout(timer);
  }
}

/** A body that is one JSON document, whatever it says. @throws GatewayError for all but an answer */
async function decodeWhole(attempt: Attempt, exchange: Exchange, head: ResponseHead): Promise<ChatResult> {
  attempt.progress.heard = true;
  const { adapter, request, target } = attempt;
  if (!isSuccess(head.status)) {
    const answer: UpstreamAnswer = { ...head, body: await exchange.errorText() };
    throw adapter.decodeError(answer, target);
  }
  const body = await exchange.text();
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch (error) {
    throw silentUpstreamError(target.displayName, 'format', { cause: error, upstreamStatus: head.status });
  }
  return adapter.decodeResult(json, request, target);
}

function noteModel(attempt: Attempt, model: string | undefined): void {
  if (model !== undefined && model !== '') attempt.call.upstreamModel = model;
}

/** Brings whatever a try failed with into the contract's terms. */
export function asGatewayError({ target }: Pick<Attempt, 'target'>, error: unknown): unknown {
  if (error instanceof TransportError) {
    switch (error.kind) {
      case 'connect':
        return silentUpstreamError(target.displayName, 'connect', { cause: error });
      case 'connect-timeout':
        return new GatewayError('TIMEOUT', { reason: 'connect', cause: error });
      case 'too-large':
        return silentUpstreamError(target.displayName, 'format', { cause: error });
      case 'cut':
      case 'timeout':
      case 'aborted':
        return silentUpstreamError(target.displayName, 'cut', { cause: error });
      default:
        return error.kind satisfies never;
    }
  }
  if (error instanceof FrameTooLong) {
    return silentUpstreamError(target.displayName, 'format', { cause: error });
  }
  return error;
}

/** A try whose answer comes as server-sent events. */
class StreamAttempt {
  readonly #attempt: Attempt;
  readonly #exchange: Exchange;
  readonly #sink: EventSink;
  readonly #decoder: StreamDecoder;
  readonly #limits: StreamLimits;
  readonly #frames = new FrameReader();
  readonly #surrogates = new SurrogatePairs();
  #settleTimer: NodeJS.Timeout | undefined;
  /** Why we ended it ourselves, or what the upstream's terminal event said. */
  #failure: unknown;

  constructor(attempt: Attempt, exchange: Exchange, totalMs: number, sink: EventSink) {
    this.#attempt = attempt;
    this.#exchange = exchange;
    this.#sink = sink;
    this.#decoder = attempt.adapter.decoder(attempt.request, attempt.target);
    this.#limits = new StreamLimits(attempt.timeouts, totalMs, (limit) =>
      this.#fail(
        limit === 'total' ? totalTimeout() : new GatewayError('TIMEOUT', { cause: `${limit} limit` }),
      ),
    );
  }

  /** Resolves when the terminal event was delivered. @throws GatewayError */
  async run(): Promise<void> {
    try {
      const head = await this.#exchange.head;
      if (!isSuccess(head.status) || !isEventStream(head)) {
        const result = await decodeWhole(this.#attempt, this.#exchange, head);
        this.#deliverAll(toEvents(result));
        return;
      }
      const whole = await this.#read();
      if (this.#failure === undefined && this.#decoder.phase !== 'done') {
        if (whole) this.#decode(this.#frames.end());
        this.#deliverAll(this.#decoder.end());
      }
    } catch (error) {
      this.#failure ??= asGatewayError(this.#attempt, error);
    } finally {
      this.#limits.stop();
      clearTimeout(this.#settleTimer);
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The body to its end. False where it was cut after the answer had said how it finished: that answer is good. */
  async #read(): Promise<boolean> {
    try {
      await this.#exchange.read((chunk) => this.#chunk(chunk));
      return true;
    } catch (error) {
      if (this.#decoder.phase !== 'settled' || this.#attempt.call.stopped) throw error;
      return false;
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#exchange.destroy();
  }

  #chunk(chunk: Buffer): Promise<void> | undefined {
    if (this.#failure !== undefined) return undefined;
    try {
      const frames = this.#frames.push(chunk);
      if (frames.length === 0) return undefined;
      this.#attempt.progress.heard = true;
      this.#limits.event();
      return this.#decode(frames);
    } catch (error) {
      this.#fail(asGatewayError(this.#attempt, error));
      return undefined;
    }
  }

  /** The frames of one read become one batch of events. */
  #decode(frames: Iterable<Frame>): Promise<void> | undefined {
    const batch: ChatEvent[] = [];
    for (const frame of frames) {
      for (const event of this.#decoder.push(frame)) this.#event(event, batch);
      if (this.#decoder.phase === 'done') break;
    }
    const held = this.#deliver(batch);
    if (this.#decoder.phase === 'done') this.#exchange.release();
    else if (this.#decoder.phase === 'settled') this.#settle();
    return held;
  }

  /** The upstream said that it finished: what it still owes must not keep the caller waiting. */
  #settle(): void {
    this.#limits.stop();
    this.#settleTimer ??= setTimeout(() => {
      try {
        this.#deliverAll(this.#decoder.end());
      } catch (error) {
        this.#failure ??= error;
      }
      this.#exchange.release();
    }, settleMs);
  }

  #deliverAll(events: readonly ChatEvent[]): void {
    const batch: ChatEvent[] = [];
    for (const event of events) this.#event(event, batch);
    void this.#deliver(batch);
  }

  #deliver(batch: readonly ChatEvent[]): Promise<void> | undefined {
    if (batch.length === 0 || this.#attempt.call.stopped) return undefined;
    const held = this.#sink(batch);
    if (held === undefined) return undefined;
    this.#limits.hold();
    return held.then(() => this.#limits.event());
  }

  #event(event: ChatEvent, out: ChatEvent[]): void {
    const { call, request, progress } = this.#attempt;
    switch (event.type) {
      case 'start':
        noteModel(this.#attempt, event.model);
        return;
      case 'progress':
        if (event.progress.stage === 'model_load') this.#limits.loading(event.progress.value !== 1);
        if (request.includeProgress) out.push(event);
        return;
      case 'error':
        this.#failure ??= event.error;
        return;
      case 'finish':
        this.#limits.content();
        this.#surrogates.flush(out);
        out.push(event);
        call.responseId = event.responseId;
        call.end(event.reason);
        return;
      case 'usage':
        call.usage = event.usage;
        out.push(event);
        return;
      case 'stats':
        call.reasoningTokens = event.stats.reasoning_tokens ?? call.reasoningTokens;
        out.push(event);
        return;
      case 'server-tool':
        out.push(event);
        return;
      case 'text':
      case 'reasoning':
      case 'tool-calls':
        if (!progress.committed) {
          progress.committed = true;
          call.firstTokenMs ??= call.elapsedMs;
          this.#limits.content();
        }
        this.#surrogates.pair(event, out);
        return;
      default:
        event satisfies never;
    }
  }
}

const isEventStream = (head: ResponseHead): boolean =>
  head.contentType === 'text/event-stream' || head.contentType === '';
