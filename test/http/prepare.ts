/** The database of a test's gateway, as it stands before the start: LM Studios and the routes to them. */
import { openStore } from '../../src/store/database.ts';
import { insertModel } from '../../src/store/models.ts';
import { insertProvider } from '../../src/store/providers.ts';
import { insertRoute } from '../../src/store/routes.ts';
import type { Database, ProviderChanges, RouteChanges } from '../../src/store/schema.ts';
import type { LmStudioSimulator } from '../simulators/lmstudio.ts';

/** One that is in memory and does not think. */
export const chatModel = 'qwen2.5-7b-instruct';

/** The body of a plain chat. */
export const chatBody = (
  rest: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> => ({
  model: chatModel,
  messages: [{ role: 'user', content: '你好' }],
  ...rest,
});

export interface PreparedRoute extends RouteChanges {
  /** The catalog's title; `chatModel` if unset. */
  readonly model?: string;
  /** Of the model, 0 if unset; 1 makes embeddings. */
  readonly type?: number;
  /** Position of its LM Studio. */
  readonly studio: number;
  /** `chatModel` if unset. */
  readonly upstream?: string;
}

export interface Preparation {
  /** What the providers' rows say, by position. */
  readonly providers?: readonly (ProviderChanges & { readonly base_url?: string })[];
  /** Routes made by a person; discovery then adds none to their models. */
  readonly routes?: readonly PreparedRoute[];
}

const keyOf = (position: number): string => (position === 0 ? 'lmstudio' : `lmstudio-${position + 1}`);

/** Writes what a gateway will find when it starts. The LM Studios' keys are `lmstudio`, `lmstudio-2`, … */
export async function prepareDatabase(
  file: string,
  studios: readonly LmStudioSimulator[],
  { providers = [], routes = [] }: Preparation,
): Promise<void> {
  const store = await openStore(file);
  try {
    const ids: number[] = [];
    for (const [position, studio] of studios.entries()) {
      const row = await insertProvider(store.db, {
        key: keyOf(position),
        kind: 'lmstudio',
        base_url: studio.url,
        origin: position === 0 ? 'environment' : 'admin',
        ...providers[position],
      });
      ids.push(row.id);
    }
    await insertRoutes(store.db, ids, routes);
  } finally {
    await store.close();
  }
}

async function insertRoutes(
  db: Database,
  providerIds: readonly number[],
  routes: readonly PreparedRoute[],
): Promise<void> {
  const modelIds = new Map<string, number>();
  for (const { model: title = chatModel, type = 0, studio, upstream = chatModel, ...rest } of routes) {
    const modelId = modelIds.get(title) ?? (await insertModel(db, { title, type, origin: 'admin' })).id;
    modelIds.set(title, modelId);
    const providerId = providerIds[studio];
    if (providerId === undefined) throw new Error(`no LM Studio ${studio}`);
    await insertRoute(db, {
      ...rest,
      model_id: modelId,
      provider_id: providerId,
      upstream_model: upstream,
      origin: 'admin',
    });
  }
}
