/** What each caller may still use: requests and tokens a minute, calls at once, tokens a day. Knows no key store and no HTTP. */
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible';
import { GatewayError } from '../chat/errors.ts';
import type { EmbeddingRequest, GenerationRequest } from '../chat/request.ts';
import type { Call, Caller } from './call.ts';
import type { EndedCall, Observer } from './observer.ts';

/** How far one limit is used up. */
export interface Quota {
  readonly limit: number;
  readonly remaining: number;
  /** Until the whole limit is there again. Milliseconds. */
  readonly resetMs: number;
}

/** How a caller stands with its limits; what is not limited is absent. */
export interface Standing {
  readonly requests?: Quota;
  /** Of the minute, or where only the day is limited, of the day. */
  readonly tokens?: Quota;
  /** Why the call may not run now. */
  readonly refusal?: GatewayError;
}

const unlimited: Standing = {};

interface Refusal {
  readonly limit: 'requests' | 'tokens' | 'tokens of the day' | 'concurrency';
  readonly waitMs: number;
}

/** 0 = no limit. */
interface Limits {
  readonly rpm: number;
  readonly tpm: number;
  readonly maxConcurrency: number;
  readonly dailyTokens: number;
}

const isLimited = ({ rpm, tpm, maxConcurrency, dailyTokens }: Limits): boolean =>
  rpm > 0 || tpm > 0 || maxConcurrency > 0 || dailyTokens > 0;

/** What one caller's running calls have set aside. */
interface Running {
  calls: number;
  tokens: number;
}

/** Nobody knows when one of a caller's running calls ends. */
const busyRetryMs = 1000;

/** Tokens that are reserved for an answer whose length the request does not limit. */
const usualAnswer = 256;

/** About four bytes of text make one token; of pictures only the upstream knows. */
const bytesPerToken = 4;

function textsOf(request: GenerationRequest | EmbeddingRequest): readonly string[] {
  switch (request.kind) {
    case 'chat':
      return request.messages.flatMap(({ content }) =>
        typeof content === 'string'
          ? content
          : (content ?? []).flatMap((part) => (part.type === 'text' ? part.text : [])),
      );
    case 'completion':
      return [request.prompt];
    case 'embedding':
      return request.input;
    default:
      return request satisfies never;
  }
}

/** Roughly how many tokens a request will use, its answer included. */
export function estimateTokens(request: GenerationRequest | EmbeddingRequest): number {
  let bytes = 0;
  for (const text of textsOf(request)) bytes += Buffer.byteLength(text);
  const answer = request.kind === 'embedding' ? 0 : (request.parameters.max_tokens ?? usualAnswer);
  return Math.ceil(bytes / bytesPerToken) + answer;
}

const dayMs = 86_400_000;

/** Until the next midnight UTC. Milliseconds. */
const restOfDayMs = (now: number): number => dayMs - (now % dayMs);

/** Each limit has its own width, so the windows only count, and the comparison is made here. */
const countingWindow = (seconds: number): RateLimiterMemory =>
  new RateLimiterMemory({ points: Number.MAX_SAFE_INTEGER, duration: seconds, keyPrefix: '' });

const quotaOf = (counted: RateLimiterRes, limit: number, reserved: number): Quota => ({
  limit,
  remaining: Math.max(0, limit - counted.consumedPoints - reserved),
  resetMs: counted.msBeforeNext,
});

/** One error for all limits that stand in the way: the one that lasts longest says when to come back. */
function refusalOf(refusals: readonly Refusal[]): Pick<Standing, 'refusal'> {
  const longest = refusals.reduce<Refusal | undefined>(
    (worst, one) => (worst === undefined || one.waitMs > worst.waitMs ? one : worst),
    undefined,
  );
  if (longest === undefined) return {};
  const retryAfterSeconds = Math.max(1, Math.ceil(longest.waitMs / 1000));
  return {
    refusal: new GatewayError('RATE_LIMITED', { retryAfterSeconds, cause: `limit: ${longest.limit}` }),
  };
}

/** The tokens that a call has cost: what the upstream reported, and where it began to answer without a report, the estimate. */
function spent(call: Call, estimate: number): number {
  if (call.usage !== null) return call.usage.total_tokens;
  return call.firstTokenMs === undefined ? 0 : estimate;
}

export class Allowances implements Partial<Observer> {
  readonly #defaultRpm: number;
  /** A minute begins with a caller's first request in it. */
  readonly #requests = countingWindow(60);
  readonly #tokens = countingWindow(60);
  readonly #days = countingWindow(86_400);
  readonly #running = new Map<string, Running>();

  /** @param defaultRpm requests a minute for callers that have no limit of their own; 0 = none */
  constructor(defaultRpm: number) {
    this.#defaultRpm = defaultRpm;
  }

  /** Whether anything is limited for this caller. */
  limits(caller: Caller): boolean {
    const limits = this.#limitsOf(caller);
    return limits !== undefined && isLimited(limits);
  }

