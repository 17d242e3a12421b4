/** Brings what a provider lists into the catalog's tables. Knows rows and model lists, no network and no live state. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ModelInfo } from '../chat/adapter.ts';
import { findModels, insertModel } from '../store/models.ts';
import { readByPages } from '../store/pages.ts';
import { findProviderById } from '../store/providers.ts';
import {
  insertRoute,
  listDiscoveredRoutes,
  listRoutesOfModels,
  listRoutesOfProvider,
  updateRoute,
} from '../store/routes.ts';
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

/** Names that are looked at, and written, in one step: some 20 ms in which nothing else runs. */
const namesAtOnce = 200;

/**
 * Writes what a successful discovery found: new models with their routes, missing routes, and which routes vanished or came
 * back. Never touches a row of `models`, so a person's edits stay. Writes nothing where nothing changed. A long list is
 * written part by part, so that traffic goes on between them.
 */
export async function enrolModels(
  db: Database,
  provider: { readonly id: number; readonly displayName: string },
  listed: readonly ModelInfo[],
): Promise<Enrolment> {
  const byId = new Map(listed.map((info) => [info.id, info]));
  const names = await changedNames(db, provider.id, byId);
  let enrolment = noEnrolment;
  for (let start = 0; start < names.length; start += namesAtOnce) {
    if (start > 0) await nextTurn();
    const part = await enrolPart(db, provider, byId, names.slice(start, start + namesAtOnce));
    if (part === noEnrolment) continue;
    enrolment = {
      added: [...enrolment.added, ...part.added],
      joined: [...enrolment.joined, ...part.joined],
      vanished: [...enrolment.vanished, ...part.vanished],
      returned: [...enrolment.returned, ...part.returned],
    };
  }
  return enrolment;
}

/** The names that the list and the provider's discovered routes do not agree on. */
async function changedNames(
  db: Database,
  providerId: number,
  listed: ReadonlyMap<string, ModelInfo>,
): Promise<string[]> {
  const routes = await readByPages((page) => listRoutesOfProvider(db, providerId, page));
  const own = routes.filter((route) => route.origin === 'discovery');
  const known = new Set(own.map((route) => route.upstream_model));
  return [
    ...[...listed.keys()].filter((name) => !known.has(name)),
    ...own
      .filter((route) => (route.vanished === 0) !== listed.has(route.upstream_model))
      .map((route) => route.upstream_model),
  ];
}

async function enrolPart(
  db: Database,
  provider: { readonly id: number; readonly displayName: string },
  listed: ReadonlyMap<string, ModelInfo>,
  names: readonly string[],
): Promise<Enrolment> {
  const foreseen = await db
    .transaction()
    .setAccessMode('read only')
    .execute((transaction) => planEnrolment(transaction, provider.id, listed, names));
  if (isEmpty(foreseen)) return noEnrolment;
  return db.transaction().execute(async (transaction) => {
    // Planned again under the write lock: another process may have enrolled the same list in between.
    const plan = await planEnrolment(transaction, provider.id, listed, names);
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

/** What there is to do for these names, of which the list may have some and the provider's routes others. */
async function planEnrolment(
  db: Database,
  providerId: number,
  listed: ReadonlyMap<string, ModelInfo>,
  names: readonly string[],
): Promise<Plan> {
  if ((await findProviderById(db, providerId)) === undefined)
    return { add: [], join: [], vanish: [], restore: [] };
  const own = await listDiscoveredRoutes(db, names, providerId);
  const known = new Set(own.map((route) => route.upstream_model));
  const strangers = names.filter((name) => listed.has(name) && !known.has(name));
  const homes = await homesOf(db, strangers);
  const siblings = await siblingsOf(db, [...new Set([...homes.values()].map((model) => model.id))]);
  const add: ModelInfo[] = [];
  const join: { model: ModelRow; id: string }[] = [];
  for (const name of strangers) {
    const info = listed.get(name);
    if (info === undefined) continue;
    const model = homes.get(name);
    if (model === undefined) add.push(info);
    else if (mayJoin(model, providerId, name, siblings.get(model.id) ?? [])) join.push({ model, id: name });
  }
  return {
    add,
    join,
    vanish: own.filter((route) => route.vanished === 0 && !listed.has(route.upstream_model)),
    restore: own.filter((route) => route.vanished === 1 && listed.has(route.upstream_model)),
  };
}

/** Where a listed name belongs: the model of that title, else the one that a person renamed. */
async function homesOf(db: Database, names: readonly string[]): Promise<Map<string, ModelRow>> {
  if (names.length === 0) return new Map();
  const titled = await findModels(db, { titles: names });
  const homes = new Map(titled.map((model) => [model.title, model]));
  const untitled = names.filter((name) => !homes.has(name));
  if (untitled.length === 0) return homes;
  const discovered = await listDiscoveredRoutes(db, untitled);
  if (discovered.length === 0) return homes;
  const renamed = await findModels(db, { ids: discovered.map((route) => route.model_id) });
  const modelById = new Map(renamed.map((model) => [model.id, model]));
  for (const route of discovered) {
    const model = modelById.get(route.model_id);
    if (model !== undefined) homes.set(route.upstream_model, model);
  }
  return homes;
}

/** All routes of these models, by model. */
async function siblingsOf(db: Database, modelIds: readonly number[]): Promise<Map<number, RouteRow[]>> {
  const siblings = new Map<number, RouteRow[]>(modelIds.map((id) => [id, []]));
  if (modelIds.length === 0) return siblings;
  for (const route of await listRoutesOfModels(db, modelIds)) siblings.get(route.model_id)?.push(route);
  return siblings;
}

/** A model that a person or the seed made has the routes that they chose; discovery only helps where there is none. */
function mayJoin(model: ModelRow, providerId: number, id: string, siblings: readonly RouteRow[]): boolean {
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
