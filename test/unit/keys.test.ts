/** The key ring in memory, and the commands that administer keys. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { createKey, revokeKey } from '../../src/admin/keys.ts';
import { hashKey, KeyRing, mayUse } from '../../src/gateway/keys.ts';
import { temporaryDirectory, temporaryStore } from './workspace.ts';

const repository = fileURLToPath(new URL('../../', import.meta.url));

async function ring() {
  const store = await temporaryStore();
  const keys = new KeyRing(store.db, pino({ level: 'silent' }));
  return { store, keys };
}

describe('the key ring', () => {
  it('knows a key by its hash, and nothing else', async () => {
    const { store, keys } = await ring();
    const { id, key } = await createKey(store, { name: 'a' });
    await keys.load();
    expect(keys.find(hashKey(key))).toMatchObject({ state: 'good', key: { id, name: 'a' } });
    expect(keys.find(key)).toEqual({ state: 'unknown' });
    expect(keys.find(hashKey(`${key} `))).toEqual({ state: 'unknown' });
  });

  it('ends a key at the second at which it expires', async () => {
    const { store, keys } = await ring();
    const { key } = await createKey(store, { name: 'a', expires_at: '2030-01-01T12:00:00' });
    await keys.load();
    const end = Date.parse('2030-01-01T12:00:00Z');
    expect(keys.find(hashKey(key), end - 1).state).toBe('good');
    expect(keys.find(hashKey(key), end).state).toBe('expired');
  });

  it('keeps a revoked key apart from an unknown one, for the log', async () => {
    const { store, keys } = await ring();
    const { id, key } = await createKey(store, { name: 'a' });
    await revokeKey(store, id);
    await keys.load();
    expect(keys.find(hashKey(key)).state).toBe('revoked');
  });

  it('goes on with what it knows when the database is gone', async () => {
    const { store, keys } = await ring();
    const { key } = await createKey(store, { name: 'a' });
    await keys.load();
    await store.db.schema.dropTable('keys_version').execute();
    await expect(keys.load()).rejects.toThrow();
    expect(keys.find(hashKey(key)).state).toBe('good');
  });

  it('answers in microseconds with a thousand keys', async () => {
    const { store, keys } = await ring();
    const made = [];
    for (let i = 0; i < 1000; i += 1) made.push(hashKey((await createKey(store, { name: `${i}` })).key));
    await keys.load();
    const start = performance.now();
    for (let i = 0; i < 100; i += 1) for (const hash of made) keys.find(hash);
    const microseconds = ((performance.now() - start) * 1000) / 100_000;
    expect(microseconds).toBeLessThan(20);
  });
});

describe('a lifetime', () => {
  it.each([
    ['12h', 12],
    ['90d', 90 * 24],
    ['2w', 14 * 24],
  ])('of %s ends after %i hours', async (expires, hours) => {
    const store = await temporaryStore();
    const before = Date.now();
    const { expires_at } = await createKey(store, { name: 'a', expires });
    const lasts = Date.parse(`${expires_at}Z`) - before;
    expect(Math.abs(lasts - hours * 3_600_000)).toBeLessThan(5000);
  });

  it.each([
    ['2030-01-01', '2030-01-01T00:00:00'],
    ['2030-01-01T12:30', '2030-01-01T12:30:00'],
    ['2030-01-01T12:30:15.5Z', '2030-01-01T12:30:15'],
    ['2030-01-01T12:30:00+08:00', '2030-01-01T04:30:00'],
  ])('until %s is kept as %s', async (expires_at, kept) => {
    const store = await temporaryStore();
    expect((await createKey(store, { name: 'a', expires_at })).expires_at).toBe(kept);
  });
});

describe('what a caller may use', () => {
  it('is everything without a key, and what the key names with one', async () => {
    const { store, keys } = await ring();
    const { key } = await createKey(store, { name: 'a', models: ['x'] });
    await keys.load();
    const found = keys.find(hashKey(key));
    const caller = found.state === 'good' ? { key: found.key } : {};
    expect([mayUse(undefined, 'y'), mayUse({}, 'y')]).toEqual([true, true]);
    expect([mayUse(caller, 'x'), mayUse(caller, 'y')]).toEqual([true, false]);
  });
});

describe('the commands', () => {
  function cli(directory: string, ...given: string[]) {
    const file = path.join(repository, 'src/cli.ts');
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--import', import.meta.resolve('tsx'), file, ...given],
      {
        cwd: directory,
        env: { PATH: process.env['PATH'], DATABASE_URL: 'sqlite:gateway.db' },
        encoding: 'utf8',
      },
    );
    return { status, stdout, stderr };
  }

  it('make a key, print it alone and once, list it by its prefix, and revoke it', () => {
    const directory = temporaryDirectory();
    const made = cli(directory, 'keys', 'create', '--name', 'a', '--models', 'x, y', '--rpm', '5');
    expect(made.stdout).toMatch(/^sk-gw-[\w-]{43}\n$/);
    const key = made.stdout.trim();
    const listed = cli(directory, 'keys', 'list', '--json');
    expect(JSON.parse(listed.stdout)).toMatchObject([
      { id: 1, name: 'a', prefix: key.slice(0, 12), models: ['x', 'y'], rpm: 5, state: 'active' },
    ]);
    expect(listed.stdout).not.toContain(key.slice(12));
    expect(cli(directory, 'keys', 'revoke', '1')).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('revoked key 1'),
    });
  }, 60_000);

  it('print a created key as JSON where that is asked for', () => {
    const made = cli(
      temporaryDirectory(),
      'keys',
      'create',
      '--name',
      'a',
      '--expires',
      '2030-01-01',
      '--json',
    );
    expect(JSON.parse(made.stdout)).toMatchObject({
      id: 1,
      key: expect.stringMatching(/^sk-gw-/),
      expires_at: '2030-01-01T00:00:00',
    });
  });

  it('refuse in one line that names the field', () => {
    const { status, stdout, stderr } = cli(
      temporaryDirectory(),
      'keys',
      'create',
      '--name',
      'a',
      '--scope',
      'root',
    );
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^llm-gateway: scope: .*\n$/);
  });
});
