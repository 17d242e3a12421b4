/** The engine: finds a model's routes, waits for a place, tries them until one answers. Knows adapters by interface only. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { EmbeddingAdapter, EmbeddingResult, ProviderAdapter } from '../chat/adapter.ts';
import { GatewayError, invalidParameter, type Lesson, lessons } from '../chat/errors.ts';
import type { ChatEvent, ChatResult } from '../chat/events.ts';
import { finishMeaning } from '../chat/finish-words.ts';
import type { EmbeddingRequest, GenerationRequest } from '../chat/request.ts';
import type { Config } from '../config.ts';
import type { UpstreamClient } from '../upstream/client.ts';
import type { Admission, Slot } from './admission.ts';
import { type AttemptProgress, type EventSink, runAttempt } from './attempt.ts';
import type { Breakers } from './breaker.ts';
import type { Call, Try } from './call.ts';
import type { Catalog, CatalogModel } from './catalog.ts';
import type { Discovery } from './discovery.ts';
import { EmbeddingBatches, runEmbedding } from './embed.ts';
import { notePrompt } from './estimate.ts';
import { adjusted, refuseUnknown } from './fit.ts';
import { checkIntegrations } from './integrations.ts';
import type { Observer } from './observer.ts';
import { hasSideEffects, mayHaveActed } from './retry.ts';
import {
  type Candidate,
  candidatesFor,
  embeddingCandidatesFor,
  orderCandidates,
  overflowOf,
} from './routing.ts';
import type { StoredChats } from './stored-chats.ts';
import { ToldOnce } from './told-once.ts';
import { Tries } from './tries.ts';

export interface EngineDependencies {
  readonly catalog: Catalog;
  readonly discovery: Discovery;
  readonly client: UpstreamClient;
  readonly admission: Admission<Candidate>;
  readonly breakers: Breakers;
  readonly storedChats: StoredChats;
  readonly observer: Pick<Observer, 'tryStarted' | 'tryEnded'>;
  readonly config: Config;
  readonly log: Logger;
}

/** A model instance or quantization is still the model: `qwen3-8b@q4_k_m`, `qwen3-8b:2`. */
const baseModelName = (name: string): string => name.replace(/(?:@[\w.-]+|:\d+)$/, '');

/** What a call wants of the routes that are tried for it. */
interface Work<Adapter, Result> {
  /** The routes that can carry it, once its caller may use the model. Asked first, and once. @throws GatewayError */
  candidates(): Soon<readonly Candidate<Adapter>[]>;
  /** Whether a second try does no harm, once the first was sent. */
  readonly repeatable: boolean;
  /** Whether the client sees the answer as it comes: then nobody may take over from a try that began one. */
  readonly live: boolean;
  /** One try on one route. @param patienceMs how long a plain answer may let its head wait, since another route is left; 0: no limit */
  run(candidate: Candidate<Adapter>, progress: AttemptProgress, patienceMs: number): Promise<Result>;
  /** A better reading of what a try failed with, where there is one. */
  explain?(
    error: unknown,
    candidate: Candidate<Adapter>,
    progress: AttemptProgress,
  ): GatewayError | undefined;
  /** Told the place in the queue (1 is next) whenever it changes. */
  readonly onPosition?: ((position: number) => void) | undefined;
  /** Told whenever a model that is being loaded is waited for. */
  readonly onLoading?: (() => void) | undefined;
  /** Told which route answered, once it did. */
  readonly onAnswer?: (candidate: Candidate<Adapter>) => void;
}

/** What may be there already; then it is not awaited, since each promise takes half a microsecond. */
type Soon<T> = T | Promise<T>;

/** A value that can be let go while the functions that use it live on. */
class Kept<T> {
  #value: T | undefined;

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    if (this.#value === undefined) throw new Error('used after it was given up');
    return this.#value;
  }

  giveUp(): void {
    this.#value = undefined;
  }
}

export class Engine {
  readonly #deps: EngineDependencies;
  /** How upstream models must be asked, by what their refusals taught. Bounded by the routes that ever were. */
  readonly #learnt = new Map<string, ReadonlySet<Lesson>>();
  /**
   * Models that answered for another, by route. Some servers answer under other names for ever (an alias, whatever a router chose): a
   * line for each of their calls would drown the log.
   */
  readonly #strangers = new ToldOnce();
  /** Words for the end of an answer that nobody knows, by provider. */
  readonly #unknownEnds = new ToldOnce();

  constructor(deps: EngineDependencies) {
    this.#deps = deps;
  }

