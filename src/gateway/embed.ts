/** One try of an embeddings call on one route: its inputs in batches, a few at once, put together in order. Knows no retries. */
import type { EmbeddingAdapter, EmbeddingResult } from '../chat/adapter.ts';
import { GatewayError, silentUpstreamError } from '../chat/errors.ts';
import type { Usage } from '../chat/events.ts';
import type { EmbeddingRequest } from '../chat/request.ts';
import type { UpstreamClient } from '../upstream/client.ts';
import { TransportError } from '../upstream/errors.ts';
import type { Slot } from './admission.ts';
import {
  type AttemptProgress,
  asGatewayError,
  remainingMs,
  silence,
  totalTimeout,
  withCallHeaders,
} from './attempt.ts';
import type { Call } from './call.ts';
import { adjustedEmbedding } from './fit.ts';
import type { Candidate } from './routing.ts';
import { isFinal, isSuccess } from './whole-answer.ts';

/** Batches of one call that run at once, where the provider has room for them. */
const mostAtOnce = 4;

interface Batch {
  readonly input: readonly string[];
  result: EmbeddingResult | undefined;
}

/**
 * The inputs of one call, cut as each route wants them. What a route has answered is kept, so that its next try asks only for the
 * rest; another route starts anew, because vectors of different models do not mix.
 */
export class EmbeddingBatches {
  readonly #input: readonly string[];
  readonly #byCandidate = new Map<Candidate<EmbeddingAdapter>, readonly Batch[]>();

  constructor(input: readonly string[]) {
    this.#input = input;
  }

  for(candidate: Candidate<EmbeddingAdapter>): readonly Batch[] {
    const known = this.#byCandidate.get(candidate);
    if (known !== undefined) return known;
    const limit = candidate.adapter.batchLimit(candidate.target);
    const batches: Batch[] = [];
    for (let start = 0; start < this.#input.length; start += limit) {
      batches.push({ input: this.#input.slice(start, start + limit), result: undefined });
    }
    this.#byCandidate.set(candidate, batches);
    return batches;
  }
}

export interface EmbeddingAttempt {
  readonly client: UpstreamClient;
  readonly call: Call;
  readonly request: EmbeddingRequest;
  readonly candidate: Candidate<EmbeddingAdapter>;
  readonly progress: AttemptProgress;
  readonly batches: EmbeddingBatches;
  /** How long a batch may take, since another route is left. Milliseconds; 0: as long as the total limit. */
  readonly patienceMs: number;
  /** A slot for one more batch at once, beside the one that the call holds; undefined where none is free. */
  moreSlots(): Slot | undefined;
}

/** @throws GatewayError of the first batch that failed */
export async function runEmbedding(attempt: EmbeddingAttempt): Promise<EmbeddingResult> {
  const { call } = attempt;
  const batches = attempt.batches.for(attempt.candidate);
  const open = batches.filter((batch) => batch.result === undefined);
  const failed = new AbortController();
  call.running = {
    get sent() {
      return attempt.progress.sent;
    },
    destroy: () => failed.abort(),
  };

  const work = async (slot?: Slot): Promise<void> => {
    try {
      for (let batch = open.shift(); batch !== undefined; batch = open.shift()) {
        batch.result = await embedBatch(attempt, batch.input, failed.signal);
      }
    } catch (error) {
      open.length = 0;
      // Where the route is tried again, what the running batches bring need not be asked for twice.
      if (!(error instanceof GatewayError && error.retryable)) failed.abort();
      throw error;
    } finally {
      slot?.release();
    }
  };
  const workers = [work()];
  while (workers.length < mostAtOnce && open.length > 0) {
    const slot = attempt.moreSlots();
    if (slot === undefined) break;
    workers.push(work(slot));
  }
  try {
    await firstFailure(workers);
  } finally {
    call.running = undefined;
  }
  const result = joinBatches(batches);
  call.upstreamModel = result.model ?? call.upstreamModel;
  call.usage = result.usage;
  call.end('stop');
  return result;
}

/** Waits for all, so that none outlives the try. @throws what failed first; the rest failed because they were ended */
async function firstFailure(workers: readonly Promise<void>[]): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  await Promise.all(
    workers.map((worker) =>
      worker.catch((error: unknown) => {
        failure ??= { error };
      }),
    ),
  );
  if (failure !== undefined) throw failure.error;
}

/** Whether the total limit is the one that counts. @param patienceMs how long another route is kept waiting; 0 where none is left */
const isPatient = (totalMs: number, patienceMs: number): boolean =>
  patienceMs === 0 || (totalMs > 0 && totalMs < patienceMs);

async function embedBatch(
  { client, call, request, candidate, progress, patienceMs }: EmbeddingAttempt,
  input: readonly string[],
  signal: AbortSignal,
): Promise<EmbeddingResult> {
  const { adapter, target, timeouts } = candidate;
  const { baseUrl } = candidate.route.provider;
  let totalMs = 0;
  try {
    const upstreamCall = withCallHeaders(
      adapter.embed({ ...adjustedEmbedding(request, candidate.adjustment), input }, target),
      call,
    );
    totalMs = remainingMs({ timeouts, call });
    const answer = await client.fetchText(baseUrl, upstreamCall, {
      connectTimeoutMs: timeouts.connectMs,
      totalTimeoutMs: isPatient(totalMs, patienceMs) ? totalMs : patienceMs,
      signal,
      hops: call.hops,
    });
    progress.sent = true;
    progress.heard = true;
    progress.status = answer.status;
    progress.final ||= isFinal(answer);
    if (!isSuccess(answer.status)) throw adapter.decodeError(answer, target);
    const result = adapter.decodeEmbeddings(parseBody(answer.body), target);
    if (result.embeddings.length === input.length) return result;
    throw silentUpstreamError(target.displayName, 'format', { cause: 'a vector per input was expected' });
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    if (!(error instanceof TransportError)) throw error;
    progress.sent ||= error.sent;
    if (error.kind !== 'timeout') throw asGatewayError({ target }, error);
    throw isPatient(totalMs, patienceMs) ? totalTimeout(timeouts) : silence('first event');
  }
}

/** The JSON of a body; undefined, which is no list of embeddings, where it is none. */
function parseBody(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function joinBatches(batches: readonly Batch[]): EmbeddingResult {
  const results = batches.flatMap((batch) => batch.result ?? []);
  const model = results.find((result) => result.model !== undefined)?.model;
  return {
    ...(model === undefined ? {} : { model }),
    embeddings: results.flatMap((result) => result.embeddings),
    usage: sumUsage(results.map((result) => result.usage)),
  };
}

/** Null where a batch came without its usage: a sum over the others would be wrong. */
function sumUsage(usages: readonly (Usage | null)[]): Usage | null {
  let sum: Usage = { input_tokens: 0, output_tokens: 0, total_tokens: 0 };
  for (const usage of usages) {
    if (usage === null) return null;
    sum = {
      input_tokens: sum.input_tokens + usage.input_tokens,
      output_tokens: sum.output_tokens + usage.output_tokens,
      total_tokens: sum.total_tokens + usage.total_tokens,
    };
  }
  return sum;
}
