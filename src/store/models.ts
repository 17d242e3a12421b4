/** Queries on the table `models`. Checks nothing: what may be written is the caller's to know. */
import type { Page } from './pages.ts';
import type { Database, ModelChanges, ModelRow, NewModelRow } from './schema.ts';
import { timestamp } from './schema.ts';

export function listModels(db: Database, { after, limit }: Page = {}): Promise<ModelRow[]> {
  return db
    .selectFrom('models')
    .selectAll()
    .$if(after !== undefined, (query) => query.where('id', '>', after ?? 0))
    .$if(limit !== undefined, (query) => query.limit(limit ?? 0))
    .orderBy('id')
    .execute();
}

export function findModelByTitle(db: Database, title: string): Promise<ModelRow | undefined> {
  return db.selectFrom('models').selectAll().where('title', '=', title).executeTakeFirst();
}

export function findModelById(db: Database, id: number): Promise<ModelRow | undefined> {
  return db.selectFrom('models').selectAll().where('id', '=', id).executeTakeFirst();
}

/** Those that have one of these titles or ids, in any order. */
export function findModels(
  db: Database,
  by: { readonly titles: readonly string[] } | { readonly ids: readonly number[] },
): Promise<ModelRow[]> {
  const query = db.selectFrom('models').selectAll();
  return ('titles' in by ? query.where('title', 'in', by.titles) : query.where('id', 'in', by.ids)).execute();
}

export function insertModel(db: Database, row: NewModelRow): Promise<ModelRow> {
  return db.insertInto('models').values(row).returningAll().executeTakeFirstOrThrow();
}

/**
 * Writes the changes and counts the version up; undefined where the row is gone.
 * @param options.touch whether `updated_at` moves, which tells API users that something they see has changed
 */
export function updateModel(
  db: Database,
  id: number,
  changes: ModelChanges,
  options: { readonly touch: boolean },
): Promise<ModelRow | undefined> {
  return db
    .updateTable('models')
    .set(changes)
    .set((eb) => ({
      version: eb('version', '+', 1),
      ...(options.touch ? { updated_at: timestamp() } : {}),
    }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst();
}

/** Its routes go with it. */
export async function deleteModel(db: Database, id: number): Promise<void> {
  await db.deleteFrom('models').where('id', '=', id).execute();
}

/** Removes discovered models that no route leads to any more, unless somebody edited them. Returns their titles. */
export async function deleteOrphans(db: Database): Promise<string[]> {
  const rows = await db
    .deleteFrom('models')
    .where('origin', '=', 'discovery')
    .where('version', '=', 1)
    .where((eb) =>
      eb.not(
        eb.exists(eb.selectFrom('routes').select('routes.id').whereRef('routes.model_id', '=', 'models.id')),
      ),
    )
    .returning('title')
    .execute();
  return rows.map((row) => row.title);
}
