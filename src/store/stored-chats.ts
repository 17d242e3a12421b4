/** Queries on the table `stored_chats`. Knows no rule about who may continue what. */
import type { Database, NewStoredChatRow, StoredChatRow } from './schema.ts';

/** The id is the upstream's own and unique there; the last one to report it is right. */
export async function saveStoredChat(db: Database, row: NewStoredChatRow): Promise<void> {
  await db
    .insertInto('stored_chats')
    .values(row)
    .onConflict((conflict) => conflict.column('response_id').doUpdateSet(row))
    .execute();
}

export function findStoredChat(db: Database, responseId: string): Promise<StoredChatRow | undefined> {
  return db.selectFrom('stored_chats').selectAll().where('response_id', '=', responseId).executeTakeFirst();
}

/** @param before `YYYY-MM-DDTHH:MM:SS`, UTC */
export async function deleteStoredChats(db: Database, before: string): Promise<void> {
  await db.deleteFrom('stored_chats').where('created_at', '<', before).execute();
}
