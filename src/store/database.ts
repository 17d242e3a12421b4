/** Opens the SQLite file and brings its schema up to date. Knows no table but the list of migrations. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type SqliteDatabase from 'better-sqlite3';
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  Kysely,
  type Migration,
  Migrator,
  SqliteAdapter,
  SqliteDriver,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type TransactionSettings,
} from 'kysely';
import type { Database, Tables } from './schema.ts';
import { loadSqlite, MissingSqliteError } from './sqlite.ts';

/** The database cannot be used. Its message is one line for the operator that names the file. */
export class StoreError extends Error {}

export interface Store {
  readonly db: Database;
  /**
   * The connection itself, for what must be one synchronous step, such as a batch of many rows. It may find a transaction of `db`
   * open (`inTransaction`), since a long catalog is read in several turns.
   */
  readonly raw: SqliteDatabase.Database;
  /** Names of the migrations that this opening ran. */
  readonly applied: readonly string[];
  /**
   * Whether the opened file still stands at its path; SQLite would go on writing into one that was removed, and all of it
   * would be lost. A file that was put in its place is opened instead, and `raw` is another connection from then on.
   * @throws StoreError where that file cannot be opened
   */
  follow(): Promise<boolean>;
  /** Calls back once a file that was put in the place of the former one is open: nothing that was read before holds any more. */
  onReplaced(listener: () => void): void;
  close(): Promise<void>;
}

/** How long a statement waits for another process's lock. It blocks this whole process meanwhile. Milliseconds. */
export const busyTimeoutMs = 2000;

/** The mode of a new file: it holds hashes of keys, and who used what. */
const ownerOnly = 0o600;

/** Two levels up from src/store and from dist/store alike. */
const shippedMigrations = fileURLToPath(new URL('../../migrations/', import.meta.url));

/**
 * Begins what writes with the write lock: SQLite refuses at once, whatever busy_timeout says, a transaction that read
 * first and then wants to write after somebody else wrote (SQLITE_BUSY_SNAPSHOT).
 */
class ImmediateDriver extends SqliteDriver {
  override async beginTransaction(
    connection: DatabaseConnection,
    settings?: TransactionSettings,
  ): Promise<void> {
    const begin = settings?.accessMode === 'read only' ? 'begin' : 'begin immediate';
    await connection.executeQuery(CompiledQuery.raw(begin));
  }
}

function dialect(connection: () => SqliteDatabase.Database): Dialect {
  const database = {
    prepare: (sql: string) => connection().prepare(sql),
    close: () => connection().close(),
  };
  return {
    createDriver: () => new ImmediateDriver({ database }),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createAdapter: () => new SqliteAdapter(),
    createIntrospector: (db) => new SqliteIntrospector(db),
  };
}

/**
 * Opens the file (or `:memory:`), creates its directory, and runs what migrations are missing: all of them or none.
 * @throws StoreError where the directory or file cannot be written, is no database, is locked, or has a newer schema
 */
export async function openStore(
  file: string,
  options: { readonly migrations?: string } = {},
): Promise<Store> {
  prepareFile(file);
  const migrations = options.migrations ?? shippedMigrations;
  const opened = await openMigrated(file, migrations);
  let { raw } = opened;
  let identity = identityOf(file);
  let logIdentity = identityOf(`${file}-wal`);
  const db = new Kysely<Tables>({ dialect: dialect(() => raw) });
  const listeners: (() => void)[] = [];
  return {
    db,
    get raw() {
      return raw;
    },
    applied: opened.applied,
    async follow() {
      const found = identityOf(file);
      if (found === identity) {
        logIdentity = identityOf(`${file}-wal`);
        return true;
      }
      if (found === undefined) return false;
      // What is being read is read to its end.
      if (raw.inTransaction) return true;
      raw.close();
      // The old file's write-ahead log would be played into the new one.
      if (logIdentity !== undefined && identityOf(`${file}-wal`) === logIdentity) {
        for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true });
      }
      raw = (await openMigrated(file, migrations)).raw;
      identity = identityOf(file);
      for (const listener of listeners) listener();
      return true;
    },
    onReplaced: (listener) => void listeners.push(listener),
    async close() {
      await db.destroy();
      // Kysely closes the connection only if it has used it.
      raw.close();
    },
  };
}

async function openMigrated(
  file: string,
  migrations: string,
): Promise<{ readonly raw: SqliteDatabase.Database; readonly applied: readonly string[] }> {
  const raw = await openConnection(file);
  const db = new Kysely<Tables>({ dialect: dialect(() => raw) });
  try {
    return { raw, applied: await migrate(db, raw, migrations) };
  } catch (error) {
    raw.close();
    throw describe(file, error);
  }
}

