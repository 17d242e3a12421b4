/** What is left to try for one call: which routes, how often, and after how long. Knows no wire and waits for nothing itself. */
import { GatewayError } from '../chat/errors.ts';
import type { Call } from './call.ts';
import { backoffMs, judge, loadingWaitMs, type Verdict } from './retry.ts';
import { type Candidate, mayFit } from './routing.ts';

/** A try that failed. */
export interface Failure<C> {
  readonly candidate: C;
  readonly error: unknown;
  /** When it began, since the call's start. Milliseconds. */
  readonly startedMs: number;
  /** No other try may follow: the client has seen a part of the answer, or the upstream may have acted on the request. */
  readonly over: boolean;
  /** It taught how this route must be asked. */
  readonly taught: boolean;
  /** The upstream asked not to be asked again. */
  readonly final: boolean;
}

/** How the next try begins. */
export interface NextTry {
  readonly verdict: Verdict;
  /** Milliseconds. */
  readonly waitMs: number;
  /** What is waited for is a model that is being loaded. */
  readonly loading: boolean;
}

export class Tries<C extends Candidate> {
  readonly #call: Call;
  readonly #maxRetries: number;
  #left: readonly C[];
  #failed: readonly C[] = [];
  /** Tries that are no retries: of a route that had to be asked otherwise, or that was loading. */
  #uncounted = 0;
  #served500 = false;
  #loadingSince: number | undefined;
  #loadingTries = 0;

  constructor(candidates: readonly C[], call: Call, maxRetries: number) {
    this.#left = candidates;
    this.#call = call;
    this.#maxRetries = maxRetries;
  }

  /** Those that have not failed this call, or all that are left where all have. */
  get places(): readonly C[] {
    if (this.#failed.length === 0) return this.#left;
    const fresh = this.#left.filter((candidate) => !this.#failed.includes(candidate));
    return fresh.length > 0 ? fresh : this.#left;
  }

  /** Whether another route may follow the try that runs now. */
  get othersFollow(): boolean {
    return this.#left.length > 1 && this.#retriesLeft;
  }

  get #retriesLeft(): boolean {
    return this.#call.attempts - this.#uncounted <= this.#maxRetries;
  }

  /** @throws the error, where it is the answer; GatewayError TIMEOUT where a model was loading for too long */
  next({ candidate, error, startedMs, over, taught, final }: Failure<C>): NextTry {
    const verdict: Verdict = over ? 'stop' : taught ? 'again' : judge(error, this.#served500, final);
    this.#served500 ||= error instanceof GatewayError && error.upstreamStatus === 500;
    this.#left = remaining(this.#left, candidate, verdict);
    if (taught || verdict === 'wait') this.#uncounted += 1;
    else if (!this.#retriesLeft) throw error;
    if (this.#left.length === 0) throw error;
    if (taught) return { verdict, waitMs: 0, loading: false };
    this.#failed = [...this.#failed, candidate];
    if (this.#left.some((other) => !this.#failed.includes(other)))
      return { verdict, waitMs: 0, loading: false };
    if (verdict === 'wait') return this.#waitForLoad(candidate, error, startedMs);
    return { verdict, waitMs: this.#backOff(error, candidate), loading: false };
  }

  /** Every other route has failed too, so that this one is asked until it is ready. */
  #waitForLoad(candidate: C, error: unknown, startedMs: number): NextTry {
    this.#failed = this.#failed.filter((other) => other !== candidate);
    this.#loadingSince ??= startedMs;
    const waitMs = loadingWaitMs(this.#loadingTries);
    this.#loadingTries += 1;
    const { firstEventMs } = candidate.timeouts;
    if (firstEventMs > 0 && this.#call.elapsedMs + waitMs - this.#loadingSince >= firstEventMs) {
      throw new GatewayError('TIMEOUT', { cause: error });
    }
    this.#leaveTime(waitMs, error, candidate);
    return { verdict: 'wait', waitMs, loading: true };
  }

  #backOff(error: unknown, candidate: C): number {
    const retryAfter = error instanceof GatewayError ? error.retryAfterSeconds : undefined;
    const waitMs = backoffMs(this.#call.attempts, retryAfter);
    // The upstream wants more time than is waited for here.
    if (waitMs === undefined) throw error;
    this.#leaveTime(waitMs, error, candidate);
    return waitMs;
  }

  /** @throws the error itself where the limit over all tries would run out in the wait */
  #leaveTime(waitMs: number, error: unknown, { timeouts }: C): void {
    const { totalMs, totalIsOwn } = timeouts;
    if (!totalIsOwn && totalMs > 0 && this.#call.tryingMs + waitMs >= totalMs) throw error;
  }
}

/** The candidates that may still be tried after this one failed. */
function remaining<C extends Candidate>(candidates: readonly C[], failed: C, verdict: Verdict): readonly C[] {
  switch (verdict) {
    case 'again':
    case 'wait':
      return candidates;
    case 'elsewhere':
      return candidates.filter((candidate) => candidate !== failed);
    case 'roomier':
      return candidates.filter((candidate) => candidate !== failed && mayFit(candidate, failed));
    case 'stop':
      return [];
    default:
      return verdict satisfies never;
  }
}
