/** Queries on the table `routes`. Checks nothing: what may be written is the caller's to know. */
import type { Database, NewRouteRow, RouteChanges, RouteRow } from './schema.ts';
import { timestamp } from './schema.ts';

export function listRoutes(db: Database): Promise<RouteRow[]> {
  return db.selectFrom('routes').selectAll().orderBy('id').execute();
}

export function listRoutesOfModel(db: Database, modelId: number): Promise<RouteRow[]> {
  return db.selectFrom('routes').selectAll().where('model_id', '=', modelId).orderBy('id').execute();
}

export function listRoutesOfProvider(db: Database, providerId: number): Promise<RouteRow[]> {
  return db.selectFrom('routes').selectAll().where('provider_id', '=', providerId).orderBy('id').execute();
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
