/** The order in which a model's routes are tried. Knows what a route can carry only through its adapter. */
import type { EmbeddingAdapter, ProviderAdapter, ProviderKind, Target } from '../chat/adapter.ts';
import { errorTable, GatewayError, silentFailures, upstreamError } from '../chat/errors.ts';
import type { EmbeddingRequest, GenerationRequest } from '../chat/request.ts';
import type { Timeouts } from '../config.ts';
import type { Admission, Place } from './admission.ts';
import type { CatalogModel, CatalogRoute } from './catalog.ts';
import type { Discovery } from './discovery.ts';
import { estimatePrompt } from './estimate.ts';
import { type Adjustment, type Fit, fitEmbedding, fitRequest } from './fit.ts';
import type { RouteTimeouts } from './limits.ts';

/** A route that can carry the request, with all that a try needs. */
export interface Candidate<Adapter = unknown> extends Place {
  readonly route: CatalogRoute;
  readonly target: Target;
  readonly adapter: Adapter;
  /** What of the request does not go there as it was asked. */
  readonly adjustment: Adjustment | undefined;
  readonly timeouts: RouteTimeouts;
}

/** What a route's adapter may know, as things stand now. */
function targetOf(route: CatalogRoute, discovery: Discovery): Target {
  const { provider } = route;
  return {
    provider: provider.key,
    displayName: provider.displayName,
    model: route.upstreamModel,
    apiKey: provider.apiKey,
    api: route.api,
    apis: discovery.state(provider.key).apis,
    info: discovery.info(provider.key, route.upstreamModel),
    passthrough: provider.passthrough,
  };
}

/** Tokens that surely fit into what the provider has loaded, or would load, of this model; undefined where that is not known. */
function knownContext({ target: { info } }: Pick<Candidate, 'target'>): number | undefined {
  const loaded = info?.instances?.flatMap(({ contextLength }) => contextLength ?? []) ?? [];
  if (loaded.length > 0) return Math.min(...loaded);
  // With how much it would be loaded is the server's to choose.
  return info?.state === 'not-loaded' ? undefined : info?.maxContextLength;
}

/**
 * Why a route had nothing to say to this request: LM Studio answers a prompt that does not fit with nothing at all. Undefined where
 * the prompt, by estimate, fits.
 */
export function overflowOf(request: GenerationRequest, candidate: Candidate): GatewayError | undefined {
  const context = knownContext(candidate);
  const tokens = context === undefined ? 0 : estimatePrompt(request);
  if (context === undefined || tokens <= context) return undefined;
  const { displayName, provider } = candidate.target;
  return upstreamError({
    displayName,
    provider,
    status: undefined,
    words: `${silentFailures.empty}, 提示词约 ${tokens} tokens, 超过上下文长度 ${context}`,
    reason: 'context_length',
  });
}

/** Whether a prompt that did not fit on one route may fit on another. */
export function mayFit(other: Candidate, failed: Candidate): boolean {
  if (other.target.model !== failed.target.model) return true;
  const [there, here] = [knownContext(other), knownContext(failed)];
  return there !== undefined && here !== undefined && there > here;
}

/** What calls of this route share: all of the provider where it has a limit of its own, else one model of it. */
const poolOf = ({ provider, upstreamModel }: CatalogRoute): string =>
  provider.maxConcurrency === undefined ? `${provider.key} ${upstreamModel}` : provider.key;

class RouteCandidate<Adapter> implements Candidate<Adapter> {
  readonly route: CatalogRoute;
  readonly target: Target;
  readonly adapter: Adapter;
  readonly adjustment: Adjustment | undefined;
  readonly timeouts: RouteTimeouts;
  readonly pool: string;
  readonly #discovery: Discovery;

  constructor(
    route: CatalogRoute,
    target: Target,
    { adapter, adjustment }: Fit<Adapter>,
    timeouts: RouteTimeouts,
    discovery: Discovery,
  ) {
    this.route = route;
    this.target = target;
    this.adapter = adapter;
    this.adjustment = adjustment;
    this.timeouts = timeouts;
    this.pool = poolOf(route);
    this.#discovery = discovery;
  }