/** Tells one file from another at the same path; undefined where there is none, or where it lives in memory. */
function identityOf(file: string): string | undefined {
  if (file.startsWith(':memory:')) return undefined;
  const found = statSync(file, { throwIfNoEntry: false });
  return found === undefined ? undefined : `${found.dev}:${found.ino}`;
}

/** Node's recursive mkdir never returns below /proc, where a directory can be neither found nor made. */
function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'EEXIST' && statSync(directory).isDirectory()) return;
    if (code !== 'ENOENT' || path.dirname(directory) === directory) throw error;
    makeDirectory(path.dirname(directory));
    mkdirSync(directory);
  }
}

/** SQLite opens a file that it may not write read-only, without a word; so this looks first. */
function prepareFile(file: string): void {
  if (file === ':memory:') return;
  const directory = path.dirname(path.resolve(file));
  try {
    makeDirectory(directory);
    accessSync(directory, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new StoreError(`database ${file}: the directory ${directory} cannot be written (${codeOf(error)})`);
  }
  try {
    // SQLite makes a file that everybody may read, and gives its log the file's own mode. One that is there keeps what it has.
    if (existsSync(file)) accessSync(file, constants.R_OK | constants.W_OK);
    else closeSync(openSync(file, 'a', ownerOnly));
  } catch (error) {
    throw new StoreError(`database ${file}: the file cannot be written (${codeOf(error)})`);
  }
}

async function openConnection(file: string): Promise<SqliteDatabase.Database> {
  let raw: SqliteDatabase.Database | undefined;
  try {
    // Long enough for another process's batch, short enough to be survived.
    const Sqlite = await loadSqlite();
    raw = new Sqlite(file, { timeout: busyTimeoutMs });
    raw.pragma('journal_mode = WAL');
    // With WAL, NORMAL loses the last transactions on a power cut but never the file: 23 us an insert instead of 200.
    raw.pragma('synchronous = NORMAL');
    raw.pragma('foreign_keys = ON');
    return raw;
  } catch (error) {
    raw?.close();
    throw describe(file, error);
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

function describe(file: string, error: unknown): StoreError {
  if (error instanceof MissingSqliteError) return new StoreError(error.message);
  if (error instanceof StoreError) return new StoreError(`database ${file}: ${error.message}`);
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  if (code === 'SQLITE_NOTADB') return new StoreError(`database ${file}: the file is not an SQLite database`);
  if (code.startsWith('SQLITE_BUSY')) {
    return new StoreError(`database ${file}: another process holds its lock; stop it or try again`);
  }
  return new StoreError(`database ${file}: ${message.split('\n', 1)[0]}`, { cause: error });
}

function readMigrations(directory: string, raw: SqliteDatabase.Database): Record<string, Migration> {
  const migrations: Record<string, Migration> = {};
  for (const name of readdirSync(directory)) {
    if (!name.endsWith('.sql')) continue;
    const file = path.join(directory, name);
    // A file may hold several statements, which a prepared statement cannot.
    migrations[path.basename(name, '.sql')] = {
      up: async () => {
        raw.exec(readFileSync(file, 'utf8'));
      },
    };
  }
  return migrations;
}

function executedMigrations(raw: SqliteDatabase.Database): string[] {
  const exists = raw
    .prepare<[], { name: string }>(
      `SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'kysely_migration'`,
    )
    .get();
  if (exists === undefined) return [];
  return raw
    .prepare<[], { name: string }>('SELECT name FROM kysely_migration ORDER BY name')
    .all()
    .map((row) => row.name);
}

async function migrate(db: Database, raw: SqliteDatabase.Database, directory: string): Promise<string[]> {
  const migrations = readMigrations(directory, raw);
  const executed = executedMigrations(raw);
  const unknown = executed.find((name) => migrations[name] === undefined);
  if (unknown !== undefined) {
    throw new StoreError(
      `its schema is newer than this version of the gateway (migration ${unknown}); update the gateway or use another file`,
    );
  }
  if (Object.keys(migrations).every((name) => executed.includes(name))) return [];
  // Kysely knows no transactional DDL for SQLite. This makes the run atomic, and makes a second process wait for it.
  raw.exec('BEGIN IMMEDIATE');
  try {
    const migrator = new Migrator({
      db,
      provider: { getMigrations: async () => migrations },
      // The order is otherwise judged by wall-clock times, and a clock may have been set back.
      allowUnorderedMigrations: true,
    });
    const { error, results } = await migrator.migrateToLatest();
    if (error !== undefined)
      throw failedMigration(
        error,
        results?.find((one) => one.status === 'Error'),
      );
    raw.exec('COMMIT');
    return results?.map((one) => one.migrationName) ?? [];
  } catch (error) {
    if (raw.inTransaction) raw.exec('ROLLBACK');
    throw error;
  }
}

function failedMigration(error: unknown, failed: { readonly migrationName: string } | undefined): unknown {
  if (failed === undefined) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new StoreError(`migration ${failed.migrationName} failed: ${message}`);
}
