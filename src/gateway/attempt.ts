/** One try of one call on one route: sends it, decodes what comes, and ends it in exactly one way. Knows no retries. */
import type { Frame, ProviderAdapter, StreamDecoder, Target, UpstreamCall } from '../chat/adapter.ts';
import { GatewayError, silentUpstreamError } from '../chat/errors.ts';
import { type ChatEvent, type ChatResult, Collector, toEvents } from '../chat/events.ts';
import type { GenerationRequest } from '../chat/request.ts';
import { type Exchange, largestText, type ResponseHead, type UpstreamClient } from '../upstream/client.ts';
import { TransportError } from '../upstream/errors.ts';
import { FrameReader, FrameTooLong } from '../upstream/sse.ts';
import { type BodyShape, plainText, shapeOf } from '../upstream/text.ts';
import type { Call } from './call.ts';
import { bytesOfAnswer } from './estimate.ts';
import { type RouteTimeouts, StreamLimits } from './limits.ts';
import { SurrogatePairs } from './surrogates.ts';
import { decodeWhole, isFinal, isSuccess } from './whole-answer.ts';

/**
 * Takes the events of one network read, in order. A returned promise means that the reader is behind: the upstream is not
 * read until it settles. The last batch of a good stream ends with `finish`; `start` and `error` never arrive here.
 */
export type EventSink = (events: readonly ChatEvent[]) => Promise<void> | undefined;

export interface Attempt {
  readonly client: UpstreamClient;
  readonly call: Call;
  readonly baseUrl: string;
  readonly target: Target;
  readonly adapter: ProviderAdapter;
  readonly timeouts: RouteTimeouts;
  /** How long a plain answer may let its head wait, since another route is left. Milliseconds; 0: as long as the total limit. */
  readonly patienceMs: number;
  /** What became of it as far as retries are concerned. */
  readonly progress: AttemptProgress;
  /** Told when a part of the answer came. */
  readonly onCommit: (() => void) | undefined;
}

export interface AttemptProgress {
  /** The request reached a connection: the upstream may have acted on it. */
  sent: boolean;
  /** An event came, or the head of a plain answer, so that the upstream notices at once when it is left. */
  heard: boolean;
  /** A part of the answer came. Once it was shown to the client, no other try may take over. */
  committed: boolean;
  /** Its body came to a clean end. */
  ended: boolean;
  /** The HTTP status of the upstream's answer, once it came. */
  status: number | undefined;
  /** The upstream asked not to be asked again: it has tried for itself, or the call goes round in a circle. */
  final: boolean;
}

/** A part of the answer. */
type ContentEvent = Extract<ChatEvent, { readonly type: 'text' | 'reasoning' | 'tool-calls' }>;

/** A finished stream may still owe its usage, or say more; its silence is waited out for this long. Milliseconds. */
const settleMs = 2000;

function buildCall({ adapter, target }: Attempt, request: GenerationRequest): UpstreamCall {
  if (request.kind === 'chat') return adapter.chat(request, target);
  if (adapter.completion === undefined) throw new Error(`${adapter.name} has no completions`);
  return adapter.completion(request, target);
}

/** The upstream's request with what all requests of this call carry. */
export function withCallHeaders(request: UpstreamCall, { upstreamHeaders }: Call): UpstreamCall {
  if (upstreamHeaders === undefined) return request;
  return { ...request, headers: { ...request.headers, ...upstreamHeaders } };
}

/**
 * What a try may take: all of a total limit of its route's own, else what is left of the one that spans all tries; 0 = no limit.
 * @throws GatewayError TIMEOUT if nothing is
 */
export function remainingMs({ timeouts, call }: Pick<Attempt, 'timeouts' | 'call'>): number {
  if (timeouts.totalMs === 0 || timeouts.totalIsOwn) return timeouts.totalMs;
  const remaining = timeouts.totalMs - call.tryingMs;
  if (remaining <= 0) throw totalTimeout(timeouts);
  return Math.ceil(remaining);
}

export const totalTimeout = ({ totalIsOwn }: RouteTimeouts): GatewayError =>
  new GatewayError('TIMEOUT', { retryable: totalIsOwn, cause: 'total limit' });

/** A route that was silent for too long. */
export const silence = (limit: 'first event' | 'idle'): GatewayError =>
  new GatewayError('TIMEOUT', { cause: `${limit} limit` });

/**
 * Runs one try. With a sink the events go there and nothing is returned; without one the answer is collected, also from a
 * model that can only stream. No async function: its frame would keep the request's text for as long as the answer streams.
 * @throws GatewayError
 */
