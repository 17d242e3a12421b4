/** Brings what a provider lists into the catalog's tables. Knows rows and model lists, no network and no live state. */
import type { ModelInfo } from '../chat/adapter.ts';
import { insertModel, listModels } from '../store/models.ts';
import { listProviders } from '../store/providers.ts';
import { insertRoute, listRoutes, updateRoute } from '../store/routes.ts';
import type { Database, ModelRow, NewModelRow, RouteRow } from '../store/schema.ts';

/** What one model list changed; model names as the provider calls them. */
export interface Enrolment {
  /** Models that were new to the catalog. */
  readonly added: readonly string[];
  /** Models that were known and now have a route to this provider too. */
  readonly joined: readonly string[];
  readonly vanished: readonly string[];
  readonly returned: readonly string[];
}

export const noEnrolment: Enrolment = { added: [], joined: [], vanished: [], returned: [] };

interface Plan {
  readonly add: readonly ModelInfo[];
  readonly join: readonly { readonly model: ModelRow; readonly id: string }[];
  readonly vanish: readonly RouteRow[];
  readonly restore: readonly RouteRow[];
}

/**
 * Writes what a successful discovery found: new models with their routes, missing routes, and which routes vanished or came
 * back. Never touches a row of `models`, so a person's edits stay. Writes nothing where nothing changed.
 */
export async function enrolModels(
  db: Database,
  provider: { readonly id: number; readonly displayName: string },
  listed: readonly ModelInfo[],
): Promise<Enrolment> {
  const foreseen = await db
    .transaction()
    .setAccessMode('read only')
    .execute((transaction) => planEnrolment(transaction, provider.id, listed));
  if (isEmpty(foreseen)) return noEnrolment;
  return db.transaction().execute(async (transaction) => {
    // Planned again under the write lock: another process may have enrolled the same list in between.
    const plan = await planEnrolment(transaction, provider.id, listed);
    for (const info of plan.add) {
      const model = await insertModel(transaction, describeModel(info, provider.displayName));
      await addRoute(transaction, model.id, provider.id, info.id);
    }
    for (const { model, id } of plan.join) await addRoute(transaction, model.id, provider.id, id);
    for (const route of plan.vanish) await updateRoute(transaction, route.id, { vanished: 1 });
    for (const route of plan.restore) await updateRoute(transaction, route.id, { vanished: 0 });
    return {
      added: plan.add.map((info) => info.id),
      joined: plan.join.map(({ id }) => id),
      vanished: plan.vanish.map((route) => route.upstream_model),
      returned: plan.restore.map((route) => route.upstream_model),
    };
  });
}

const isEmpty = (plan: Plan): boolean =>
  plan.add.length + plan.join.length + plan.vanish.length + plan.restore.length === 0;

async function addRoute(db: Database, modelId: number, providerId: number, upstream: string): Promise<void> {
  await insertRoute(db, {
    model_id: modelId,
    provider_id: providerId,
    upstream_model: upstream,
    origin: 'discovery',
  });
}

async function planEnrolment(db: Database, providerId: number, listed: readonly ModelInfo[]): Promise<Plan> {
  const providers = await listProviders(db);
  if (!providers.some((row) => row.id === providerId)) return { add: [], join: [], vanish: [], restore: [] };
  const models = await listModels(db);
  const routes = await listRoutes(db);
  const byId = new Map(listed.map((info) => [info.id, info]));
  const discovered = routes.filter((route) => route.origin === 'discovery');
  const own = discovered.filter((route) => route.provider_id === providerId);
  const known = new Set(own.map((route) => route.upstream_model));
  const homes = homesOf(models, discovered);
  const add: ModelInfo[] = [];
  const join: { model: ModelRow; id: string }[] = [];
  for (const info of byId.values()) {
    if (known.has(info.id)) continue;
    const model = homes.get(info.id);
    if (model === undefined) add.push(info);
    else if (mayJoin(model, providerId, info.id, routes)) join.push({ model, id: info.id });
  }
  return {
    add,
    join,
    vanish: own.filter((route) => route.vanished === 0 && !byId.has(route.upstream_model)),
    restore: own.filter((route) => route.vanished === 1 && byId.has(route.upstream_model)),
  };
}

/** Where a listed name belongs: the model of that title, else the one that a person renamed. */
function homesOf(models: readonly ModelRow[], discovered: readonly RouteRow[]): Map<string, ModelRow> {
  const modelById = new Map(models.map((model) => [model.id, model]));
  const homes = new Map<string, ModelRow>();
  for (const route of discovered) {
    const model = modelById.get(route.model_id);
    if (model !== undefined) homes.set(route.upstream_model, model);
  }
  for (const model of models) homes.set(model.title, model);
  return homes;
}

/** A model that a person or the seed made has the routes that they chose; discovery only helps where there is none. */
function mayJoin(model: ModelRow, providerId: number, id: string, routes: readonly RouteRow[]): boolean {
  const siblings = routes.filter((route) => route.model_id === model.id);
  if (siblings.some((route) => route.provider_id === providerId && route.upstream_model === id)) return false;
  return model.origin === 'discovery' || siblings.every((route) => route.origin === 'discovery');
}

/** The card of a model that nobody has described yet, in the language of the API's readers. */
function describeModel(info: ModelInfo, providerName: string): NewModelRow {
  const embedding = info.type === 'embedding';
  const purposes = embedding ? ['文本向量'] : ['文本生成'];
  if (info.vision === true) purposes.push('图像理解');
  if (info.toolUse === true) purposes.push('工具调用');
  const facts = [
    info.publisher === undefined ? undefined : `发布者 ${info.publisher}`,
    info.architecture === undefined ? undefined : `架构 ${info.architecture}`,
    info.parameterCount === undefined ? undefined : `参数量 ${info.parameterCount}`,
    info.quantization === undefined ? undefined : `量化 ${info.quantization}`,
    info.format === undefined ? undefined : `格式 ${info.format.toUpperCase()}`,
    info.maxContextLength === undefined ? undefined : `最大上下文 ${info.maxContextLength}`,
  ].filter((fact) => fact !== undefined);
  const summary = [`${providerName} 上的${embedding ? '向量' : '语言'}模型`, ...facts].join(',');
  return {
    title: info.id,
    name: info.displayName ?? readableName(info.id),
    description: info.description === undefined ? summary : `${info.description} (${summary})`,
    keyword: purposes.join(','),
    time: new Date().toISOString().slice(0, 10),
    tag1: info.quantization ?? info.parameterCount ?? '',
    tag2: info.publisher ?? info.architecture ?? '',
    type: embedding ? 1 : 0,
    origin: 'discovery',
  };
}

/** `qwen/qwen3-4b-2507@q4_k_m` reads as `Qwen3 4b 2507`. */
function readableName(id: string): string {
  const withoutVariant = id.replace(/@[^/]*$/, '');
  const words = withoutVariant
    .slice(withoutVariant.lastIndexOf('/') + 1)
    .replaceAll(/[-_\s]+/g, ' ')
    .trim();
  return words === '' ? id : words.charAt(0).toUpperCase() + words.slice(1);
}
