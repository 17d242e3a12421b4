/** GET /api/llm/models and one model of it: the catalog as the unified API shows it. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { GatewayError } from '../../chat/errors.ts';
import { envelope } from '../../facades/unified.ts';
import type { Catalog, CatalogModel, CatalogRoute, ModelCard } from '../../gateway/catalog.ts';
import type { Discovery } from '../../gateway/discovery.ts';
import { mayUse } from '../../gateway/keys.ts';
import { modelDescription, modelsDescription } from './descriptions.ts';

export interface ModelDependencies {
  readonly catalog: Catalog;
  readonly discovery: Discovery;
}

/** What a route's provider says of the model now. */
interface LiveRoute {
  readonly provider: string;
  readonly state: 'loaded' | 'not-loaded' | 'unknown';
  readonly context_length: number | null;
  readonly max_context_length: number | null;
  readonly capabilities: readonly string[];
  readonly healthy: boolean;
}

function liveRoute(route: CatalogRoute, model: CatalogModel, discovery: Discovery): LiveRoute {
  const info = discovery.info(route.provider.key, route.upstreamModel);
  const { reachability } = discovery.state(route.provider.key);
  const lengths = (info?.instances ?? []).flatMap((instance) => instance.contextLength ?? []);
  return {
    provider: route.provider.key,
    state: reachability === 'down' ? 'unknown' : (info?.state ?? 'unknown'),
    context_length: lengths.length === 0 ? null : Math.max(...lengths),
    max_context_length: info?.maxContextLength ?? model.contextLength ?? null,
    capabilities: [
      ...(info?.vision === true ? ['vision'] : []),
      ...(info?.toolUse === true ? ['tool_use'] : []),
      ...((info?.reasoningOptions ?? []).length > 0 ? ['reasoning'] : []),
    ],
    healthy: reachability !== 'down' && !route.provider.missingCredential,
  };
}

export interface ModelDetails extends ModelCard {
  readonly routes: readonly LiveRoute[];
}

export function describeModel(model: CatalogModel, discovery: Discovery): ModelDetails {
  return { ...model.card, routes: model.routes.map((route) => liveRoute(route, model, discovery)) };
}

export function registerModels(app: FastifyInstance, { catalog, discovery }: ModelDependencies): void {
  app.get('/api/llm/models', { schema: modelsDescription }, async ({ caller }) =>
    envelope(
      catalog
        .list(0)
        .map((model) => model.card)
        .filter((card) => mayUse(caller, card.title)),
    ),
  );
  app
    .withTypeProvider<ZodTypeProvider>()
    .get(
      '/api/llm/models/*',
      { schema: { ...modelDescription, params: z.object({ '*': z.string() }) } },
      async (request) => {
        const model = catalog.find(request.params['*']);
        if (model === undefined || !model.available || !mayUse(request.caller, model.card.title))
          throw new GatewayError('NOT_FOUND');
        return envelope(describeModel(model, discovery));
      },
    );
}
