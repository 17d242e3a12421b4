/** The doctor: looks at the database and asks every provider, changing nothing. What it means is in diagnosis. */
import type { Config } from '../config.ts';
import type { CatalogProvider } from '../gateway/catalog.ts';
import { fetchListing } from '../gateway/listing.ts';
import type { DatabaseFacts } from '../store/health.ts';
import { listModels } from '../store/models.ts';
import { listProviders } from '../store/providers.ts';
import { listRoutes } from '../store/routes.ts';
import type { Database, ProviderRow } from '../store/schema.ts';
import type { UpstreamClient } from '../upstream/client.ts';
import type { Administration } from './administration.ts';
import {
  type Finding,
  judgeDatabase,
  judgeEnvironment,
  judgeProvider,
  judgeWhole,
  type ProviderFacts,
  type RouteFacts,
} from './diagnosis.ts';
import { baseUrlVariableOf } from './environment.ts';

export interface Practice extends Administration {
  readonly client: UpstreamClient;
  readonly config: Pick<Config, 'timeouts' | 'proxyVariables' | 'providerKeyEnv'>;
}

/** Loads no model and spends no token. The catalog stays as it is. */
export async function examine(practice: Practice, database: DatabaseFacts): Promise<Finding[]> {
  const { db, catalog, config } = practice;
  await catalog.load();
  const known = new Map(catalog.providers().map((provider) => [provider.id, provider]));
  const routes = await routesByProvider(db);
  const rows = await listProviders(db);
  const facts: ProviderFacts[] = [];
  const strangers: Finding[] = [];
  await Promise.all(
    rows.map(async (row) => {
      const provider = known.get(row.id);
      if (provider === undefined) strangers.push(stranger(row));
      else facts.push(await ask(practice, provider, row, routes.get(row.id) ?? []));
    }),
  );
  facts.sort((one, other) => one.provider.id - other.provider.id);
  return [
    ...judgeDatabase(database),
    ...judgeEnvironment(config.proxyVariables),
    ...judgeWhole(facts),
    ...facts.flatMap(judgeProvider),
    ...strangers,
  ];
}

async function ask(
  { client, config }: Practice,
  provider: CatalogProvider,
  { key, origin }: ProviderRow,
  routes: readonly RouteFacts[],
): Promise<ProviderFacts> {
  const asked = provider.enabled && !provider.missingCredential;
  const connectMs = provider.timeouts.connectMs ?? config.timeouts.connectMs;
  const listed = asked
    ? await fetchListing(client, provider, connectMs, new AbortController().signal)
    : undefined;
  return {
    provider,
    origin,
    baseUrlVariable: origin === 'environment' ? baseUrlVariableOf(key) : undefined,
    listed,
    answeredAt: Date.now(),
    routes,
  };
}

async function routesByProvider(db: Database): Promise<Map<number, RouteFacts[]>> {
  const models = new Map((await listModels(db)).map((model) => [model.id, model]));
  const byProvider = new Map<number, RouteFacts[]>();
  for (const route of await listRoutes(db)) {
    const model = models.get(route.model_id);
    const facts: RouteFacts = {
      id: route.id,
      title: model?.title ?? '',
      upstreamModel: route.upstream_model,
      active: route.enabled === 1 && route.vanished === 0 && model?.enabled === 1,
    };
    byProvider.set(route.provider_id, [...(byProvider.get(route.provider_id) ?? []), facts]);
  }
  return byProvider;
}

const stranger = ({ key, kind }: ProviderRow): Finding => ({
  id: `${key}.kind`,
  subject: key,
  severity: 'problem',
  message: `is of the kind ${kind}, which this version does not know`,
  action: `update the gateway, or remove it: llm-gateway providers remove ${key}`,
});
