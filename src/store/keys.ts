/** Queries on the table `api_keys`. Checks nothing, and never sees a key itself: only its hash. */
import type { Page } from './pages.ts';
import type { Database, KeyChanges, KeyRow, NewKeyRow } from './schema.ts';
import { timestamp } from './schema.ts';

/** Triggers bump it with every change of a key, whichever process makes it. */
export async function readKeysVersion(db: Database): Promise<number> {
  const row = await db.selectFrom('keys_version').select('version').executeTakeFirstOrThrow();
  return row.version;
}

/** All keys, revoked ones too, with the version that they belong to. */
export function readKeys(
  db: Database,
): Promise<{ readonly version: number; readonly keys: readonly KeyRow[] }> {
  return db
    .transaction()
    .setAccessMode('read only')
    .execute(async (transaction) => ({
      version: await readKeysVersion(transaction),
      keys: await listKeys(transaction),
    }));
}

export function listKeys(db: Database, { after, limit }: Page = {}): Promise<KeyRow[]> {
  return db
    .selectFrom('api_keys')
    .selectAll()
    .$if(after !== undefined, (query) => query.where('id', '>', after ?? 0))
    .$if(limit !== undefined, (query) => query.limit(limit ?? 0))
    .orderBy('id')
    .execute();
}

export function findKey(db: Database, id: number): Promise<KeyRow | undefined> {
  return db.selectFrom('api_keys').selectAll().where('id', '=', id).executeTakeFirst();
}

export function insertKey(db: Database, row: NewKeyRow): Promise<KeyRow> {
  return db.insertInto('api_keys').values(row).returningAll().executeTakeFirstOrThrow();
}

/** Writes the changes and counts the version up; undefined where the row is gone. */
export function updateKey(db: Database, id: number, changes: KeyChanges): Promise<KeyRow | undefined> {
  return db
    .updateTable('api_keys')
    .set(changes)
    .set((eb) => ({ version: eb('version', '+', 1), updated_at: timestamp() }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst();
}

/** What keys with a daily limit have used since midnight UTC, by key id. */
export function readTokensOfToday(db: Database): Promise<{ id: number; tokens: number }[]> {
  return db
    .selectFrom('usage')
    .innerJoin('api_keys', 'api_keys.id', 'usage.key_id')
    .where('api_keys.daily_tokens', '>', 0)
    .where('usage.time', '>=', timestamp().slice(0, 10))
    .select((eb) => [
      'api_keys.id as id',
      eb.fn
        .coalesce(eb.fn.sum<number>(eb('usage.input_tokens', '+', eb.ref('usage.output_tokens'))), eb.lit(0))
        .as('tokens'),
    ])
    .groupBy('api_keys.id')
    .execute();
}
