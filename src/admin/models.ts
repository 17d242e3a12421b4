/** Administration of the models: list, add, set, remove. Written once for the CLI and the HTTP API. */
import { z } from 'zod';
import {
  deleteModel,
  findModelByTitle,
  insertModel,
  listModels as listRows,
  updateModel,
} from '../store/models.ts';
import type { Page } from '../store/pages.ts';
import { listRoutesOfModel } from '../store/routes.ts';
import { type Database, type ModelRow, toBit } from '../store/schema.ts';
import {
  AdminError,
  type Administration,
  changesAgainst,
  parseInput,
  requireVersion,
} from './administration.ts';
import { requireModel } from './references.ts';
import { listRoutes, listRoutesOf, type RouteView, routeTarget, writeRoute } from './routes.ts';

/** A model as administrators see it. */
export interface ModelView extends Omit<ModelRow, 'enabled' | 'is_featured'> {
  readonly is_featured: boolean;
  readonly enabled: boolean;
  /** Whether it is listed to API users and can be called. */
  readonly available: boolean;
  readonly routes: readonly RouteView[];
}

const text = z.string().max(4000);

/** What can be set at a model. */
export const modelSettings = z
  .strictObject({
    title: z
      .string()
      .min(1, { error: 'must not be empty' })
      .max(500)
      .refine((title) => title.trim() === title, { error: 'must not begin or end with a blank' }),
    img: text,
    name: text,
    description: text,
    keyword: text,
    time: z.string().regex(/^(?:\d{4}-\d{2}-\d{2})?$/, { error: 'must look like 2025-01-01' }),
    tag1: text,
    tag2: text,
    type: z.int().min(0),
    is_featured: z.boolean(),
    enabled: z.boolean(),
    context_length: z.int().min(1).nullable(),
    max_output_tokens: z.int().min(1).nullable(),
  })
  .partial();

export const newModel = modelSettings.extend({ title: modelSettings.shape.title.unwrap() });

/** Columns that API users do not see: changing only these does not move `updated_at`. */
const unlisted: ReadonlySet<string> = new Set(['enabled', 'context_length', 'max_output_tokens']);

function present(administration: Administration, row: ModelRow, routes: readonly RouteView[]): ModelView {
  return {
    ...row,
    is_featured: row.is_featured === 1,
    enabled: row.enabled === 1,
    available: administration.catalog.find(row.title)?.available ?? false,
    routes,
  };
}

export async function listModels(administration: Administration, page?: Page): Promise<ModelView[]> {
  await administration.catalog.load();
  const rows = await listRows(administration.db, page);
  const routes = new Map<string, RouteView[]>(rows.map(({ title }) => [title, []]));
  for (const route of await listRoutesOf(administration, rows)) routes.get(route.model)?.push(route);
  return rows.map((row) => present(administration, row, routes.get(row.title) ?? []));
}

async function requireFreeTitle(db: Database, title: string): Promise<void> {
  if ((await findModelByTitle(db, title)) !== undefined) {
    throw new AdminError('CONFLICT', `there is already a model ${title}`, 'title');
  }
}

/** Adds a model and, where the input names a provider, its first route. @throws AdminError */
export async function addModel(administration: Administration, input: unknown): Promise<ModelView> {
  const { db, catalog } = administration;
  const given = Object.entries(parseInput(z.record(z.string(), z.unknown()), input));
  const ofRoute = given.filter(([field]) => field in routeTarget.shape);
  const ofModel = given.filter(([field]) => !(field in routeTarget.shape));
  const { enabled, is_featured, ...card } = parseInput(newModel, Object.fromEntries(ofModel));
  const route = ofRoute.length === 0 ? undefined : parseInput(routeTarget, Object.fromEntries(ofRoute));
  const id = await db.transaction().execute(async (transaction) => {
    await requireFreeTitle(transaction, card.title);
    const row = await insertModel(transaction, {
      time: new Date().toISOString().slice(0, 10),
      ...card,
      enabled: toBit(enabled ?? true),
      is_featured: toBit(is_featured ?? false),
      origin: 'admin',
    });
    if (route !== undefined) await writeRoute(transaction, administration, row, route);
    return row.id;
  });
  await catalog.load();
  return viewOf(administration, id);
}

async function viewOf(administration: Administration, id: number): Promise<ModelView> {
  const row = await requireModel(administration.db, id);
  return present(administration, row, await listRoutes(administration, id));
}

/** Changes the given fields; `null` takes a setting back. @throws AdminError */
export async function setModel(
  administration: Administration,
  reference: string | number,
  input: unknown,
  version?: number,
): Promise<ModelView> {
  const { db, catalog } = administration;
  const { enabled, is_featured, ...fields } = parseInput(modelSettings, input);
  const id = await db.transaction().execute(async (transaction) => {
    const before = await requireModel(transaction, reference);
    requireVersion(before, version);
    const changes = changesAgainst(before, {
      ...fields,
      ...(enabled === undefined ? {} : { enabled: toBit(enabled) }),
      ...(is_featured === undefined ? {} : { is_featured: toBit(is_featured) }),
    });
    if (changes.title !== undefined) await requireFreeTitle(transaction, changes.title);
    const touch = Object.keys(changes).some((column) => !unlisted.has(column));
    if (Object.keys(changes).length > 0) await updateModel(transaction, before.id, changes, { touch });
    return before.id;
  });
  await catalog.load();
  return viewOf(administration, id);
}

/**
 * Removes a model and its routes. One that a provider still lists would be back with the next list: it is disabled
 * instead, which takes it out of the API just the same and keeps it out.
 * @throws AdminError (NOT_FOUND)
 */
export async function removeModel(
  administration: Administration,
  reference: string | number,
  version?: number,
): Promise<{ readonly model: ModelView; readonly outcome: 'removed' | 'disabled' }> {
  const { db, catalog } = administration;
  const removed = await db.transaction().execute(async (transaction) => {
    const row = await requireModel(transaction, reference);
    requireVersion(row, version);
    const routes = await listRoutesOfModel(transaction, row.id);
    if (routes.some((route) => route.origin === 'discovery' && route.vanished === 0)) {
      const disabled =
        row.enabled === 0 ? row : await updateModel(transaction, row.id, { enabled: 0 }, { touch: false });
      return { row: disabled ?? row, outcome: 'disabled' as const };
    }
    await deleteModel(transaction, row.id);
    return { row, outcome: 'removed' as const };
  });
  await catalog.load();
  const routes = removed.outcome === 'disabled' ? await listRoutes(administration, removed.row.id) : [];
  return { model: present(administration, removed.row, routes), outcome: removed.outcome };
}
