/** What a route makes of a request: the wire, and what it leaves out. Knows what a route can carry only through its adapter. */
import type { ProviderAdapter, ProviderKind, Target } from '../chat/adapter.ts';
import { GatewayError, invalidParameter, unknownFields } from '../chat/errors.ts';
import { passes } from '../chat/passthrough.ts';
import {
  deepest,
  type EmbeddingRequest,
  type GenerationRequest,
  isShallow,
  type Reasoning,
} from '../chat/request.ts';

/** How a request differs on one route from what was asked. Holds names alone: it lives as long as the answer streams. */
export interface Adjustment {
  /** Parameters, and members of `extra`, that do not go to the route. */
  readonly without: readonly string[];
  /** The setting in the place of the one that was asked for. */
  readonly reasoning: Reasoning | undefined;
  /** What was left out though it was asked for, by the caller's names. */
  readonly ignored: readonly string[];
}

/** A route's wire for a request, and what of the request goes there; no adjustment where all of it does. */
export interface Fit<Adapter> {
  readonly adapter: Adapter;
  readonly adjustment: Adjustment | undefined;
}

type AnyRequest = GenerationRequest | EmbeddingRequest;

function omit<T extends object>(fields: T, names: readonly string[]): T {
  const kept = Object.entries(fields).filter(([name]) => !names.includes(name));
  return Object.fromEntries(kept) as T;
}

function withoutExtra<R extends AnyRequest>(request: R, names: readonly string[]): R {
  return request.extra === undefined ? request : { ...request, extra: omit(request.extra, names) };
}

/** The request as it goes to the route that this adjustment is for. */
export function adjusted(request: GenerationRequest, adjustment: Adjustment | undefined): GenerationRequest {
  if (adjustment === undefined) return request;
  const { without, reasoning } = adjustment;
  const parameters = omit(request.parameters, without);
  return {
    ...withoutExtra(request, without),
    parameters: reasoning === undefined ? parameters : { ...parameters, reasoning },
  };
}

/** The same for embeddings, which have no parameters. */
export const adjustedEmbedding = (
  request: EmbeddingRequest,
  adjustment: Adjustment | undefined,
): EmbeddingRequest => (adjustment === undefined ? request : withoutExtra(request, adjustment.without));

/**
 * The members of `extra` that do not go to a provider which lists these names.
 * @throws GatewayError for those that may not be left out, and for one that goes there but is nested beyond measure
 */
function withheld({ extra = {}, wishes }: AnyRequest, listed: readonly string[]): readonly string[] {
  const names = Object.keys(extra);
  const out = names.filter((name) => !passes(listed, name));
  const refused = out.filter((name) => wishes?.has(name) !== true);
  if (refused.length > 0) throw unknownFields(refused);
  const deep = names.find((name) => !out.includes(name) && !isShallow(extra[name]));
  if (deep !== undefined) throw invalidParameter(deep, `嵌套超过 ${deepest} 层`);
  return out;
}

/** From the setting that was asked for to ever less like it; `on` is for models that know no levels. */
const nearest: Readonly<Record<Reasoning, readonly Reasoning[]>> = {
  off: ['off'],
  low: ['low', 'medium', 'high', 'on'],
  medium: ['medium', 'low', 'high', 'on'],
  high: ['high', 'medium', 'low', 'on'],
  on: ['on', 'high', 'medium', 'low'],
};

/** Whether the model list says that the model has no thinking to switch off. */
const neverThinks = ({ info }: Target): boolean =>
  info?.reasoningOptions?.every((option) => option === 'off') === true;

/** @throws GatewayError that says what stands in the way */
function wireFor(request: GenerationRequest, kind: ProviderKind, target: Target): ProviderAdapter {
  const adapter = kind.adapterFor(request, target);
  const refused = adapter.refuse(request, target);
  if (refused !== undefined) throw refused;
  return adapter;
}

const withReasoning = (request: GenerationRequest, reasoning: Reasoning): GenerationRequest => ({
  ...request,
  parameters: { ...request.parameters, reasoning },
});

const withoutReasoning = (request: GenerationRequest): GenerationRequest => ({
  ...request,
  parameters: omit(request.parameters, ['reasoning']),
});

/** The wire for a setting that the route may go without, and the nearest one that it has; undefined for none. */
function wireNearest(
  request: GenerationRequest,
  wanted: Reasoning,
  kind: ProviderKind,
  target: Target,
): { readonly adapter: ProviderAdapter; readonly reasoning: Reasoning | undefined } {
  for (const reasoning of nearest[wanted]) {
    try {
      return { adapter: wireFor(withReasoning(request, reasoning), kind, target), reasoning };
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
    }
  }
  return { adapter: wireFor(withoutReasoning(request), kind, target), reasoning: undefined };
}

/** How the request goes to this route. @throws GatewayError that says what stands in the way */
export function fitRequest(
  request: GenerationRequest,
  kind: ProviderKind,
  target: Target,
): Fit<ProviderAdapter> {
  const { parameters, extra, wishes } = request;
  const wanted = parameters.reasoning;
  const free = wanted !== undefined && wishes?.has('reasoning') === true;
  const idle = wanted === 'off' && neverThinks(target);
  // Nearly all requests.
  if (extra === undefined && !free && !idle) {
    return { adapter: wireFor(request, kind, target), adjustment: undefined };
  }
  const without = withheld(request, target.passthrough ?? []);
  const ignored = without.map((name) => wishes?.get(name) ?? name);
  if (idle) {
    const adapter = wireFor(withoutReasoning(request), kind, target);
    return { adapter, adjustment: { without: [...without, 'reasoning'], reasoning: undefined, ignored } };
  }
  if (!free) {
    return {
      adapter: wireFor(request, kind, target),
      adjustment: { without, reasoning: undefined, ignored },
    };
  }
  const { adapter, reasoning } = wireNearest(request, wanted, kind, target);
  if (reasoning !== undefined) return { adapter, adjustment: { without, reasoning, ignored } };
  const asked = wishes.get('reasoning') ?? 'reasoning';
  return {
    adapter,
    adjustment: { without: [...without, 'reasoning'], reasoning, ignored: [...ignored, asked] },
  };
}

/** How a request for embeddings goes to this provider. @throws GatewayError */
export function fitEmbedding(request: EmbeddingRequest, target: Target): Adjustment | undefined {
  if (request.extra === undefined) return undefined;
  const without = withheld(request, target.passthrough ?? []);
  const ignored = without.map((name) => request.wishes?.get(name) ?? name);
  return { without, reasoning: undefined, ignored };
}

/** Refuses fields that nobody knows, whatever the model. @throws GatewayError */
export function refuseUnknown(
  { extra, wishes }: AnyRequest,
  providers: readonly { readonly passthrough: readonly string[] }[],
): void {
  if (extra === undefined) return;
  const unknown = Object.keys(extra).filter(
    (name) => wishes?.has(name) !== true && !providers.some(({ passthrough }) => passes(passthrough, name)),
  );
  if (unknown.length > 0) throw unknownFields(unknown);
}
