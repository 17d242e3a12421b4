/** How the process starts and fails to start, as the operator sees it: what it prints and how it exits. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { insertProvider } from '../../src/store/providers.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import { jsonOf } from './gateway.ts';

const SqliteDatabase = await loadSqlite();

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const tsx = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url));

let directory: string;
let running: ChildProcess[] = [];
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'gateway-start-'));
});
afterEach(() => {
  for (const child of running) child.kill('SIGKILL');
  running = [];
  rmSync(directory, { recursive: true, force: true });
});

interface Process {
  readonly child: ChildProcess;
  /** Resolves with the first line of stdout that `matches`. */
  line(matches: (line: string) => boolean): Promise<string>;
  readonly exit: Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>;
}

function start(environment: Record<string, string>): Process {
  const child = spawn(process.execPath, ['--import', tsx, main], {
    cwd: directory,
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: '0',
      LMSTUDIO_BASE_URL: 'http://127.0.0.1:9',
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.push(child);
  let stdout = '';
  let stderr = '';
  const waiting: { matches: (line: string) => boolean; resolve: (line: string) => void }[] = [];
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    stdout += piece;
    for (const { matches, resolve } of waiting) {
      const found = stdout.split('\n').find(matches);
      if (found !== undefined) resolve(found);
    }
  });
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    stderr += piece;
  });
  return {
    child,
    line: (matches) =>
      new Promise((resolve, reject) => {
        const said = stdout.split('\n').find(matches);
        if (said !== undefined) return resolve(said);
        waiting.push({ matches, resolve });
        child.once('exit', () => reject(new Error(`ended before that line: ${stdout}${stderr}`)));
      }),
    exit: new Promise((resolve) => child.once('close', (code) => resolve({ code, stdout, stderr }))),
  };
}

describe('a start that cannot work', () => {
  async function failsWith(environment: Record<string, string>, says: RegExp): Promise<void> {
    const { code, stderr } = await start(environment).exit;
    expect(code, stderr).toBe(1);
    expect(stderr.trimEnd().split('\n'), stderr).toHaveLength(1);
    expect(stderr).toMatch(says);
  }

  it('for a bad value names the variable', () => failsWith({ PORT: 'many' }, /^PORT: /));

  it('never shows the value of a bad secret', async () => {
    const { stderr } = await start({ ADMIN_API_KEY: 'too-short-secret' }).exit;
    expect(stderr).toMatch(/^ADMIN_API_KEY: /);
    expect(stderr).not.toContain('too-short-secret');
  });

  it('open to the network is refused', () =>
    failsWith({ HOST: '0.0.0.0', AUTH: 'off' }, /^AUTH: .*ALLOW_ANONYMOUS/));

  it('for a directory that cannot be made names the file', async () => {
    writeFileSync(path.join(directory, 'file'), '');
    await failsWith({ DATABASE_URL: 'sqlite:./file/gateway.db' }, /database \.\/file\/gateway\.db/);
  });

  it('for a directory below /proc, where nobody can make one, says so at once', () =>
    failsWith(
      { DATABASE_URL: 'sqlite:/proc/none/gateway.db' },
      /the directory \/proc\/none cannot be written/,
    ));

  it('for a file that is no database says so', async () => {
    writeFileSync(
      path.join(directory, 'gateway.db'),
      'no database, but long enough to be read as one. '.repeat(100),
    );
    await failsWith({ DATABASE_URL: 'sqlite:./gateway.db' }, /not an SQLite database/);
  });

  it('for a schema newer than the code says so', async () => {
    const first = start({});
    await first.line((line) => line.includes('listening on'));
    first.child.kill('SIGTERM');
    await first.exit;
    const raw = new SqliteDatabase(path.join(directory, 'data/gateway.db'));
    raw
      .prepare('INSERT INTO kysely_migration (name, timestamp) VALUES (?, ?)')
      .run('9999_future', new Date().toISOString());
    raw.close();
    await failsWith({}, /newer than this version/);
  });

  it('for a taken port says which', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const address = holder.address();
    const port = typeof address === 'object' && address !== null ? String(address.port) : '';
    await failsWith({ PORT: port }, new RegExp(`port ${port} .*taken`));
    holder.close();
  });
});

describe('a start', () => {
  it('without LM Studio is a warning with a hint, and serves', async () => {
    const server = start({});
    const warning = JSON.parse(await server.line((line) => line.includes('"level":"warn"')));
    expect(warning).toMatchObject({ provider: 'lmstudio' });
    expect(warning.msg).toMatch(/is its server running/);
    const listening = JSON.parse(await server.line((line) => line.includes('listening on')));
    expect(listening.providers).toMatchObject({
      lmstudio: 'down',
      bailian: expect.stringContaining('DASHSCOPE_API_KEY'),
    });
    expect((await fetch(`${listening.address}/healthz`)).status).toBe(200);
  });

  it('tells where it listens and that the provider answers', async () => {
    const simulator = await startLmStudio();
    const server = start({ LMSTUDIO_BASE_URL: simulator.url });
    const listening = JSON.parse(await server.line((line) => line.includes('listening on')));
    expect(listening.address).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    expect(listening.providers.lmstudio).toBe('up');
    const { data } = await jsonOf(await fetch(`${listening.address}/api/llm/models`));
    expect(data.length).toBeGreaterThan(0);
    await simulator.close();
  });

  it("has Fastify's lines in its log", async () => {
    const line = await start({}).line((one) => one.includes('Server listening at'));
    expect(JSON.parse(line)).toMatchObject({
      level: 'info',
      msg: expect.stringMatching(/^Server listening at http:\/\/127\.0\.0\.1:\d+$/),
    });
  });

  it('waits at most three seconds for a provider that is silent', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    await new Promise((resolve) => silent.once('listening', resolve));
    const address = silent.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const began = performance.now();
    const server = start({ LMSTUDIO_BASE_URL: `http://127.0.0.1:${port}` });
    const listening = JSON.parse(await server.line((line) => line.includes('listening on')));
    expect(listening.providers.lmstudio).toBe('untested');
    expect(performance.now() - began).toBeLessThan(12_000);
    silent.close();
    server.child.kill('SIGKILL');
  });

  it('reads .env in the working directory; variables that are set win', async () => {
    writeFileSync(path.join(directory, '.env'), 'DATABASE_URL=sqlite:./from-env.db\nLOG_LEVEL=debug\n');
    const server = start({ LOG_LEVEL: 'info' });
    const listening = JSON.parse(await server.line((line) => line.includes('listening on')));
    expect(listening.database).toBe('./from-env.db');
  });
});

it('names a provider whose key PROVIDER_KEY_ENV keeps from it, with the setting', async () => {
  const file = path.join(directory, 'gateway.db');
  const store = await openStore(file);
  await insertProvider(store.db, {
    key: 'studio',
    kind: 'lmstudio',
    base_url: 'http://127.0.0.1:9',
    api_key_env: 'AWS_SECRET_ACCESS_KEY',
    origin: 'admin',
  });
  await store.close();
  const { line } = start({
    DATABASE_URL: `sqlite:${file}`,
    AWS_SECRET_ACCESS_KEY: 'a-secret-of-the-process',
  });
  const told = await line((one) => one.includes('listening on'));
  expect(JSON.parse(told)).toMatchObject({
    providers: { studio: 'no key, PROVIDER_KEY_ENV does not name AWS_SECRET_ACCESS_KEY' },
  });
});