  get provider(): string {
    return this.route.provider.key;
  }

  get maxQueue(): number {
    return this.route.provider.maxQueue;
  }

  get limit(): number | undefined {
    const { provider, upstreamModel } = this.route;
    const now = (this.#discovery.provider(provider.key) ?? provider).maxConcurrency;
    if (now !== undefined) return now === 0 ? undefined : now;
    return provider.kind.slots(this.#discovery.info(provider.key, upstreamModel));
  }
}

/**
 * The routes that can carry this request.
 * @throws GatewayError UNAUTHORIZED that names the provider where every route lacks its key; else the first route's refusal
 */
export function candidatesFor(
  model: CatalogModel,
  request: GenerationRequest,
  discovery: Discovery,
  configured: Timeouts,
): Candidate<ProviderAdapter>[] {
  return usableRoutes(model, discovery, configured, (kind, target) => fitRequest(request, kind, target));
}

/** The same for embeddings. @throws GatewayError, also INVALID_MODEL where no route's provider makes any */
export function embeddingCandidatesFor(
  model: CatalogModel,
  request: EmbeddingRequest,
  discovery: Discovery,
  configured: Timeouts,
): Candidate<EmbeddingAdapter>[] {
  return usableRoutes(model, discovery, configured, ({ embeddings }, target) => {
    const refused =
      embeddings === undefined
        ? new GatewayError('INVALID_MODEL', { param: 'model' })
        : embeddings.refuse(request, target);
    if (embeddings === undefined || refused !== undefined) throw refused;
    return { adapter: embeddings, adjustment: fitEmbedding(request, target) };
  });
}

/** @param choose the wire for a route, and what goes there. It throws the GatewayError that stands in the way, if any does */
function usableRoutes<Adapter>(
  model: CatalogModel,
  discovery: Discovery,
  configured: Timeouts,
  choose: (kind: ProviderKind, target: Target) => Fit<Adapter>,
): Candidate<Adapter>[] {
  const keyed = model.routes.filter((route) => !route.provider.missingCredential);
  const first = model.routes[0];
  if (first === undefined) throw new GatewayError('INVALID_MODEL', { param: 'model' });
  if (keyed.length === 0) {
    throw new GatewayError('UNAUTHORIZED', {
      message: `${errorTable.UNAUTHORIZED.message}(${first.provider.key})`,
    });
  }
  let refusal: GatewayError | undefined;
  const candidates: Candidate<Adapter>[] = [];
  for (const route of keyed) {
    const target = targetOf(route, discovery);
    try {
      const fitting = choose(route.provider.kind, target);
      const own = { ...route.provider.timeouts, ...route.timeouts };
      const timeouts = { ...configured, ...own, totalIsOwn: own.totalMs !== undefined };
      candidates.push(new RouteCandidate(route, target, fitting, timeouts, discovery));
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
      refusal ??= error;
    }
  }
  if (candidates.length === 0 && refusal !== undefined) throw refusal;
  return candidates;
}

/** Priority first, then healthy before unhealthy, then the most free slots times weight; ties by chance. */
export function orderCandidates<C extends Candidate>(
  candidates: readonly C[],
  admission: Admission<Candidate>,
  isHealthy: (provider: string) => boolean,
): C[] {
  const rated = candidates.map((candidate) => {
    const free = admission.free(candidate);
    // Unlimited places differ only in how much they run already.
    const room = Number.isFinite(free) ? Math.max(0, free) : 1_000_000 - admission.running(candidate.pool);
    return {
      candidate,
      unhealthy: isHealthy(candidate.provider) ? 0 : 1,
      room: room * candidate.route.weight,
      tie: Math.random(),
    };
  });
  rated.sort(
    (one, other) =>
      one.candidate.route.priority - other.candidate.route.priority ||
      one.unhealthy - other.unhealthy ||
      other.room - one.room ||
      one.tie - other.tie,
  );
  return rated.map(({ candidate }) => candidate);
}
