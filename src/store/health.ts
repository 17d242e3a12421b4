/** What can be said of the database's own health. Knows no table's content. */
import { statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import type SqliteDatabase from 'better-sqlite3';

export interface DatabaseFacts {
  readonly file: string;
  /** The newest migration. */
  readonly schema: string;
  /** Migrations that opening it ran just now. */
  readonly applied: readonly string[];
  /** With what is not yet merged from the write-ahead log. */
  readonly bytes: number;
  /** Left on its disk; undefined for a database in memory. */
  readonly freeBytes: number | undefined;
  /** SQLite's first complaint about the file; undefined if there is none. */
  readonly damage: string | undefined;
  /** Why it cannot be written; undefined if it can. */
  readonly unwritable: string | undefined;
}

/** Reads the whole file once, which takes about a second per gigabyte, and changes nothing. */
export function inspectDatabase(
  { raw, applied }: { readonly raw: SqliteDatabase.Database; readonly applied: readonly string[] },
  file: string,
): DatabaseFacts {
  const newest = raw
    .prepare<[], { name: string | null }>('SELECT max(name) AS name FROM kysely_migration')
    .get();
  const verdict = raw.pragma('quick_check(1)', { simple: true });
  return {
    file,
    applied,
    schema: newest?.name ?? 'none',
    ...spaceOf(raw, file),
    damage: verdict === 'ok' ? undefined : String(verdict),
    unwritable: tryToWrite(raw),
  };
}

function spaceOf(raw: SqliteDatabase.Database, file: string): Pick<DatabaseFacts, 'bytes' | 'freeBytes'> {
  if (file === ':memory:') {
    const pages = Number(raw.pragma('page_count', { simple: true }));
    return { bytes: pages * Number(raw.pragma('page_size', { simple: true })), freeBytes: undefined };
  }
  const sizes = [file, `${file}-wal`].map((name) => statSync(name, { throwIfNoEntry: false })?.size ?? 0);
  const { bavail, bsize } = statfsSync(path.dirname(path.resolve(file)));
  return { bytes: sizes.reduce((sum, size) => sum + size, 0), freeBytes: bavail * bsize };
}

/** Takes the write lock and gives it back. */
function tryToWrite(raw: SqliteDatabase.Database): string | undefined {
  try {
    raw.exec('BEGIN IMMEDIATE');
    raw.exec('ROLLBACK');
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
