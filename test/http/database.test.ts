/** A database that fails while the server runs: traffic goes on, readiness tells, and what waited is written later. */
import { randomUUID } from 'node:crypto';
import { renameSync, rmSync } from 'node:fs';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { ask } from './ask.ts';
import { type Stage, since, stage } from './stage.ts';
import { readEvents } from './wire.ts';

const SqliteDatabase = await loadSqlite();

/** The contract gives the catalog's watch 2 s; the meter's patience with a neighbour's lock is a second more. */
const noticed = { timeout: 4000, interval: 50 };

async function readiness(scene: Stage): Promise<{ status: number; state: unknown; database: unknown }> {
  const answer = ask(scene.port, '/readyz', { method: 'GET' });
  const { status } = await answer.head;
  await answer.done;
  const body = JSON.parse(answer.body);
  return { status, state: body.status, database: body.database };
}

const degraded = { status: 200, state: 'degraded', database: 'unavailable' };
const well = { status: 200, state: 'ok', database: 'ok' };

async function expectTraffic(scene: Stage, id = randomUUID()): Promise<void> {
  const start = performance.now();
  const plain = scene.chat({}, { 'x-request-id': id });
  expect((await plain.head).status).toBe(200);
  const streamed = scene.chat({ stream: true });
  await streamed.done;
  expect(readEvents(streamed.body).terminal?.finish_reason).toBe('stop');
  const models = ask(scene.port, '/api/llm/models', { method: 'GET' });
  expect((await models.head).status).toBe(200);
  expect(since(start)).toBeLessThan(1000);
}

/** Holds the write lock. Returns what gives it back. */
function lock(scene: Stage): () => void {
  const other = new SqliteDatabase(scene.file);
  other.exec('BEGIN IMMEDIATE');
  onTestFinished(() => void other.close());
  return () => void other.exec('ROLLBACK');
}

describe('locked by another process', () => {
  it('calls are served, readiness says degraded, and their records are written afterwards', async () => {
    const scene = await stage();
    expect(await readiness(scene)).toEqual(well);
    const unlock = lock(scene);
    const id = randomUUID();
    await expectTraffic(scene, id);
    await vi.waitFor(async () => expect(await readiness(scene)).toEqual(degraded), noticed);
    await expectTraffic(scene);
    unlock();
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'stop' });
    await vi.waitFor(async () => expect(await readiness(scene)).toEqual(well), noticed);
  });

  it('a chat that is to be stored is answered at once, and nobody else waits for it', async () => {
    const scene = await stage();
    lock(scene);
    const start = performance.now();
    const stored = scene.chat({ store: true });
    expect((await stored.head).status).toBe(200);
    await stored.done;
    expect(JSON.parse(stored.body)).toHaveProperty('data.response_id');
    await expectTraffic(scene);
    expect(since(start)).toBeLessThan(1500);
  });

  it('a stored chat is known to the next start once the lock is gone', async () => {
    const scene = await stage();
    const unlock = lock(scene);
    const stored = scene.chat({ store: true });
    await stored.done;
    const id: unknown = JSON.parse(stored.body).data.response_id;
    unlock();
    const rows = (): unknown[] => {
      const database = new SqliteDatabase(scene.file, { readonly: true });
      try {
        return database.prepare('SELECT response_id FROM stored_chats').all();
      } finally {
        database.close();
      }
    };
    await vi.waitFor(() => expect(rows()).toEqual([{ response_id: id }]), noticed);
  });
});

describe('removed while it is open', () => {
  it('calls are served from memory, and readiness says degraded', async () => {
    const scene = await stage();
    for (const suffix of ['', '-wal', '-shm']) rmSync(scene.file + suffix, { force: true });
    await expectTraffic(scene);
    await vi.waitFor(async () => expect(await readiness(scene)).toEqual(degraded), noticed);
    await expectTraffic(scene);
  });
});

describe('without its tables', () => {
  it('calls are served from memory, and readiness says degraded', async () => {
    const scene = await stage();
    const other = new SqliteDatabase(scene.file);
    other.exec('DROP TABLE usage; DROP TABLE catalog_version');
    other.close();
    await vi.waitFor(async () => expect(await readiness(scene)).toEqual(degraded), noticed);
    await expectTraffic(scene);
  });
});

describe('replaced by another file', () => {
  it.each([
    ['as high', 0],
    ['lower', -1],
  ])('is read within 2 s, also where its counters are %s', async (_which, difference) => {
    const scene = await stage();
    const versions = (database: InstanceType<typeof SqliteDatabase>): { catalog: number; keys: number } => ({
      catalog: Number(database.prepare('SELECT version FROM catalog_version').pluck().get()),
      keys: Number(database.prepare('SELECT version FROM keys_version').pluck().get()),
    });
    const replacement = `${scene.file}.new`;
    const present = new SqliteDatabase(scene.file);
    present.exec(`VACUUM INTO '${replacement}'`);
    const copy = new SqliteDatabase(replacement);
    copy.exec("UPDATE models SET title = 'another title' WHERE title = 'qwen2.5-7b-instruct'");
    const { catalog, keys } = versions(present);
    copy.prepare('UPDATE catalog_version SET version = ?').run(catalog + difference);
    copy.prepare('UPDATE keys_version SET version = ?').run(keys + difference);
    copy.close();
    present.close();
    renameSync(replacement, scene.file);
    const titles = async (): Promise<string[]> => {
      const answer = ask(scene.port, '/api/llm/models', { method: 'GET' });
      await answer.done;
      return JSON.parse(answer.body).data.map(({ title }: { title: string }) => title);
    };
    await vi.waitFor(async () => expect(await titles()).toContain('another title'), noticed);
  });
});
