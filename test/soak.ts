/**
 * `npm run soak [-- minutes]`: good, faulty and leaving clients at full speed against a gateway in a process of its own. Exit
 * code 1 unless every call has one ending that fits what its client saw, memory stays flat, and nothing is left open.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { loadSqlite } from '../src/store/sqlite.ts';
import { readMetrics } from './http/metrics-text.ts';
import { chatBody, prepareDatabase } from './http/prepare.ts';
import { readEvents, request } from './http/wire.ts';
import { faults } from './simulators/faults.ts';
import { type LmStudioSimulator, startLmStudio } from './simulators/lmstudio.ts';
import type { LmStudioScript } from './simulators/lmstudio-house.ts';

const SqliteDatabase = await loadSqlite();

const clients = 48;
const sampleEveryMs = 1000;
/** Of the last minute's median against that of the second. */
const mostGrowth = 1.1;

/** What a client saw: its call's end, or that it did not stay for it. */
type Sight = 'answered' | 'failed' | 'left';

interface Visit {
  readonly stream: boolean;
  readonly progress: boolean;
  /** Leaves at this sight of the body, or after so many milliseconds. */
  readonly leaves?: number | ((body: string) => boolean);
}

const text = ['你', '好', ',', '世', '界', '!'];

const upstreamMoods: readonly LmStudioScript[] = [
  ...Array.from({ length: 24 }, () => ({})),
  { gapMs: 2 },
  { gapMs: 5, loadMs: 20 },
  faults.splitBytes(7),
  faults.chunks(200),
  faults.giantDelta(20_000),
  faults.status(400),
  faults.status(500),
  faults.status(503),
  faults.rateLimited('0'),
  faults.refuse(),
  faults.reset('after-text'),
  faults.cut('before-text'),
  faults.cut('after-text'),
  faults.endsEarly(),
  faults.garbage(),
  faults.errorFrame(),
  faults.emptyAnswer(),
  faults.html(200),
  faults.stall('headers', 60),
  faults.stall('headers'),
  faults.stall('after-text'),
];

const pick = <T>(from: readonly T[]): T => {
  const one = from[Math.floor(Math.random() * from.length)];
  if (one === undefined) throw new Error('nothing to pick from');
  return one;
};

function planVisit(): Visit {
  const stream = Math.random() < 0.7;
  const progress = stream && Math.random() < 0.3;
  const dice = Math.random();
  if (dice < 0.75) return { stream, progress };
  if (dice < 0.85) return { stream, progress, leaves: Math.random() * 80 };
  return { stream, progress, leaves: (body) => body.includes('"content":"') };
}

async function visit(port: number, id: string, plan: Visit): Promise<Sight> {
  const answer = request(port, '/api/llm/chat', {
    body: chatBody({
      stream: plan.stream,
      ...(plan.progress ? { stream_options: { include_progress: true } } : {}),
    }),
    headers: { 'x-request-id': id },
  });
  try {
    if (plan.leaves !== undefined) {
      const sign =
        typeof plan.leaves === 'number' ? sleep(plan.leaves) : answer.until(plan.leaves).catch(() => {});
      const first = await Promise.race([sign.then(() => 'sign'), answer.done]);
      if (first === 'sign') return 'left';
    }
    if ((await answer.done) === 'cut') throw new Error(`call ${id} was cut without an end`);
    const { status, headers } = await answer.head;
    if (headers['content-type']?.startsWith('text/event-stream') !== true) {
      return status === 200 ? 'answered' : 'failed';
    }
    const { terminal, done } = readEvents(answer.body);
    if (!done || terminal === undefined) throw new Error(`call ${id} has no end: ${answer.body.slice(-200)}`);
    return terminal.finish_reason === 'error' ? 'failed' : 'answered';
  } finally {
    answer.leave();
  }
}

/** The endings that fit a sight. Who leaves may do so when the call is over already, or before the gateway has heard of it. */
const fitting: Readonly<Record<Sight, readonly (string | undefined)[]>> = {
  answered: ['stop', 'length'],
  failed: ['error', 'timeout', 'rejected'],
  left: ['client_gone', 'stop', 'length', 'error', 'timeout', 'rejected', undefined],
};

