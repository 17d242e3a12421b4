/** The gateway as a target: compiled, with a database of its own, and everything on that is on in production. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { freePort, root, startProcess, stopProcess, until } from '../processes.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { fillDatabase } from './rows.ts';
import type { Place, Running, Target } from './target.ts';

interface Variant {
  readonly path: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** A module that is loaded before the gateway. */
  readonly preload?: string;
}

/** Counted with every request, and never reached. */
const limits: string[] = [];

/** Compiles src/ if that is needed. */
export function buildGateway(): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/build-if-stale.mjs'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the gateway does not compile:\n${stdout}${stderr}`);
}

/** Runs a command of the gateway. @returns what it printed, or undefined where it failed */
function runCommand(environment: NodeJS.ProcessEnv, cwd: string, ...given: string[]): string | undefined {
  const { status, stdout } = spawnSync(process.execPath, [path.join(root, 'dist/cli.js'), ...given], {
    cwd,
    env: environment,
    encoding: 'utf8',
  });
  return status === 0 ? stdout : undefined;
}

/** A database as a gateway finds it that has run before, and a key for it. */
interface Prepared {
  readonly database: string;
  readonly key: string;
}

const adminKey = randomBytes(24).toString('hex');
/** By number of rows. Every start gets a copy. */
const prepared = new Map<number, Prepared>();

function environmentOf(upstreamPort: number, database: string): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    NODE_ENV: 'production',
    DATABASE_URL: `sqlite:${database}`,
    LMSTUDIO_BASE_URL: `http://127.0.0.1:${upstreamPort}`,
    AUTH: 'on',
    ADMIN_API_KEY: adminKey,
  };
}

function prepare({ upstreamPort, folder }: Place, rows: number): Prepared {
  const known = prepared.get(rows);
  if (known !== undefined) return known;
  const home = mkdtempSync(path.join(folder, 'prepared-'));
  const database = path.join(home, 'gateway.db');
  const environment = environmentOf(upstreamPort, database);
  if (runCommand(environment, home, 'providers', 'set', 'lmstudio', '--max-concurrency', '0') === undefined) {
    throw new Error('the provider lmstudio cannot be given unlimited concurrency');
  }
  if (rows > 0) fillDatabase(database, rows);
  const created = runCommand(environment, home, 'keys', 'create', '--name', 'bench', ...limits);
  const key = /sk-gw-[\w-]+/.exec(created ?? '')?.[0];
  if (key === undefined) throw new Error('no key can be created');
  const made = { database, key };
  prepared.set(rows, made);
  return made;
}

async function start(place: Place, variant: Variant, rows = 0): Promise<Running> {
  const { database, key } = prepare(place, rows);
  const port = await freePort();
  // An empty working directory has no .env that would change what is measured.
  const home = mkdtempSync(path.join(place.folder, 'gateway-'));
  const ownDatabase = path.join(home, 'gateway.db');
  copyFileSync(database, ownDatabase);
  const logFile = path.join(home, 'gateway.log');
  const log = openSync(logFile, 'a');
  const preload = variant.preload === undefined ? [] : ['--import', path.join(root, variant.preload)];
  const child = startProcess(place.core, process.execPath, [...preload, path.join(root, 'dist/main.js')], {
    cwd: home,
    stdio: ['ignore', log, log],
    env: {
      ...environmentOf(place.upstreamPort, ownDatabase),
      PORT: String(port),
      ...variant.environment,
    },
  });
  const anonymous = variant.environment?.['AUTH'] === 'off';
  const headers: Record<string, string> = anonymous ? {} : { authorization: `Bearer ${key}` };
  const endpoint = { port, path: variant.path, headers };
  try {
    await until(`the gateway answers at ${variant.path}`, 60, () => answers(endpoint, () => child.exitCode));
  } catch (error) {
    await stopProcess(child);
    throw new Error(`${String(error)}\n${readFileSync(logFile, 'utf8').slice(-2000)}`);
  }
  return { pid: child.pid ?? 0, endpoint, stop: () => stopProcess(child) };
}

/** @throws Error where the gateway has ended or does not have the path */
async function answers(endpoint: Running['endpoint'], exitCode: () => number | null): Promise<boolean> {
  if (exitCode() !== null) throw new Error(`the gateway ended with exit code ${exitCode()}`);
  const body = JSON.stringify({
    model: nameOf(scripts.json),
    messages: [{ role: 'user', content: 'ready?' }],
  });
  const answer = await fetch(`http://127.0.0.1:${endpoint.port}${endpoint.path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...endpoint.headers },
    body,
  }).catch(() => undefined);
  await answer?.body?.cancel();
  if (answer?.status === 404) throw new Error(`the gateway has no ${endpoint.path}`);
  return answer?.status === 200;
}

const target = (name: string, variant: Variant, optional = false): Target => ({
  name,
  optional,
  start: (place, rows) => start(place, variant, rows),
});

export const gateway = target('gateway', { path: '/api/llm/chat' });

export const gatewayV1 = target('gateway-v1', { path: '/v1/chat/completions' }, true);

/** What the key, its limits and the usage log cost together: all three are off. */
export const gatewayPlain = target('gateway-plain', {
  path: '/api/llm/chat',
  environment: { AUTH: 'off' },
  preload: 'bench/targets/without-usage.mjs',
});