export function runAttempt(
  attempt: Attempt,
  request: GenerationRequest,
  sink: EventSink | undefined,
): Promise<ChatResult | undefined> {
  const upstreamCall = withCallHeaders(buildCall(attempt, request), attempt.call);
  if (!upstreamCall.stream) {
    const totalMs = remainingMs(attempt);
    return readWhole(attempt, request, open(attempt, upstreamCall), totalMs);
  }
  if (sink !== undefined) return new StreamAttempt(attempt, request, upstreamCall, sink).run();
  const collector = new Collector();
  const collect: EventSink = (events) => {
    collector.push(events);
    return undefined;
  };
  return new StreamAttempt(attempt, request, upstreamCall, collect).run().then(() => collector.result());
}

function open({ client, call, baseUrl, timeouts }: Attempt, upstreamCall: UpstreamCall): Exchange {
  const exchange = client.open(baseUrl, upstreamCall, timeouts.connectMs, call.hops);
  call.running = exchange;
  return exchange;
}

/** The end of every try, however it ended. */
function close({ call, progress }: Attempt, exchange: Exchange): void {
  progress.sent = exchange.sent;
  progress.status = exchange.status;
  call.running = undefined;
  exchange.release();
}

async function readWhole(
  attempt: Attempt,
  request: GenerationRequest,
  exchange: Exchange,
  totalMs: number,
): Promise<ChatResult> {
  let expired: GatewayError | undefined;
  const expireAfter = (milliseconds: number, error: () => GatewayError): NodeJS.Timeout | undefined =>
    milliseconds > 0
      ? setTimeout(() => {
          expired ??= error();
          exchange.destroy();
        }, milliseconds)
      : undefined;
  const total = expireAfter(totalMs, () => totalTimeout(attempt.timeouts));
  const patience = expireAfter(attempt.patienceMs, () => silence('first event'));
  try {
    const head = await exchange.head;
    clearTimeout(patience);
    attempt.progress.heard = true;
    attempt.progress.final = isFinal(head);
    const body = await (isSuccess(head.status) ? exchange.text() : exchange.errorText());
    attempt.progress.ended = true;
    const result = decodeWhole(attempt, request, head, body);
    noteModel(attempt, result.model);
    attempt.call.usage = result.usage;
    if (result.usage === null) attempt.call.answerBytes = bytesOfAnswer(result);
    attempt.call.reasoningTokens = result.stats?.reasoning_tokens;
    attempt.call.responseId = result.responseId;
    attempt.call.finishWord = result.finish.raw;
    attempt.call.end(result.finish.reason);
    return result;
  } catch (error) {
    throw expired ?? asGatewayError(attempt, error);
  } finally {
    clearTimeout(total);
    clearTimeout(patience);
    close(attempt, exchange);
  }
}