interface Process {
  readonly url: string;
  readonly port: number;
  /** Sends SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

async function startProcess(file: string, studio: LmStudioSimulator): Promise<Process> {
  const root = fileURLToPath(new URL('../', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(root, 'src/main.ts')], {
    cwd: root,
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: '0',
      DATABASE_URL: `sqlite:${file}`,
      LMSTUDIO_BASE_URL: studio.url,
      UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '120',
      UPSTREAM_IDLE_TIMEOUT_MS: '120',
      UPSTREAM_TOTAL_TIMEOUT_MS: '5000',
      STREAM_COMMIT_MS: '50',
      HEARTBEAT_MS: '20',
      SHUTDOWN_GRACE_MS: '2000',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const address: unknown = JSON.parse(line).address;
      if (typeof address === 'string') resolve(address);
    });
    closed.then(() => reject(new Error('the gateway ended')), reject);
  });
  return {
    url,
    port: Number(new URL(url).port),
    async stop() {
      child.kill('SIGTERM');
      await closed;
      return child.exitCode;
    },
  };
}

async function readGauges(url: string): Promise<{ readonly resident: number; readonly descriptors: number }> {
  const samples = readMetrics(await (await fetch(`${url}/metrics`)).text());
  const value = (name: string): number => samples.find((sample) => sample.name === name)?.value ?? Number.NaN;
  return { resident: value('process_resident_memory_bytes'), descriptors: value('process_open_fds') };
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const mebibytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

function readEndings(file: string): Map<string, string[]> {
  const database = new SqliteDatabase(file, { readonly: true });
  try {
    const endings = new Map<string, string[]>();
    const rows = database.prepare<[], { request_id: string; ending: string }>(
      'SELECT request_id, ending FROM usage',
    );
    for (const { request_id, ending } of rows.iterate()) {
      const id = request_id.replace(/~.*$/, '');
      endings.set(id, [...(endings.get(id) ?? []), ending]);
    }
    return endings;
  } finally {
    database.close();
  }
}

/** What does not fit, one line each. */
function compare(
  sights: ReadonlyMap<string, Sight>,
  endings: ReadonlyMap<string, readonly string[]>,
): string[] {
  const wrong: string[] = [];
  for (const [id, sight] of sights) {
    const recorded = endings.get(id) ?? [];
    if (recorded.length > 1) wrong.push(`call ${id} has ${recorded.length} records`);
    else if (!fitting[sight].includes(recorded[0])) {
      wrong.push(`call ${id}: its client saw "${sight}", its record says "${recorded[0] ?? 'nothing'}"`);
    }
  }
  for (const id of endings.keys())
    if (!sights.has(id)) wrong.push(`a record of ${id}, which nobody asked for`);
  return wrong;
}

const tally = (words: Iterable<string>): string => {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${word} ${count}`).join(', ');
};

async function soak(minutes: number): Promise<string[]> {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-soak-'));
  const file = path.join(directory, 'gateway.db');
  const studios = await Promise.all([startLmStudio({ remember: 50 }), startLmStudio({ remember: 50 })]);
  await prepareDatabase(file, studios, {
    // Room for all, and a queue that now and then forms.
    providers: [
      { max_concurrency: 24, abort_grace_ms: 20 },
      { max_concurrency: 16, abort_grace_ms: 20 },
    ],
    routes: [
      { studio: 0, priority: 0 },
      { studio: 1, priority: 1 },
    ],
  });
  const gateway = await startProcess(file, studios[0]);
  const problems: string[] = [];
  try {
    // Connections of the very first calls stay open, to be used again: they are no leak.
    const before = await readGauges(gateway.url);
    const sights = new Map<string, Sight>();
    const memory = await run(minutes, gateway, studios, sights);
    problems.push(...judgeMemory(memory));

    await sleep(3000);
    const after = await readGauges(gateway.url);
    const idle = studios.reduce((sum, studio) => sum + studio.openConnections(), 0);
    console.log(
      `descriptors: ${before.descriptors} before, ${after.descriptors} after, ${idle} of them kept alive`,
    );
    if (after.descriptors > before.descriptors + idle + 5) problems.push('file descriptors are left open');
    for (const studio of studios) if (studio.running > 0) problems.push('an upstream is still asked');

    const code = await gateway.stop();
    if (code !== 0) problems.push(`the gateway ended with exit code ${String(code)}`);
    const endings = readEndings(file);
    console.log(`clients saw: ${tally(sights.values())}`);
    console.log(`records: ${tally([...endings.values()].flat())}`);
    problems.push(...compare(sights, endings));
  } finally {
    await gateway.stop();
    await Promise.all(studios.map((studio) => studio.close()));
    rmSync(directory, { recursive: true, force: true });
  }
  return problems;
}

/** Full speed until the time is over. Returns the resident bytes of each second, minute by minute. */
async function run(
  minutes: number,
  gateway: Process,
  studios: readonly LmStudioSimulator[],
  sights: Map<string, Sight>,
): Promise<readonly (readonly number[])[]> {
  const start = performance.now();
  const isOver = (): boolean => performance.now() - start >= minutes * 60_000;
  const memory: number[][] = Array.from({ length: Math.ceil(minutes) }, () => []);
  const client = async (): Promise<void> => {
    while (!isOver()) {
      for (const studio of studios) studio.always({ text, gapMs: 0, ...pick(upstreamMoods) });
      const id = randomUUID();
      sights.set(id, await visit(gateway.port, id, planVisit()));
    }
  };
  const watch = async (): Promise<void> => {
    let told = 0;
    while (!isOver()) {
      await sleep(sampleEveryMs);
      const minute = Math.min(memory.length - 1, Math.floor((performance.now() - start) / 60_000));
      memory[minute]?.push((await readGauges(gateway.url)).resident);
      if (minute === told && !isOver()) continue;
      console.log(
        `minute ${told + 1}: ${sights.size} calls so far, ${mebibytes(median(memory[told] ?? []))}`,
      );
      told = minute;
    }
  };
  await Promise.all([watch(), ...Array.from({ length: clients }, client)]);
  return memory;
}

function judgeMemory(memory: readonly (readonly number[])[]): string[] {
  const [, second = []] = memory;
  if (memory.length < 3) {
    console.log('memory is judged from three minutes on');
    return [];
  }
  const reference = median(second);
  const last = median(memory.at(-1) ?? []);
  const share = ((last / reference - 1) * 100).toFixed(1);
  console.log(
    `resident memory: ${mebibytes(reference)} in minute 2, ${mebibytes(last)} in the last (${share} %)`,
  );
  return last > reference * mostGrowth ? ['resident memory grew by more than 10 %'] : [];
}

const minutes = Number(process.argv[2] ?? 5);
if (!(minutes > 0)) throw new Error('usage: npm run soak [-- minutes]');
const problems = await soak(minutes);
for (const problem of problems.slice(0, 20)) console.error(problem);
if (problems.length > 20) console.error(`and ${problems.length - 20} more`);
console.log(problems.length === 0 ? 'all endings are accounted for' : `${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;
