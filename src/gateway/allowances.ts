/** What each caller may still use: requests and tokens a minute, calls at once, tokens a day. Knows no key store and no HTTP. */
import { GatewayError } from '../chat/errors.ts';
import type { EmbeddingRequest, GenerationRequest } from '../chat/request.ts';
import type { Call, Caller, Quota } from './call.ts';
import { type Count, CountingWindow } from './counting-window.ts';
import { estimateTokens, estimateUsage } from './estimate.ts';
import type { EndedCall, Observer } from './observer.ts';

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

/** What one caller's running calls have set aside. */
interface Running {
  calls: number;
  tokens: number;
}

/** Nobody knows when one of a caller's running calls ends. */
const busyRetryMs = 1000;

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** When the day is over, at midnight UTC. */
const endOfDay = (now: number): number => now - (now % dayMs) + dayMs;

/** How far a count is from its limit. @param reserved what running calls will probably add to it */
const quotaOf = ({ points, endsAt }: Count, limit: number, reserved: number, now: number): Quota => ({
  limit,
  remaining: Math.max(0, limit - points - reserved),
  resetMs: endsAt - now,
});

/** That nothing is left until the count starts anew; undefined where there is, or where nothing is counted. */
const exhausted = (
  limit: Refusal['limit'],
  count: Count | undefined,
  allowed: number,
  now: number,
): Refusal | undefined =>
  count !== undefined && count.points >= allowed ? { limit, waitMs: count.endsAt - now } : undefined;

/** Of limits that stand in the way, the one that lasts longest says when to come back. */
const longerOf = (one: Refusal | undefined, other: Refusal | undefined): Refusal | undefined =>
  one === undefined || (other !== undefined && other.waitMs > one.waitMs) ? other : one;

const errorOf = ({ limit, waitMs }: Refusal): GatewayError =>
  new GatewayError('RATE_LIMITED', {
    retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
    cause: `limit: ${limit}`,
  });

/** The tokens that a call has cost: what the upstream reported, else about what was sent and what came. */
const spent = (call: Call): number => (call.usage ?? estimateUsage(call))?.total_tokens ?? 0;

/** Admits without waiting: a promise for each count would cost every call 10 us, and two calls could not be told apart meanwhile. */
export class Allowances implements Partial<Observer> {
  readonly #defaultRpm: number;
  /** A minute begins with a caller's first request in it. */
  readonly #requests = new CountingWindow();
  readonly #tokens = new CountingWindow();
  readonly #days = new CountingWindow();
  readonly #running = new Map<string, Running>();

  /** @param defaultRpm requests a minute for callers that have no limit of their own; 0 = none */
  constructor(defaultRpm: number) {
    this.#defaultRpm = defaultRpm;
  }

  /**
   * Counts a call for the requests a minute, whatever it will turn out to ask, and notes in it how its caller stands.
   * @throws GatewayError RATE_LIMITED where they are spent; it is not counted then
   */
  count(call: Call): void {
    const limits = this.#limitsOf(call.caller);
    if (limits === undefined || limits.rpm === 0) return;
    const now = Date.now();
    const requests = this.#requests.of(call.caller.id, now, now + minuteMs);
    const refusal = exhausted('requests', requests, limits.rpm, now);
    if (refusal === undefined) requests.points += 1;
    call.quotas = { requests: quotaOf(requests, limits.rpm, 0, now), tokens: undefined };
    if (refusal !== undefined) throw errorOf(refusal);
  }

  /**
   * Reserves the tokens of a call until its end, and notes in it how its caller stands.
   * @throws GatewayError RATE_LIMITED where it may not run now; it uses up no tokens then
   */
  admit(call: Call, request: GenerationRequest | EmbeddingRequest): void {
    const limits = this.#limitsOf(call.caller);
    // The call of a client that has left already would never be settled.
    if (limits === undefined || call.stopped) return;
    const { tpm, dailyTokens, maxConcurrency } = limits;
    const { id } = call.caller;
    const now = Date.now();
    const minute = tpm > 0 ? this.#tokens.of(id, now, now + minuteMs) : undefined;
    const today = dailyTokens > 0 ? this.#days.of(id, now, endOfDay(now)) : undefined;
    const running = this.#running.get(id);
    let reserved = running?.tokens ?? 0;
    const isBusy = maxConcurrency > 0 && (running?.calls ?? 0) >= maxConcurrency;
    let refusal: Refusal | undefined = isBusy ? { limit: 'concurrency', waitMs: busyRetryMs } : undefined;
    refusal = longerOf(refusal, exhausted('tokens', minute, tpm - reserved, now));
    refusal = longerOf(refusal, exhausted('tokens of the day', today, dailyTokens - reserved, now));
    if (refusal === undefined) {
      const estimate = minute === undefined && today === undefined ? 0 : estimateTokens(request, call);
      // Also where nothing is limited, for a limit that is set before the call ends.
      this.#hold(call, id, estimate);
      reserved += estimate;
    }
    call.quotas = {
      requests: call.quotas?.requests,
      tokens: minute
        ? quotaOf(minute, tpm, reserved, now)
        : today && quotaOf(today, dailyTokens, reserved, now),
    };
    if (refusal !== undefined) throw errorOf(refusal);
  }

  /** Gives back what these calls have reserved and counts what they have used. Without effect for one that held nothing. */
  callsEnded(ended: readonly EndedCall[]): void {
    let id = '';
    let tokens = 0;
    for (const { call } of ended) {
      const held = this.#release(call);
      // Addresses have no token limits, and there may be very many of them.
      if (!held || call.caller.key === undefined) continue;
      // Those that ended together are mostly of one caller.
      if (call.caller.id !== id) {
        this.#countTokens(id, tokens);
        id = call.caller.id;
        tokens = 0;
      }
      tokens += spent(call);
    }
    this.#countTokens(id, tokens);
  }

  #countTokens(callerId: string, tokens: number): void {
    if (tokens === 0) return;
    const now = Date.now();
    this.#tokens.of(callerId, now, now + minuteMs).points += tokens;
    this.#days.of(callerId, now, endOfDay(now)).points += tokens;
  }

  /** Counts what was used earlier today, before this process began. */
  restoreDay(callerId: string, tokens: number): void {
    const now = Date.now();
    this.#days.of(callerId, now, endOfDay(now)).points += tokens;
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

  #hold(call: Call, callerId: string, tokens: number): void {
    const running = this.#running.get(callerId) ?? { calls: 0, tokens: 0 };
    running.calls += 1;
    running.tokens += tokens;
    this.#running.set(callerId, running);
    call.reservedTokens = tokens;
  }

  /** Returns whether the call held anything. */
  #release(call: Call): boolean {
    const tokens = call.reservedTokens;
    if (tokens === undefined) return false;
    call.reservedTokens = undefined;
    const callerId = call.caller.id;
    const running = this.#running.get(callerId);
    if (running === undefined) return true;
    running.calls -= 1;
    running.tokens -= tokens;
    if (running.calls === 0) this.#running.delete(callerId);
    return true;
  }
}