  /**
   * The entry of a title that the catalog lacked, after one more discovery: the model may have been downloaded a moment ago.
   * @throws GatewayError INVALID_MODEL
   */
  async #findModel(title: string, type: number): Promise<CatalogModel> {
    await this.#deps.discovery.discoverUnknown();
    const model = this.#knownModel(title, type);
    if (model === undefined) throw new GatewayError('INVALID_MODEL', { param: 'model' });
    return model;
  }

  /** Undefined where the catalog has no such title. @throws GatewayError INVALID_MODEL for a model of another type */
  #knownModel(title: string, type: number): CatalogModel | undefined {
    const model = this.#deps.catalog.find(title);
    if (model !== undefined && model.card.type !== type) {
      throw new GatewayError('INVALID_MODEL', { param: 'model' });
    }
    return model;
  }

  /** A whole answer. @throws GatewayError */
  complete(request: GenerationRequest, call: Call): Promise<ChatResult> {
    return this.#generate(request, call, undefined);
  }

  /** An answer as it comes. Resolves when the sink got the terminal batch. @throws GatewayError, also after the first text */
  stream(request: GenerationRequest, call: Call, sink: EventSink): Promise<void> {
    return this.#generate(request, call, sink);
  }

  /** The vectors of all inputs, all made by the same upstream model. @throws GatewayError */
  embed(request: EmbeddingRequest, call: Call): Promise<EmbeddingResult> {
    const { admission, client, config, discovery } = this.#deps;
    const batches = new EmbeddingBatches(request.input);
    const routed = (model: CatalogModel) =>
      embeddingCandidatesFor(model, request, discovery, config.timeouts);
    return this.#tryRoutes<EmbeddingAdapter, EmbeddingResult>(
      {
        candidates: () => this.#admit(request, call, 1, routed),
        repeatable: true,
        live: false,
        run: (candidate, progress, patienceMs) =>
          runEmbedding({
            client,
            call,
            request,
            candidate,
            progress,
            batches,
            patienceMs,
            moreSlots: () => admission.tryAcquire(candidate),
          }),
      },
      call,
    );
  }

  #generate(request: GenerationRequest, call: Call, sink: undefined): Promise<ChatResult>;
  #generate(request: GenerationRequest, call: Call, sink: EventSink): Promise<undefined>;
  #generate(
    request: GenerationRequest,
    call: Call,
    sink: EventSink | undefined,
  ): Promise<ChatResult | undefined> {
    const { discovery, config, storedChats } = this.#deps;
    const { integrations, previous_response_id } = request.parameters;
    // A prompt may be long, and its answer may stream for an hour: the request is kept only as long as a try may follow.
    const kept = new Kept(request);
    const routed = (model: CatalogModel) => candidatesFor(model, kept.value, discovery, config.timeouts);
    return this.#tryRoutes<ProviderAdapter, ChatResult | undefined>(
      {
        candidates: () => {
          if (integrations !== undefined) checkIntegrations(integrations, config);
          return this.#admit(kept.value, call, 0, (model) => {
            const candidates = routed(model);
            return previous_response_id === undefined
              ? candidates
              : this.#whereStored(model, previous_response_id, call).then(routed);
          });
        },
        repeatable: !hasSideEffects(request),
        live: sink !== undefined,
        run: (candidate, progress, patienceMs) =>
          this.#attempt(candidate, kept, call, sink, progress, patienceMs),
        explain: (error, candidate, progress) =>
          saidNothing(error, progress) ? overflowOf(kept.value, candidate) : undefined,
        onPosition:
          sink !== undefined && request.includeProgress
            ? (position) => void sink([queuedEvent(position)])
            : undefined,
        onLoading:
          sink !== undefined && request.includeProgress ? () => void sink([loadingEvent]) : undefined,
        onAnswer: (candidate) => {
          if (call.responseId === undefined) return;
          const at = { provider: candidate.provider, upstreamModel: candidate.target.model };
          void storedChats.remember(call.responseId, at, call.caller);
        },
      },
      call,
    );
  }

  /** The routes of the model that was asked for, once it is known and the call is admitted. @throws GatewayError */
  #admit<C>(
    request: GenerationRequest | EmbeddingRequest,
    call: Call,
    type: number,
    routed: (model: CatalogModel) => Soon<C>,
  ): Soon<C> {
    refuseUnknown(request, this.#deps.catalog.providers());
    const admitted = (model: CatalogModel): Soon<C> => {
      // Known now, and wanted where the upstream does not count: by then the request is let go.
      notePrompt(request, call);
      call.admitOnce(request);
      return routed(model);
    };
    const known = this.#knownModel(request.model, type);
    return known === undefined ? this.#findModel(request.model, type).then(admitted) : admitted(known);
  }

  /** The model with the one route that stores the chat: a follow-up goes only there. @throws GatewayError INVALID_PARAMS */
  async #whereStored(model: CatalogModel, responseId: string, { caller }: Call): Promise<CatalogModel> {
    const at = await this.#deps.storedChats.find(responseId, caller);
    const routes = model.routes.filter(
      ({ provider, upstreamModel }) => provider.key === at.provider && upstreamModel === at.upstreamModel,
    );
    if (routes.length === 0) {
      throw invalidParameter('previous_response_id', `${responseId} 属于另一个模型或已停用的路由`);
    }
    return { ...model, routes };
  }

  async #tryRoutes<Adapter, Result>(work: Work<Adapter, Result>, call: Call): Promise<Result> {
    const { breakers, config, log } = this.#deps;
    try {
      const candidates = work.candidates();
      const tries = new Tries(
        candidates instanceof Promise ? await candidates : candidates,
        call,
        config.maxRetries,
      );
      for (;;) {
        // The client may have left while the model or its stored chat was looked for.
        if (call.stopped) call.signal.throwIfAborted();
        const places = this.#inOrder(tries.places);
        const admitted = this.#takePlace(places) ?? (await this.#waitForPlace(places, call, work.onPosition));
        const candidate = admitted.place;
        const progress: AttemptProgress = {
          sent: false,
          heard: false,
          committed: false,
          ended: false,
          status: undefined,
          final: false,
        };
        const tried = this.#startTry(candidate, call);
        const patienceMs = work.repeatable && tries.othersFollow ? candidate.timeouts.firstEventMs : 0;
        let outcome: Outcome<Result>;
        try {
          outcome = { value: await work.run(candidate, progress, patienceMs) };
        } catch (error) {
          outcome = { error: work.explain?.(error, candidate, progress) ?? error };
        }
        this.#endTry(tried, admitted, progress, outcome, call);
        if ('value' in outcome) {
          work.onAnswer?.(candidate);
          return outcome.value;
        }
        const { error } = outcome;
        if (call.stopped) throw error;
        breakers.report(candidate.provider, error);
        const over =
          (work.live && progress.committed) || (progress.sent && !work.repeatable && mayHaveActed(error));
        const taught = !over && this.#learn(error, candidate);
        const next = tries.next({
          candidate,
          error,
          startedMs: tried.startedMs,
          over,
          taught,
          final: progress.final,
        });
        log.warn(
          { requestId: call.requestId, provider: candidate.provider, verdict: next.verdict, err: error },
          'a try failed, another follows',
        );
        if (next.loading) work.onLoading?.();
        if (next.waitMs > 0) await sleep(next.waitMs, undefined, { signal: call.signal });
      }
    } catch (error) {
      throw noteFailure(call, error);
    }
  }

  #startTry(candidate: Candidate, call: Call): Try {
    const tried = call.startTry(candidate.provider, candidate.target.model, candidate.adjustment?.ignored);
    this.#deps.breakers.begin(candidate.provider);
    this.#deps.observer.tryStarted(call, tried);
    return tried;
  }

  #endTry(
    tried: Try,
    { place: candidate, slot }: Admitted<Candidate>,
    progress: AttemptProgress,
    outcome: Outcome<unknown>,
    call: Call,
  ): void {
    tried.endedMs = call.elapsedMs;
    tried.upstreamStatus = progress.status;
    if ('error' in outcome && outcome.error instanceof GatewayError) tried.error = outcome.error;
    this.#deps.observer.tryEnded(call, tried);
    // LM Studio reads a prompt to its end before it notices that it was left.
    const unnoticed = progress.sent && !progress.heard && wasLeft(outcome, call);
    slot.release(unnoticed ? candidate.route.provider.abortGraceMs : 0);
    if ('error' in outcome) return;
    this.#deps.breakers.report(candidate.provider, undefined);
    this.#compareModels(candidate, call);
    this.#lookAtEnd(candidate, call);
  }

  /** The candidates in the order in which they are to be tried. Behind an open breaker nothing is, unless there is nothing else. */
  #inOrder<C extends Candidate>(candidates: readonly C[]): readonly C[] {
    const { admission, breakers, discovery } = this.#deps;
    if (candidates.length < 2) return candidates;
    const closed = candidates.filter((candidate) => breakers.admits(candidate.provider));
    return orderCandidates(
      closed.length > 0 ? closed : candidates,
      admission,
      (provider) => discovery.state(provider).reachability !== 'down',
    );
  }

  /** A place at the first of these routes that has one now. */
  #takePlace<C extends Candidate>(candidates: readonly C[]): Admitted<C> | undefined {
    for (const place of candidates) {
      const slot = this.#deps.admission.tryAcquire(place);
      if (slot !== undefined) return { place, slot };
    }
    return undefined;
  }

  /** A place at whichever of these routes gets one first. */
  async #waitForPlace<C extends Candidate>(
    candidates: readonly C[],
    call: Call,
    onPosition: ((position: number) => void) | undefined,
  ): Promise<Admitted<C>> {
    const { admission, config } = this.#deps;
    const before = call.elapsedMs;
    try {
      return await admission.wait(candidates, {
        callerId: call.caller.id,
        signal: call.signal,
        timeoutMs: config.queueTimeoutMs,
        ...(onPosition === undefined ? {} : { onPosition }),
      });
    } finally {
      call.queuedMs += call.elapsedMs - before;
    }
  }

  #attempt(
    candidate: Candidate<ProviderAdapter>,
    kept: Kept<GenerationRequest>,
    call: Call,
    sink: EventSink | undefined,
    progress: AttemptProgress,
    patienceMs: number,
  ): Promise<ChatResult | undefined> {
    const learnt = this.#learnt.get(routeKey(candidate));
    return runAttempt(
      {
        client: this.#deps.client,
        call,
        baseUrl: candidate.route.provider.baseUrl,
        target: learnt === undefined ? candidate.target : { ...candidate.target, learnt },
        adapter: candidate.adapter,
        timeouts: candidate.timeouts,
        progress,
        patienceMs,
        onCommit: sink === undefined ? undefined : () => letGo(kept, call),
      },
      adjusted(kept.value, candidate.adjustment),
      sink,
    );
  }

  /** Whether the upstream just told how this model must be asked; from now on it is asked that way. */
  #learn(error: unknown, candidate: Candidate): boolean {
    const reason = error instanceof GatewayError ? error.reason : undefined;
    const lesson = lessons.find((one) => one === reason);
    if (lesson === undefined) return false;
    const key = routeKey(candidate);
    const known = this.#learnt.get(key);
    if (known?.has(lesson) === true) return false;
    this.#learnt.set(key, new Set(known).add(lesson));
    return true;
  }

  #compareModels(candidate: Candidate, call: Call): void {
    const asked = candidate.target.model;
    const answered = call.upstreamModel ?? asked;
    if (answered === asked) return;
    if (baseModelName(answered) === baseModelName(asked)) return;
    if (candidate.target.info?.instances?.some((instance) => instance.id === answered)) return;
    const stranger = this.#strangers.tell(routeKey(candidate), answered);
    if (stranger === undefined) return;
    this.#deps.log.warn(
      { requestId: call.requestId, provider: candidate.provider, asked, answered: stranger },
      'another model answered than was asked; it is told once for each name',
    );
  }

  #lookAtEnd({ provider }: Candidate, { requestId, finishWord, ending }: Call): void {
    if (ending !== 'stop' || finishWord === null || finishMeaning(finishWord) !== undefined) return;
    const word = this.#unknownEnds.tell(provider, finishWord);
    if (word === undefined) return;
    this.#deps.log.warn(
      { requestId, provider, word },
      'an answer ended for a reason that is not known, and counts as stopped; it is told once for each word',
    );
  }
}

