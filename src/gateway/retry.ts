/** Whether a failed try is followed by another, where, and after how long. Pure decisions over errors. */
import { GatewayError } from '../chat/errors.ts';
import type { GenerationRequest } from '../chat/request.ts';

/**
 * `again`: any route, this one too. `elsewhere`: any route but this one. `other-model`: only a route to another upstream
 * model, since this one would refuse again. `stop`: the error is the answer.
 */
export type Verdict = 'again' | 'elsewhere' | 'other-model' | 'stop';

const retriedStatuses: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

/** Longest `Retry-After` that is waited for here; a longer one goes to the client. Seconds. */
const longestRetryAfterSeconds = 10;

const firstBackoffMs = 250;
const longestBackoffMs = 8000;

/** What a failure means for the tries that are left. `served500`: this call met a 500 before, and that is retried once. */
export function judge(error: unknown, served500: boolean): Verdict {
  if (!(error instanceof GatewayError)) return 'stop';
  if (error.reason === 'context_length' || error.reason === 'quota') return 'other-model';
  if (error.code === 'UNAUTHORIZED') return 'other-model';
  if (error.upstreamStatus === 402 || error.upstreamStatus === 403 || error.upstreamStatus === 404) {
    return 'other-model';
  }
  if (!error.retryable) return 'stop';
  // One of our own limits ran out: the route stayed silent, and would again.
  if (error.code === 'TIMEOUT' && error.upstreamStatus === undefined) return 'elsewhere';
  if (error.reason === 'connect' || error.reason === 'cut' || error.reason === 'empty') return 'again';
  if (error.upstreamStatus === undefined) return 'stop';
  if (!retriedStatuses.has(error.upstreamStatus)) return 'stop';
  if (error.upstreamStatus === 500 && served500) return 'stop';
  return 'again';
}

/**
 * How long to wait before the same route is tried again: full jitter over an exponential bound, and not before the upstream
 * asked for. Undefined where the upstream wants more time than is waited for here.
 * @param failures tries that failed so far, 1 or more
 */
export function backoffMs(failures: number, retryAfterSeconds: number | undefined): number | undefined {
  const asked = retryAfterSeconds ?? 0;
  if (asked > longestRetryAfterSeconds) return undefined;
  const bound = Math.min(longestBackoffMs, firstBackoffMs * 2 ** (failures - 1));
  return Math.max(asked * 1000, Math.random() * bound);
}

/** LM Studio acts on such a request (calls tools, stores a chat): once sent, a second try could act twice. */
export function hasSideEffects(request: GenerationRequest): boolean {
  return request.parameters.integrations !== undefined || request.parameters.store === true;
}
