/** Whether a failed try is followed by another, where, and after how long. Pure decisions over errors. */
import { GatewayError } from '../chat/errors.ts';
import type { GenerationRequest } from '../chat/request.ts';

/**
 * `again`: any route, this one too. `elsewhere`: any route but this one. `roomier`: only a route of another upstream model or
 * with a larger context, since the prompt does not fit here. `wait`: the model is being loaded, so this route too, and as often as the
 * first-event limit allows. `stop`: the error is the answer.
 */
export type Verdict = 'again' | 'elsewhere' | 'roomier' | 'wait' | 'stop';

/** A moment's matter; 520 to 524 are Cloudflare's for the server behind it, 529 an overloaded service. */
const retriedStatuses: ReadonlySet<number> = new Set([
  408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529,
]);

/** With these the upstream says that it did not take the request. */
const refusedStatuses: ReadonlySet<number | undefined> = new Set([401, 402, 403, 404, 429]);

/** Longest `Retry-After` that is waited for here; a longer one goes to the client. Seconds. */
const longestRetryAfterSeconds = 10;

const firstBackoffMs = 250;
const longestBackoffMs = 8000;

/**
 * What a failure means for the tries that are left. What speaks of the request is the answer; what speaks of the provider goes
 * elsewhere, and where it may pass, here again. `served500`: this call met a 500 before, and that is retried once. `final`: the
 * upstream asked not to be asked again.
 */
export function judge(error: unknown, served500: boolean, final: boolean): Verdict {
  if (!(error instanceof GatewayError)) return 'stop';
  const { code, reason, upstreamStatus, retryable } = error;
  if (reason === 'context_length') return 'roomier';
  if (reason === 'loading') return 'wait';
  if (code === 'UNAUTHORIZED' || reason === 'quota' || reason === 'host') return 'elsewhere';
  if (upstreamStatus === 402 || upstreamStatus === 403 || upstreamStatus === 404) return 'elsewhere';
  if (!retryable) return 'stop';
  if (reason === 'connect' || reason === 'cut' || reason === 'empty') {
    // Without an answer to a connection the route stayed silent, and would again.
    return code === 'TIMEOUT' ? 'elsewhere' : 'again';
  }
  if (upstreamStatus === undefined || !retriedStatuses.has(upstreamStatus)) return 'elsewhere';
  return final || (upstreamStatus === 500 && served500) ? 'elsewhere' : 'again';
}

/** Whether the upstream may have acted on a request that failed so, once it was sent. */
export const mayHaveActed = (error: unknown): boolean =>
  !(
    error instanceof GatewayError &&
    (refusedStatuses.has(error.upstreamStatus) || error.reason === 'loading')
  );

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

/** How long to wait before a route that loads its model is asked again, after so many such waits. Milliseconds. */
export const loadingWaitMs = (waits: number): number =>
  Math.min(2000, firstBackoffMs * 2 ** Math.min(waits, 3));

/** LM Studio acts on such a request (calls tools, stores a chat): once sent, a second try could act twice. */
export function hasSideEffects(request: GenerationRequest): boolean {
  return request.parameters.integrations !== undefined || request.parameters.store === true;
}