/** A part of the answer was shown: no try follows, and neither the request nor its body is needed any more. */
function letGo(kept: Kept<GenerationRequest>, call: Call): void {
  kept.giveUp();
  call.body?.release();
  call.body = undefined;
}

interface Admitted<C> {
  readonly place: C;
  readonly slot: Slot;
}

type Outcome<T> = { readonly value: T } | { readonly error: unknown };

/** Notes on the call how it failed. Returns what to tell its client. */
function noteFailure(call: Call, error: unknown): unknown {
  if (call.ending === 'shutdown') {
    return new GatewayError('SHUTTING_DOWN', { retryAfterSeconds: 1, cause: error });
  }
  if (call.ending === 'revoked') {
    return new GatewayError('FORBIDDEN', { detail: 'API Key 已撤销或过期', cause: error });
  }
  const known = error instanceof GatewayError ? error : undefined;
  if (known?.code === 'TIMEOUT') call.end('timeout', known);
  else call.end(call.attempts === 0 ? 'rejected' : 'error', known);
  return error;
}

/** Whether we closed the connection of a try, and not the upstream: the client left, or a limit of ours ran out. */
const wasLeft = (outcome: Outcome<unknown>, call: Call): boolean =>
  call.stopped ||
  ('error' in outcome &&
    outcome.error instanceof GatewayError &&
    outcome.error.code === 'TIMEOUT' &&
    outcome.error.upstreamStatus === undefined);

const routeKey = (candidate: Candidate): string => `${candidate.provider} ${candidate.target.model}`;

const queuedEvent = (position: number): ChatEvent => ({
  type: 'progress',
  progress: { stage: 'queued', position },
});

const loadingEvent: ChatEvent = { type: 'progress', progress: { stage: 'model_load' } };

/** An answer that came to its end without a word. */
const saidNothing = (error: unknown, { ended, committed }: AttemptProgress): boolean =>
  ended &&
  !committed &&
  error instanceof GatewayError &&
  (error.reason === 'empty' || error.reason === 'cut');