  /**
   * Counts a call and reserves its tokens, or says why it may not run now; what is reserved is held until the call's end. Of
   * parallel calls each sees what those before it hold, because holding is done before the first await.
   */
  admit(call: Call, request: GenerationRequest | EmbeddingRequest): Standing | Promise<Standing> {
    const limits = this.#limitsOf(call.caller);
    // The call of a client that has left already would never be settled.
    if (limits === undefined || call.stopped) return unlimited;
    if (isLimited(limits)) return this.#count(call, limits, request);
    // What it uses counts none the less, for a limit that is set later.
    this.#hold(call, call.caller.id, 0);
    return unlimited;
  }

  async #count(call: Call, limits: Limits, request: GenerationRequest | EmbeddingRequest): Promise<Standing> {
    const { id } = call.caller;
    const before = this.#running.get(id);
    const reserved = before?.tokens ?? 0;
    const refusals: Refusal[] = [];
    if (limits.maxConcurrency > 0 && (before?.calls ?? 0) >= limits.maxConcurrency) {
      refusals.push({ limit: 'concurrency', waitMs: busyRetryMs });
    }
    const estimate = limits.tpm > 0 || limits.dailyTokens > 0 ? estimateTokens(request) : 0;
    if (refusals.length === 0) this.#hold(call, id, estimate);
    const minute =
      limits.tpm > 0 ? quotaOf(await this.#tokens.penalty(id, 0), limits.tpm, reserved) : undefined;
    const today =
      limits.dailyTokens > 0 ? quotaOf(await this.#countDay(id, 0), limits.dailyTokens, reserved) : undefined;
    if (minute?.remaining === 0) refusals.push({ limit: 'tokens', waitMs: minute.resetMs });
    if (today?.remaining === 0) refusals.push({ limit: 'tokens of the day', waitMs: today.resetMs });
    // What is refused for another reason uses up none of the minute's requests.
    const point = refusals.length === 0 ? 1 : 0;
    const counted = limits.rpm > 0 ? await this.#requests.penalty(id, point) : undefined;
    if (counted !== undefined && counted.consumedPoints > limits.rpm) {
      refusals.push({ limit: 'requests', waitMs: counted.msBeforeNext });
      // Else a limit that is raised meanwhile would be used up by those that it refused before.
      void this.#requests.reward(id, 1);
    }
    if (refusals.length > 0) this.#release(call);
    const tokens = minute ?? today;
    const own = refusals.length === 0 ? estimate : 0;
    return {
      ...(counted === undefined ? {} : { requests: quotaOf(counted, limits.rpm, 0) }),
      ...(tokens === undefined
        ? {}
        : { tokens: { ...tokens, remaining: Math.max(0, tokens.remaining - own) } }),
      ...refusalOf(refusals),
    };
  }

  /** Gives back what these calls have reserved and counts what they have used. Without effect for one that held nothing. */
  callsEnded(ended: readonly EndedCall[]): void {
    let id = '';
    let tokens = 0;
    for (const { call } of ended) {
      const reserved = this.#release(call);
      // Addresses have no token limits, and there may be very many of them.
      if (reserved === undefined || call.caller.key === undefined) continue;
      // Those that ended together are mostly of one caller.
      if (call.caller.id !== id) {
        this.#countTokens(id, tokens);
        id = call.caller.id;
        tokens = 0;
      }
      tokens += spent(call, reserved);
    }
    this.#countTokens(id, tokens);
  }

  #countTokens(callerId: string, tokens: number): void {
    if (tokens === 0) return;
    void this.#tokens.penalty(callerId, tokens);
    void this.#countDay(callerId, tokens);
  }

  /** Counts what was used earlier today, before this process began. */
  restoreDay(callerId: string, tokens: number): void {
    void this.#countDay(callerId, tokens);
  }

  #limitsOf({ key }: Caller): Limits | undefined {
    const rpm = key?.rpm ?? this.#defaultRpm;
    if (key === undefined) {
      return rpm === 0 ? undefined : { rpm, tpm: 0, maxConcurrency: 0, dailyTokens: 0 };
    }
    return {
      rpm,
      tpm: key.tpm ?? 0,
      maxConcurrency: key.maxConcurrency ?? 0,
      dailyTokens: key.dailyTokens ?? 0,
    };
  }

  #countDay(callerId: string, tokens: number): Promise<RateLimiterRes> {
    const now = Date.now();
    return this.#days.penalty(`${callerId} ${Math.floor(now / dayMs)}`, tokens, {
      customDuration: Math.ceil(restOfDayMs(now) / 1000),
    });
  }

  #hold(call: Call, callerId: string, tokens: number): void {
    const running = this.#running.get(callerId) ?? { calls: 0, tokens: 0 };
    running.calls += 1;
    running.tokens += tokens;
    this.#running.set(callerId, running);
    call.reservedTokens = tokens;
  }

  /** Returns the tokens that were reserved; undefined where the call held nothing. */
  #release(call: Call): number | undefined {
    const tokens = call.reservedTokens;
    if (tokens === undefined) return undefined;
    call.reservedTokens = undefined;
    const callerId = call.caller.id;
    const running = this.#running.get(callerId);
    if (running === undefined) return tokens;
    running.calls -= 1;
    running.tokens -= tokens;
    if (running.calls === 0) this.#running.delete(callerId);
    return tokens;
  }
}