function noteModel({ call }: Attempt, model: string | undefined): void {
  // Where it is the one that was asked for, the catalog's own text stays: a row keeps no text of its answer's.
  if (model !== undefined && model !== '' && model !== call.upstreamModel) call.upstreamModel = model;
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
      case 'undecodable':
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

/** A try whose answer is asked for as server-sent events. */
class StreamAttempt {
  readonly #attempt: Attempt;
  readonly #sink: EventSink;
  readonly #decoder: StreamDecoder;
  readonly #includeProgress: boolean;
  readonly #exchange: Exchange;
  readonly #limits: StreamLimits;
  readonly #frames = new FrameReader();
  readonly #surrogates = new SurrogatePairs();
  /** For an upstream that does not stream after all; given up as soon as it does. */
  #request: GenerationRequest | undefined;
  /** By what its head declares, until its first bytes tell. */
  #declared: BodyShape = 'events';
  #shape: BodyShape | undefined;
  /** The pieces of a body that came as one document. */
  #document: Buffer[] | undefined;
  #documentBytes = 0;
  #settleTimer: NodeJS.Timeout | undefined;
  /** Why we ended it ourselves, or what the upstream's terminal event said. */
  #failure: unknown;

  /** Sends the request. */
  constructor(attempt: Attempt, request: GenerationRequest, upstreamCall: UpstreamCall, sink: EventSink) {
    this.#attempt = attempt;
    this.#request = request;
    this.#sink = sink;
    this.#decoder = attempt.adapter.decoder(request, attempt.target);
    this.#includeProgress = request.includeProgress;
    const totalMs = remainingMs(attempt);
    this.#exchange = open(attempt, upstreamCall);
    this.#limits = new StreamLimits(attempt.timeouts, totalMs, (limit) => {
      // An answer that had said how it finished is good, however long what may follow it takes.
      if (this.#decoder.phase === 'settled') this.#endSettled();
      else this.#fail(limit === 'total' ? totalTimeout(attempt.timeouts) : silence(limit));
    });
  }

  /** Resolves when the terminal event was delivered. @throws GatewayError */
  async run(): Promise<undefined> {
    try {
      const head = await this.#exchange.head;
      if (isSuccess(head.status)) await this.#read(head);
      else {
        const { progress } = this.#attempt;
        progress.heard = true;
        progress.final = isFinal(head);
        this.#takeWhole(head, await this.#exchange.errorText());
      }
    } catch (error) {
      this.#cut(error);
    } finally {
      this.#limits.stop();
      clearTimeout(this.#settleTimer);
      close(this.#attempt, this.#exchange);
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #read(head: ResponseHead): Promise<void> {
    const { progress } = this.#attempt;
    if (!isEventStream(head)) {
      this.#declared = 'document';
      progress.heard = true;
    }
    await this.#exchange.read((chunk) => this.#chunk(chunk));
    progress.ended = true;
    if ((this.#shape ?? this.#declared) === 'events') this.#conclude(true);
    else if (this.#failure === undefined)
      this.#takeWhole(head, plainText(Buffer.concat(this.#document ?? [])));
  }

  #takeWhole(head: ResponseHead, body: string): void {
    if (this.#request === undefined) return;
    this.#deliverAll(toEvents(decodeWhole(this.#attempt, this.#request, head, body)));
  }

  /** The body is over. One that came whole may have held a last event back, for want of an empty line. */
  #conclude(whole: boolean): void {
    if (this.#failure !== undefined || this.#decoder.phase === 'done') return;
    if (whole) this.#decode(this.#frames.end());
    this.#deliverAll(this.#decoder.end());
  }

  /** The body was cut. An answer that had said how it finished is good none the less. */
  #cut(error: unknown): void {
    const finished = this.#decoder.phase === 'settled' && !this.#attempt.call.stopped;
    if (finished && error instanceof TransportError) this.#conclude(false);
    else this.#failure ??= asGatewayError(this.#attempt, error);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#exchange.destroy();
  }

  #chunk(chunk: Buffer): Promise<void> | undefined {
    if (this.#failure !== undefined) return undefined;
    if (this.#shape !== 'events' && !this.#beginsEvents(chunk)) return undefined;
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

  /** Keeps the bytes of a document, and lets go those that say nothing yet. */
  #beginsEvents(chunk: Buffer): boolean {
    this.#shape ??= shapeOf(chunk, this.#declared);
    if (this.#shape === 'events') {
      this.#request = undefined;
      return true;
    }
    if (this.#shape === undefined) return false;
    this.#attempt.progress.heard = true;
    this.#document ??= [];
    this.#document.push(Buffer.from(chunk));
    this.#documentBytes += chunk.length;
    if (this.#documentBytes > largestText) {
      this.#fail(asGatewayError(this.#attempt, new TransportError('too-large', true)));
    }
    return false;
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
    else if (this.#decoder.phase === 'settled') this.#settle(batch.length > 0);
    return held;
  }

  /** The upstream said that it finished: what it still owes must not keep the caller waiting. Anything that it says does. */
  #settle(spoke: boolean): void {
    if (this.#settleTimer !== undefined) {
      if (spoke) this.#settleTimer.refresh();
      return;
    }
    this.#limits.settle();
    this.#settleTimer = setTimeout(() => this.#endSettled(), settleMs);
  }

  #endSettled(): void {
    try {
      this.#deliverAll(this.#decoder.end());
    } catch (error) {
      this.#failure ??= error;
    }
    this.#exchange.release();
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
    return held.then(() => this.#limits.endHold());
  }

  #event(event: ChatEvent, out: ChatEvent[]): void {
    const { call, progress } = this.#attempt;
    switch (event.type) {
      case 'start':
        noteModel(this.#attempt, event.model);
        return;
      case 'progress':
        if (event.progress.stage === 'model_load') this.#limits.loading(event.progress.value !== 1);
        if (this.#includeProgress) out.push(event);
        return;
      case 'error':
        this.#failure ??= event.error;
        return;
      case 'finish':
        this.#limits.content();
        this.#surrogates.flush(out);
        out.push(event);
        call.responseId = event.responseId;
        call.finishWord = event.raw;
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
          this.#attempt.onCommit?.();
          call.firstTokenMs ??= call.elapsedMs;
          this.#limits.content();
        }
        call.answerBytes += bytesOf(event);
        this.#surrogates.pair(event, out);
        return;
      default:
        event satisfies never;
    }
  }
}

/** What a delta brings of the answer, in bytes. */
function bytesOf(event: ContentEvent): number {
  if (event.type !== 'tool-calls') return Buffer.byteLength(event.text);
  let bytes = 0;
  for (const delta of event.deltas) bytes += Buffer.byteLength(delta.function?.arguments ?? '');
  return bytes;
}

const isEventStream = (head: ResponseHead): boolean =>
  head.contentType === 'text/event-stream' || head.contentType === '';
