import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readCatalog, readCatalogVersion } from '../../src/store/catalog.ts';
import { openStore, StoreError } from '../../src/store/database.ts';
import { insertModel, listModels, updateModel } from '../../src/store/models.ts';
import { insertProvider, listProviders, updateProvider } from '../../src/store/providers.ts';
import { insertRoute, listRoutes } from '../../src/store/routes.ts';
import { temporaryDirectory, temporaryStore } from './workspace.ts';

const studio = { key: 'studio', kind: 'lmstudio', base_url: 'http://127.0.0.1:1', origin: 'admin' } as const;

/** What opening says, which must be one line. */
async function refusal(opening: Promise<unknown>): Promise<string> {
  const error = await opening.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StoreError);
  const message = error instanceof Error ? error.message : '';
  expect(message).not.toContain('\n');
  return message;
}

describe('opening the database', () => {
  it('creates the directory and runs every migration once', async () => {
    const file = path.join(temporaryDirectory(), 'a/b/gateway.db');
    const first = await openStore(file);
    await first.close();
    const second = await temporaryStore(file);
    const shipped = readdirSync('migrations').filter((name) => name.endsWith('.sql'));
    expect(first.applied.map((name) => `${name}.sql`)).toEqual(shipped.sort());
    expect(second.applied).toEqual([]);
  });

  it('uses a write-ahead log, enforces foreign keys and waits 2 s for a lock', async () => {
    const { raw } = await temporaryStore();
    const pragma = (name: string) => raw.pragma(name, { simple: true });
    expect(['journal_mode', 'synchronous', 'foreign_keys', 'busy_timeout'].map(pragma)).toEqual([
      'wal',
      1,
      1,
      2000,
    ]);
  });

  it('makes files that only their owner may read', async () => {
    const { db, file } = await temporaryStore();
    await insertProvider(db, studio);
    const modes = ['', '-wal', '-shm'].map((suffix) => statSync(file + suffix).mode & 0o777);
    expect(modes.map((mode) => mode.toString(8))).toEqual(['600', '600', '600']);
  });

  it('refuses a directory that cannot be made', async () => {
    const directory = temporaryDirectory();
    writeFileSync(path.join(directory, 'taken'), '');
    const message = await refusal(openStore(path.join(directory, 'taken/gateway.db')));
    expect(message).toMatch(/directory .*taken cannot be written \((ENOTDIR|EEXIST)\)$/);
  });

  it.skipIf(process.getuid?.() === 0)('refuses a directory without write permission', async () => {
    const directory = path.join(temporaryDirectory(), 'locked');
    mkdirSync(directory);
    chmodSync(directory, 0o500);
    expect(await refusal(openStore(path.join(directory, 'gateway.db')))).toContain('EACCES');
  });

  it('refuses a file that is no database, and leaves it as it was', async () => {
    const file = path.join(temporaryDirectory(), 'gateway.db');
    const text = 'a letter to a friend\n'.repeat(100);
    writeFileSync(file, text);
    expect(await refusal(openStore(file))).toContain('is not an SQLite database');
    expect(readFileSync(file, 'utf8')).toBe(text);
  });

  it('refuses a schema that is newer than the code', async () => {
    const { raw, file } = await temporaryStore();
    raw.exec(
      `INSERT INTO kysely_migration (name, timestamp) VALUES ('9999_future', '2030-01-01T00:00:00.000Z')`,
    );
    expect(await refusal(openStore(file))).toMatch(/newer than this version .*9999_future/);
  });

  it('leaves nothing of a migration that fails half way', async () => {
    const directory = temporaryDirectory();
    const migrations = path.join(directory, 'migrations');
    mkdirSync(migrations);
    writeFileSync(path.join(migrations, '0001_good.sql'), 'CREATE TABLE good (id INTEGER);');
    const file = path.join(directory, 'gateway.db');
    await (await openStore(file, { migrations })).close();
    writeFileSync(
      path.join(migrations, '0002_bad.sql'),
      'CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1);',
    );
    expect(await refusal(openStore(file, { migrations }))).toMatch(
      /migration 0002_bad failed: no such table/,
    );
    writeFileSync(path.join(migrations, '0002_bad.sql'), 'CREATE TABLE half (id INTEGER);');
    const store = await openStore(file, { migrations });
    await store.close();
    expect(store.applied).toEqual(['0002_bad']);
  });
});

