/** Queries on the table `routes`. Checks nothing: what may be written is the caller's to know. */
import type { Page } from './pages.ts';
import type { Database, NewRouteRow, RouteChanges, RouteRow } from './schema.ts';
import { timestamp } from './schema.ts';

export function listRoutes(db: Database, { after, limit }: Page = {}): Promise<RouteRow[]> {
  return db
    .selectFrom('routes')
    .selectAll()
    .$if(after !== undefined, (query) => query.where('id', '>', after ?? 0))
    .$if(limit !== undefined, (query) => query.limit(limit ?? 0))
    .orderBy('id')
    .execute();
}

export function listRoutesOfModel(db: Database, modelId: number): Promise<RouteRow[]> {
  return db.selectFrom('routes').selectAll().where('model_id', '=', modelId).orderBy('id').execute();
}

export function listRoutesOfProvider(
  db: Database,
  providerId: number,
  { after, limit }: Page = {},
): Promise<RouteRow[]> {
  return db
    .selectFrom('routes')
    .selectAll()
    .where('provider_id', '=', providerId)
    .$if(after !== undefined, (query) => query.where('id', '>', after ?? 0))
    .$if(limit !== undefined, (query) => query.limit(limit ?? 0))
    .orderBy('id')
    .execute();
}

export function listRoutesOfModels(db: Database, modelIds: readonly number[]): Promise<RouteRow[]> {
  return db.selectFrom('routes').selectAll().where('model_id', 'in', modelIds).orderBy('id').execute();
}

/** Routes that discovery made for models of these names, to that provider or to any. */
export function listDiscoveredRoutes(
  db: Database,
  upstreamModels: readonly string[],
  providerId?: number,
): Promise<RouteRow[]> {
  return db
    .selectFrom('routes')
    .selectAll()
    .where('origin', '=', 'discovery')
    .where('upstream_model', 'in', upstreamModels)
    .$if(providerId !== undefined, (query) => query.where('provider_id', '=', providerId ?? 0))
    .orderBy('id')
    .execute();
}

export function findRoute(db: Database, id: number): Promise<RouteRow | undefined> {
  return db.selectFrom('routes').selectAll().where('id', '=', id).executeTakeFirst();
}

export function insertRoute(db: Database, row: NewRouteRow): Promise<RouteRow> {
  return db.insertInto('routes').values(row).returningAll().executeTakeFirstOrThrow();
}

/** Writes the changes and counts the version up; undefined where the row is gone. */
export function updateRoute(db: Database, id: number, changes: RouteChanges): Promise<RouteRow | undefined> {
  return db
    .updateTable('routes')
    .set(changes)
    .set((eb) => ({ version: eb('version', '+', 1), updated_at: timestamp() }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst();
}

export async function deleteRoute(db: Database, id: number): Promise<void> {
  await db.deleteFrom('routes').where('id', '=', id).execute();
}
