/** Administration of the routes, which say what provider answers for which model. Written once for the CLI and the HTTP API. */
import { z } from 'zod';
import { findModels } from '../store/models.ts';
import type { Page } from '../store/pages.ts';
import { listProviders } from '../store/providers.ts';
import {
  deleteRoute,
  insertRoute,
  listRoutesOfModel,
  listRoutesOfModels,
  listRoutes as listRows,
  updateRoute,
} from '../store/routes.ts';
import { type Database, type ModelRow, type ProviderRow, type RouteRow, toBit } from '../store/schema.ts';
import {
  AdminError,
  type Administration,
  changesAgainst,
  parseInput,
  requireVersion,
} from './administration.ts';
import { timeoutFields } from './providers.ts';
import { requireModel, requireProvider, requireRoute } from './references.ts';

/** A route as administrators see it: model and provider by their names. */
export interface RouteView extends Omit<RouteRow, 'model_id' | 'provider_id' | 'enabled' | 'vanished'> {
  readonly model: string;
  readonly provider: string;
  readonly enabled: boolean;
  /** The provider's last model list lacked it. */
  readonly vanished: boolean;
}

/** What can be set at a route. */
export const routeSettings = z
  .strictObject({
    api: z.string(),
    priority: z.int(),
    weight: z.int().min(1),
    enabled: z.boolean(),
    ...timeoutFields,
  })
  .partial();

const target = routeSettings.extend({
  provider: z.string(),
  upstream_model: z.string().min(1).max(500).optional(),
});

export const newRoute = target.extend({ model: z.string() });

/** A route without its model, for a model that is made together with its first route. */
export const routeTarget = target.omit({ enabled: true });

type RouteTarget = z.output<typeof target>;

function present(row: RouteRow, model: string, provider: string): RouteView {
  const { model_id: _model, provider_id: _provider, enabled, vanished, ...rest } = row;
  return { ...rest, model, provider, enabled: enabled === 1, vanished: vanished === 1 };
}

/** SQLite takes 32,766 variables in one statement. */
const mostIds = 10_000;

/** What belongs to these ids, however many they are. */
async function readByIds<T>(
  ids: readonly number[],
  read: (ids: readonly number[]) => Promise<readonly T[]>,
): Promise<T[]> {
  const found: T[] = [];
  for (let at = 0; at < ids.length; at += mostIds) {
    for (const row of await read(ids.slice(at, at + mostIds))) found.push(row);
  }
  return found;
}

/** @param models those that the routes belong to */
async function presentAll(
  db: Database,
  rows: readonly RouteRow[],
  models: readonly Pick<ModelRow, 'id' | 'title'>[],
): Promise<RouteView[]> {
  const titles = new Map(models.map(({ id, title }) => [id, title]));
  const keys = new Map((await listProviders(db)).map(({ id, key }) => [id, key]));
  return rows.map((row) => present(row, titles.get(row.model_id) ?? '', keys.get(row.provider_id) ?? ''));
}

/** The routes of these models. */
export async function listRoutesOf(
  { db }: Administration,
  models: readonly Pick<ModelRow, 'id' | 'title'>[],
): Promise<RouteView[]> {
  const ids = models.map(({ id }) => id);
  return presentAll(db, await readByIds(ids, (some) => listRoutesOfModels(db, some)), models);
}

/** All routes, or those of one model (by title or id), or a page of all. @throws AdminError (NOT_FOUND) */
export async function listRoutes(
  administration: Administration,
  model?: string | number,
  page?: Page,
): Promise<RouteView[]> {
  const { db } = administration;
  if (model !== undefined) return listRoutesOf(administration, [await requireModel(db, model)]);
  const rows = await listRows(db, page);
  const ids = [...new Set(rows.map((row) => row.model_id))];
  return presentAll(db, rows, await readByIds(ids, (some) => findModels(db, { ids: some })));
}

/** @throws AdminError */
export async function addRoute(administration: Administration, input: unknown): Promise<RouteView> {
  const { db, catalog } = administration;
  const { model: reference, ...fields } = parseInput(newRoute, input);
  const route = await db
    .transaction()
    .execute(async (transaction) =>
      writeRoute(transaction, administration, await requireModel(transaction, reference), fields),
    );
  await catalog.load();
  return route;
}