describe('rows', () => {
  it('gives models made at run time ids from 1000', async () => {
    const { db } = await temporaryStore();
    const made = await insertModel(db, { title: 'first', origin: 'admin' });
    expect(made.id).toBe(1000);
    expect((await insertModel(db, { title: 'second', origin: 'admin' })).id).toBe(1001);
  });

  it('have times in UTC without a fraction', async () => {
    const { db } = await temporaryStore();
    const before = new Date().toISOString().slice(0, 19);
    const { created_at, updated_at } = await insertModel(db, { title: 'a', origin: 'admin' });
    expect(created_at >= before && created_at <= new Date().toISOString().slice(0, 19)).toBe(true);
    expect(updated_at).toBe(created_at);
  });

  it('count their changes, and move updated_at only where asked', async () => {
    const { db, raw } = await temporaryStore();
    const { id } = await insertModel(db, { title: 'a', origin: 'admin' });
    raw.exec(`UPDATE models SET updated_at = '2025-01-01T00:00:00' WHERE id = ${id}`);
    const quiet = await updateModel(db, id, { enabled: 0 }, { touch: false });
    expect(quiet).toMatchObject({ version: 2, updated_at: '2025-01-01T00:00:00' });
    const touched = await updateModel(db, id, { name: 'A' }, { touch: true });
    expect(touched?.version).toBe(3);
    expect(touched?.updated_at).not.toBe('2025-01-01T00:00:00');
  });

  it('of routes go with their provider', async () => {
    const { db, raw } = await temporaryStore();
    const provider = await insertProvider(db, studio);
    const model = await insertModel(db, { title: 'a', origin: 'admin' });
    const before = await listRoutes(db);
    await insertRoute(db, {
      model_id: model.id,
      provider_id: provider.id,
      upstream_model: 'a',
      origin: 'admin',
    });
    raw.exec(`DELETE FROM providers WHERE id = ${provider.id}`);
    expect(await listRoutes(db)).toEqual(before);
  });

  it('are all rolled back with their transaction', async () => {
    const { db } = await temporaryStore();
    const before = await listProviders(db);
    const failing = db.transaction().execute(async (transaction) => {
      await insertProvider(transaction, studio);
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    expect(await listProviders(db)).toEqual(before);
  });

  it('cannot be written by others between the reads and the writes of a transaction', async () => {
    const first = await temporaryStore();
    const second = await temporaryStore(first.file);
    second.raw.pragma('busy_timeout = 0');
    await first.db.transaction().execute(async (transaction) => {
      await listModels(transaction);
      await expect(insertModel(second.db, { title: 'theirs', origin: 'admin' })).rejects.toThrow('locked');
      await insertModel(transaction, { title: 'ours', origin: 'admin' });
    });
    expect((await insertModel(second.db, { title: 'theirs', origin: 'admin' })).id).toBe(1001);
  });

  it('can be read by one process while another writes', async () => {
    const writer = await temporaryStore();
    const reader = await temporaryStore(writer.file);
    reader.raw.pragma('busy_timeout = 0');
    const before = await readCatalog(reader.db);
    await writer.db.transaction().execute(async (transaction) => {
      await insertModel(transaction, { title: 'unfinished', origin: 'admin' });
      expect(await readCatalog(reader.db)).toEqual(before);
    });
    expect((await readCatalog(reader.db)).models).toHaveLength(before.models.length + 1);
  });
});

describe('the catalog version', () => {
  it('moves with each insert, update and delete of its three tables', async () => {
    const { db, raw } = await temporaryStore();
    const seen: number[] = [await readCatalogVersion(db)];
    const provider = await insertProvider(db, studio);
    seen.push(await readCatalogVersion(db));
    const model = await insertModel(db, { title: 'a', origin: 'admin' });
    seen.push(await readCatalogVersion(db));
    await insertRoute(db, {
      model_id: model.id,
      provider_id: provider.id,
      upstream_model: 'a',
      origin: 'admin',
    });
    seen.push(await readCatalogVersion(db));
    await updateProvider(db, provider.id, { name: 'Studio' });
    seen.push(await readCatalogVersion(db));
    raw.exec(`DELETE FROM models WHERE id = ${model.id}`);
    seen.push(await readCatalogVersion(db));
    for (const [index, version] of seen.entries()) {
      if (index > 0) expect(version).toBeGreaterThan(seen[index - 1] ?? Number.POSITIVE_INFINITY);
    }
  });

  it('stays where nothing was written', async () => {
    const { db } = await temporaryStore();
    const before = await readCatalogVersion(db);
    await listModels(db);
    await db.transaction().execute((transaction) => listRoutes(transaction));
    expect(await readCatalogVersion(db)).toBe(before);
  });
});
