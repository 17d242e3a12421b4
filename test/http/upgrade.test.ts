/**
 * Databases that former versions made open with everything kept. Each file in test/fixtures/databases is named after the newest
 * migration that it has; whoever adds a migration adds a file that the code with it made, and takes none away.
 */
import { copyFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { temporaryDirectory } from '../unit/workspace.ts';
import { jsonOf, startGateway } from './gateway.ts';

const SqliteDatabase = await loadSqlite();

type Row = Readonly<Record<string, unknown>>;

const directory = fileURLToPath(new URL('../fixtures/databases/', import.meta.url));
const fixtures = readdirSync(directory).filter((name) => /^\d{4}_.*\.db$/.test(name));

/** Counted by the database itself, so that a migration may move them on. */
const counters: ReadonlySet<string> = new Set(['catalog_version', 'keys_version', 'sqlite_sequence']);
const bookkeeping = /^kysely_/;

/** The keys in the files: `sk-gw-` and one letter, 43 times. */
const keyOf = (letter: string) => ({ authorization: `Bearer sk-gw-${letter.repeat(43)}` });

function copyOf(fixture: string): string {
  const file = path.join(temporaryDirectory(), 'gateway.db');
  copyFileSync(path.join(directory, fixture), file);
  return file;
}

/** All rows of all tables, as SQLite tells them to anybody. */
function contentsOf(file: string): ReadonlyMap<string, readonly Row[]> {
  const database = new SqliteDatabase(file);
  try {
    const tables = database
      .prepare<[], { name: string }>("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
      .all()
      .filter(({ name }) => !bookkeeping.test(name));
    return new Map(
      tables.map(({ name }) => [name, database.prepare<[], Row>(`SELECT * FROM "${name}"`).all()]),
    );
  } finally {
    database.close();
  }
}

/** The row without what a later schema added to it. */
const like = (row: Row, columns: readonly string[]): Row =>
  Object.fromEntries(columns.map((column) => [column, row[column]]));

async function served(file: string) {
  const gateway = await startGateway({
    AUTH: 'on',
    DATABASE_URL: `sqlite:${file}`,
    STUDIO_API_KEY: 'a key',
    USAGE_RETENTION_DAYS: '0',
  });
  onTestFinished(() => gateway.close());
  return gateway;
}

describe.each(fixtures)('a database of the schema %s', (fixture) => {
  it('keeps every row of every table, value by value', async () => {
    const file = copyOf(fixture);
    const before = contentsOf(file);
    await (await openStore(file)).close();
    const after = contentsOf(file);
    expect([...before.values()].flat().length).toBeGreaterThan(60);
    for (const [table, rows] of before) {
      const found = after.get(table) ?? [];
      expect(found.length, table).toBeGreaterThanOrEqual(rows.length);
      if (counters.has(table)) continue;
      for (const row of rows) {
        const columns = Object.keys(row);
        expect(
          found.map((one) => like(one, columns)),
          table,
        ).toContainEqual(row);
      }
    }
  });

  it('never counts back', async () => {
    const file = copyOf(fixture);
    const before = contentsOf(file);
    await (await openStore(file)).close();
    const versionIn = (contents: ReadonlyMap<string, readonly Row[]>, table: string): number =>
      Number(contents.get(table)?.[0]?.['version']);
    for (const table of ['catalog_version', 'keys_version']) {
      expect(versionIn(contentsOf(file), table), table).toBeGreaterThanOrEqual(versionIn(before, table));
    }
  });

  it('lets in the keys that it knows, and no key that is revoked or expired', async () => {
    const gateway = await served(copyOf(fixture));
    const statuses = await Promise.all(
      ['A', 'B', 'C', 'D', 'E'].map(async (letter) => {
        const answer = await gateway.get('/api/llm/models', keyOf(letter));
        return [letter, answer.status];
      }),
    );
    expect(Object.fromEntries(statuses)).toEqual({ A: 200, B: 200, C: 401, D: 401, E: 401 });
  });

  it('lists what people made of it: the catalog, the keys and what was used', async () => {
    const gateway = await served(copyOf(fixture));
    const admin = async (what: string) =>
      (await jsonOf(await gateway.get(`/api/admin/${what}`, keyOf('A')))).data;
    expect(await admin('providers')).toContainEqual(
      expect.objectContaining({ key: 'studio-2', name: '二号机 "工作室"', max_concurrency: 3, max_queue: 0 }),
    );
    const models: Row[] = await admin('models');
    expect(models.find(({ title }) => title === 'team/助手 v1')).toMatchObject({
      description: 'line one\nline two\t"quoted" 😀',
      is_featured: true,
      available: true,
      routes: [
        { provider: 'studio-2', api: 'v1', priority: -2, weight: 7, total_timeout_ms: 40 },
        { provider: 'off', enabled: false },
      ],
    });
    expect(models.find(({ id }) => id === 1)).toMatchObject({ enabled: false, version: 2 });
    expect(await admin('keys')).toContainEqual(
      expect.objectContaining({ name: 'key B', models: ['team/助手 v1'], rpm: 60, daily_tokens: 5000 }),
    );
    expect(await admin('usage?since=2025-07-01&until=2025-07-02&by=user')).toContainEqual(
      expect.objectContaining({ group: 'user "7" 😀', requests: 3, input_tokens: 30, attempts: 4 }),
    );
  });
});