/**
 * Adds a route inside a transaction. One that discovery made already takes on the given settings instead, and is enabled.
 * @throws AdminError (CONFLICT) where somebody made it already
 */
export async function writeRoute(
  db: Database,
  { providerKinds }: Pick<Administration, 'providerKinds'>,
  model: ModelRow,
  { provider: reference, upstream_model = model.title, enabled = true, ...fields }: RouteTarget,
): Promise<RouteView> {
  const provider = await requireProvider(db, reference);
  checkApi(fields.api, providerKinds.get(provider.kind)?.apis ?? []);
  const siblings = await listRoutesOfModel(db, model.id);
  const existing = siblings.find(
    (route) => route.provider_id === provider.id && route.upstream_model === upstream_model,
  );
  if (existing !== undefined && existing.origin !== 'discovery') {
    throw new AdminError('CONFLICT', `this route exists already, as route ${existing.id}`);
  }
  const row =
    existing === undefined
      ? await insertRoute(db, {
          ...fields,
          model_id: model.id,
          provider_id: provider.id,
          upstream_model,
          enabled: toBit(enabled),
          origin: 'admin',
        })
      : await updateRoute(db, existing.id, { ...fields, enabled: toBit(enabled) });
  if (row === undefined) throw new AdminError('CONFLICT', 'the route has just been removed');
  return present(row, model.title, provider.key);
}

function checkApi(api: string | undefined, known: readonly string[]): void {
  if (api === undefined || api === 'auto' || known.includes(api)) return;
  throw new AdminError('INVALID_PARAMS', `must be one of ${['auto', ...known].join(', ')}`, 'api');
}

/** Changes the given fields; `null` takes a setting back. @throws AdminError */
export async function setRoute(
  administration: Administration,
  reference: string | number,
  input: unknown,
  version?: number,
): Promise<RouteView> {
  const { db, catalog, providerKinds } = administration;
  const { enabled, ...fields } = parseInput(routeSettings, input);
  const view = await db.transaction().execute(async (transaction) => {
    const before = await requireRoute(transaction, reference);
    requireVersion(before, version);
    const { model, provider } = await namesOf(transaction, before);
    checkApi(fields.api, providerKinds.get(provider.kind)?.apis ?? []);
    const changes = changesAgainst(before, {
      ...fields,
      ...(enabled === undefined ? {} : { enabled: toBit(enabled) }),
    });
    const unchanged = Object.keys(changes).length === 0;
    const row = unchanged ? before : await updateRoute(transaction, before.id, changes);
    return present(row ?? before, model.title, provider.key);
  });
  await catalog.load();
  return view;
}

/**
 * Removes a route. One that discovery made and whose provider still lists the model would be back with the next list: it
 * is disabled instead.
 * @throws AdminError (NOT_FOUND)
 */
export async function removeRoute(
  { db, catalog }: Administration,
  reference: string | number,
  version?: number,
): Promise<{ readonly route: RouteView; readonly outcome: 'removed' | 'disabled' }> {
  const removed = await db.transaction().execute(async (transaction) => {
    const row = await requireRoute(transaction, reference);
    requireVersion(row, version);
    const { model, provider } = await namesOf(transaction, row);
    if (row.origin === 'discovery' && row.vanished === 0) {
      const disabled = row.enabled === 0 ? row : await updateRoute(transaction, row.id, { enabled: 0 });
      return { route: present(disabled ?? row, model.title, provider.key), outcome: 'disabled' as const };
    }
    await deleteRoute(transaction, row.id);
    return { route: present(row, model.title, provider.key), outcome: 'removed' as const };
  });
  await catalog.load();
  return removed;
}

async function namesOf(
  db: Database,
  route: RouteRow,
): Promise<{ readonly model: ModelRow; readonly provider: ProviderRow }> {
  return {
    model: await requireModel(db, route.model_id),
    provider: await requireProvider(db, route.provider_id),
  };
}
