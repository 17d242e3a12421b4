/** Queries on the table `stored_chats`. Knows no rule about who may continue what. */
import { sql } from 'kysely';
import { busyTimeoutMs } from './database.ts';
import type { Database, NewStoredChatRow, StoredChatRow } from './schema.ts';

/**
 * The id is the upstream's own and unique there; the last one to report it is right.
 * @throws at once where somebody else holds the lock: SQLite would wait for it in this very thread, and all traffic with it
 */
export async function saveStoredChat(db: Database, row: NewStoredChatRow): Promise<void> {
  await db.connection().execute(async (connection) => {
    await sql`PRAGMA busy_timeout = 0`.execute(connection);
    try {
      await connection
        .insertInto('stored_chats')
        .values(row)
        .onConflict((conflict) => conflict.column('response_id').doUpdateSet(row))
        .execute();
    } finally {
      await sql`PRAGMA busy_timeout = ${sql.lit(busyTimeoutMs)}`.execute(connection);
    }
  });
}

export function findStoredChat(db: Database, responseId: string): Promise<StoredChatRow | undefined> {
  return db.selectFrom('stored_chats').selectAll().where('response_id', '=', responseId).executeTakeFirst();
}

/** @param before `YYYY-MM-DDTHH:MM:SS`, UTC */
export async function deleteStoredChats(db: Database, before: string): Promise<void> {
  await db.deleteFrom('stored_chats').where('created_at', '<', before).execute();
}
