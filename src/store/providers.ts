/** Queries on the table `providers`. Checks nothing: what may be written is the caller's to know. */
import type { Page } from './pages.ts';
import type { Database, NewProviderRow, ProviderChanges, ProviderRow } from './schema.ts';
import { timestamp } from './schema.ts';

export function listProviders(db: Database, { after, limit }: Page = {}): Promise<ProviderRow[]> {
  return db
    .selectFrom('providers')
    .selectAll()
    .$if(after !== undefined, (query) => query.where('id', '>', after ?? 0))
    .$if(limit !== undefined, (query) => query.limit(limit ?? 0))
    .orderBy('id')
    .execute();
}

export function findProvider(db: Database, key: string): Promise<ProviderRow | undefined> {
  return db.selectFrom('providers').selectAll().where('key', '=', key).executeTakeFirst();
}

export function findProviderById(db: Database, id: number): Promise<ProviderRow | undefined> {
  return db.selectFrom('providers').selectAll().where('id', '=', id).executeTakeFirst();
}

export function insertProvider(db: Database, row: NewProviderRow): Promise<ProviderRow> {
  return db.insertInto('providers').values(row).returningAll().executeTakeFirstOrThrow();
}

/** Writes the changes and counts the version up; undefined where the row is gone. */
export function updateProvider(
  db: Database,
  id: number,
  changes: ProviderChanges,
): Promise<ProviderRow | undefined> {
  return db
    .updateTable('providers')
    .set(changes)
    .set((eb) => ({ version: eb('version', '+', 1), updated_at: timestamp() }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst();
}

/** Its routes go with it. */
export async function deleteProvider(db: Database, id: number): Promise<void> {
  await db.deleteFrom('providers').where('id', '=', id).execute();
}
