/** Which SQLite engine is loaded, and that the engines share their files. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { enginesFor, loadSqlite, MissingSqliteError } from '../../src/store/sqlite.ts';

const locate = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));

function temporaryFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'sqlite-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const found = await loadSqlite();
const good = { version: '12', load: async () => ({ default: found }) };
const missing = {
  version: '13',
  load: () => Promise.reject(new Error("Cannot find package 'better-sqlite3'\nimported from somewhere")),
};

it('prefers version 13, and never tries it on a Node that it would crash', () => {
  expect(enginesFor(24).map(({ version }) => version)).toEqual(['13', '12']);
  expect(enginesFor(22).map(({ version }) => version)).toEqual(['13', '12']);
  expect(enginesFor(20).map(({ version }) => version)).toEqual(['12']);
});

it('takes the next engine where one is not installed', async () => {
  expect(await loadSqlite([missing, good])).toBe(found);
});

it('takes the next engine where the native part of one is missing, which only opening a database tells', async () => {
  const withoutBinary = new Proxy(found, {
    construct() {
      throw new Error('Could not locate the bindings file');
    },
  });
  const broken = { version: '13', load: async () => ({ default: withoutBinary }) };
  expect(await loadSqlite([broken, good])).toBe(found);
});

it('tells in one line what to do where there is none', async () => {
  const failure = await loadSqlite([missing]).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(MissingSqliteError);
  const message = String(failure);
  expect(message).not.toContain('\n');
  expect(message).toContain('npm ci');
  expect(message).toContain("better-sqlite3 13: Cannot find package 'better-sqlite3'");
});

it.each(['src/main.ts', 'src/cli.ts'])('ends %s with that line and exit code 1', (program) => {
  const cwd = temporaryFolder();
  writeFileSync(
    path.join(cwd, 'refuse.mjs'),
    `export function resolve(name, context, next) {
      if (name.startsWith('better-sqlite3')) throw new Error('not installed');
      return next(name, context);
    }`,
  );
  const hook = path.join(cwd, 'hook.mjs');
  writeFileSync(
    hook,
    `import { register } from 'node:module';\nregister('./refuse.mjs', import.meta.url);\n`,
  );
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      '--import',
      locate('node_modules/tsx/dist/loader.mjs'),
      '--import',
      hook,
      locate(program),
      'keys',
      'list',
    ],
    {
      cwd,
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], DATABASE_URL: 'sqlite:./gateway.db', PORT: '0' },
    },
  );
  expect(stderr.trimEnd().split('\n')).toEqual([expect.stringContaining('no SQLite engine for Node')]);
  expect(status).toBe(1);
});

it('reads a file that the other version made', async () => {
  const file = path.join(temporaryFolder(), 'gateway.db');
  cpSync(locate('test/fixtures/databases/made-by-better-sqlite3-13.db'), file);
  const store = await openStore(file);
  onTestFinished(() => store.close());
  const keys = await store.db.selectFrom('api_keys').select(['name', 'rpm']).execute();
  expect(keys).toEqual([{ name: 'kept', rpm: 7 }]);
});
