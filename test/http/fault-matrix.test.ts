/**
 * Every fault of the simulated upstream, at every place, on both wires, streamed and not: what the client gets, how soon, how
 * often the upstream was asked, and what is left behind. The outcomes are docs/faults.md; `npm run faults` writes it anew.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioSimulator } from '../simulators/lmstudio.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import type { PreparedRoute } from './prepare.ts';
import { type Stage, since, startStage } from './stage.ts';
import { readEvents, request } from './wire.ts';

const page = new URL('../../docs/faults.md', import.meta.url);

interface Row {
  readonly fault: string;
  readonly where: string;
  readonly script: LmStudioScript;
  /** So much work for this process, which plays all parts, that limits of parts of a second cannot be kept beside it. */
  readonly heavy: boolean;
}

const row = (fault: string, where: string, script: LmStudioScript, heavy = false): Row => ({
  fault,
  where,
  script,
  heavy,
});

const before = 'before the first text';
const after = 'after the first text';
const end = 'at the end';
const throughout = 'throughout';
const instead = 'instead of an answer';

const mebibyte = 1024 * 1024;

const rows: readonly Row[] = [
  row('closed connection', 'before the headers', faults.refuse()),
  row('reset connection', 'before the headers', faults.reset('start')),
  row('closed connection', before, faults.cut('before-text')),
  row('closed connection', after, faults.cut('after-text')),
  row('closed connection', 'before the finish', faults.cut('before-finish')),
  row('closed connection', end, faults.cut('before-last')),
  row('reset connection', before, faults.reset('before-text')),
  row('reset connection', after, faults.reset('after-text')),
  row('reset connection', end, faults.reset('before-last')),
  row('end without a word', before, faults.endsEarly('before-text')),
  row('end without a word', after, faults.endsEarly('after-text')),
  row('end without a word', 'before the finish', faults.endsEarly('before-finish')),
  row('end without a word', end, faults.endsEarly('before-last')),
  row('silence', 'before the headers', faults.stall('start')),
  row('silence', before, faults.stall('headers')),
  row('silence', after, faults.stall('after-text')),
  row('silence', end, faults.stall('before-last')),
  row('open connection', 'after the end', faults.stall('end')),
  row('slow headers', 'before the headers', faults.slowHeaders(50)),
  row('nothing but comments', before, faults.heartbeatsOnly('headers', 20)),
  row('nothing but comments', after, faults.heartbeatsOnly('after-text', 20)),
  row('one byte a write', throughout, faults.splitBytes(1), true),
  row('everything in one write', throughout, faults.manyPerWrite()),
  row('CRLF', throughout, faults.crlf()),
  row('byte order mark', 'at the start', faults.bom()),
  row('event that is not JSON', before, faults.garbage('before-text')),
  row('event that is not JSON', after, faults.garbage('after-text')),
  row('line of 17 MiB', before, faults.endlessLine(17 * mebibyte, 'before-text'), true),
  row('line of 17 MiB', after, faults.endlessLine(17 * mebibyte, 'after-text'), true),
  row('delta of 300 KB', throughout, faults.giantDelta(100_000), true),
  row('200 chunks', throughout, faults.chunks(200), true),
  row('HTML with 200', instead, faults.html(200)),
  row('HTML with 502', instead, faults.html(502)),
  ...[400, 401, 403, 404, 408, 413, 422, 500, 502, 503, 504].map((status) =>
    row(`status ${status}`, instead, faults.status(status)),
  ),
  row('status 429, retry after 0 s', instead, faults.rateLimited('0')),
  row('status 429, retry after 60 s', instead, faults.rateLimited('60')),
  row('error with 200 (text)', instead, faults.errorIn200('The model has crashed.')),
  row('error with 200 (object)', instead, faults.errorIn200('The model has crashed.', 'object')),
  row('error event', before, faults.errorFrame({ at: 'before-text' })),
  row('error event', after, faults.errorFrame()),
  row('error event', 'before the finish', faults.errorFrame({ at: 'before-finish' })),
  row('error event of text', after, faults.errorFrame({ shape: 'string', named: true })),
  row('error event, nothing behind it', after, faults.errorFrame({ closing: false })),
  row('answer of nothing', instead, faults.emptyAnswer()),
  row('answer without any delta', instead, faults.noDelta()),
  row('answer without choices', instead, faults.noChoices()),
  row('answer of another model', throughout, faults.anotherModel('some-other-model')),
  row('no usage', end, faults.noUsage()),
  row('no finish reason', end, faults.noFinish()),
  ...['modelUnloaded', 'failed', 'userStopped', 'contextLengthReached', 'maxPredictedTokensReached'].map(
    (word) => row(`stop reason ${word}`, end, faults.stopped(word)),
  ),
  row('finish beside the last text', end, faults.finishWithText()),
];

const limitMs = 400;
const totalMs = 900;
/** All limits, a wait between two tries, and what a busy machine takes. */
const longestMs = 10_000;

const columns = [
  { name: 'v0, streamed', api: 'v0', stream: true },
  { name: 'v0, plain', api: 'v0', stream: false },
  { name: 'v1, streamed', api: 'v1', stream: true },
  { name: 'v1, plain', api: 'v1', stream: false },
] as const;

/** Rows that are played at once, each on LM Studios of its own; one more set for the heavy ones has no limits. */
const sets = 5;
const heavySet = sets;

const studioOf = (set: number, column: number): number => set * columns.length + column;
const titleOf = (studio: number): string => `lane-${studio}`;

let scene: Stage;
const freeSets = Array.from({ length: sets }, (_, index) => index);
const outcomes = new Map<Row, readonly string[]>();

beforeAll(async () => {
  const lanes = Array.from({ length: (sets + 1) * columns.length }, (_, studio) => studio);
  const unlimited = { first_event_timeout_ms: 0, idle_timeout_ms: 0, total_timeout_ms: 0 };
  const routes: PreparedRoute[] = lanes.map((studio) => ({
    studio,
    model: titleOf(studio),
    api: columns[studio % columns.length]?.api ?? 'auto',
    ...(studio < studioOf(heavySet, 0) ? {} : unlimited),
  }));
  scene = await startStage({
    environment: {
      UPSTREAM_MAX_RETRIES: '1',
      UPSTREAM_FIRST_EVENT_TIMEOUT_MS: String(limitMs),
      UPSTREAM_IDLE_TIMEOUT_MS: String(limitMs),
      UPSTREAM_TOTAL_TIMEOUT_MS: String(totalMs),
    },
    studios: lanes.map(() => ({})),
    providers: lanes.map(() => ({ abort_grace_ms: 0 })),
    routes,
  });
});

afterAll(async () => {
  await scene.close();
  if (outcomes.size < rows.length) return;
  const text = document();
  // vitest's --mode
  if (process.env['MODE'] === 'faults') writeFileSync(page, text);
  else expect(readFileSync(page, 'utf8')).toBe(text);
});

const displayed = /^(?:参数值超出有效范围:)?LM Studio返回错误:/;

function shown(status: unknown, message: unknown): string {
  const words = String(message)
    .replace(displayed, '')
    .replace(/\(lmstudio-\d+\)$/, '(lmstudio)');
  return `${String(status)}: ${words}`;
}

/** What a client makes of a streamed answer, in a few words. */
function tellStream(body: string): string {
  const { text, terminal, done } = readEvents(body);
  expect(done).toBe(true);
  if (terminal === undefined) throw new Error('a stream without an end');
  const said = text === '' ? '' : 'text, ';
  if (terminal.finish_reason !== 'error') return said + String(terminal.finish_reason);
  const { code, message } = JSON.parse(JSON.stringify(terminal['error']));
  return `${said}then error ${shown(code, message)}`;
}

function tellPlain(body: string): string {
  const { code, message, data } = JSON.parse(body);
  if (code !== 200) return `HTTP ${shown(code, message)}`;
  return `${data.content === '' ? '' : 'text, '}${data.finish_reason}`;
}

async function play(script: LmStudioScript, stream: boolean, studio: number): Promise<string> {
  const upstream: LmStudioSimulator | undefined = scene.studios[studio];
  if (upstream === undefined) throw new Error(`no LM Studio ${studio}`);
  upstream.reset();
  upstream.always({ text: ['你', '好'], gapMs: 0, ...script });
  const id = randomUUID();
  const start = performance.now();
  const answer = request(scene.port, '/api/llm/chat', {
    body: { model: titleOf(studio), messages: [{ role: 'user', content: '你好' }], stream },
    headers: { 'x-request-id': id },
  });
  const { status, headers } = await answer.head;
  expect(await answer.done).toBe('complete');
  expect(since(start)).toBeLessThan(longestMs);
  answer.leave();
  const streamed = headers['content-type']?.startsWith('text/event-stream') === true;
  const told = streamed ? tellStream(answer.body) : tellPlain(answer.body);
  const asked = upstream.requests.filter((one) => one.generation);
  // Nothing that was begun there goes on.
  await vi.waitFor(() => expect(upstream.running).toBe(0), { timeout: 2000, interval: 20 });
  const record = await scene.usageOf(id);
  expect(record).toMatchObject({ status, attempts: asked.length, stream: stream ? 1 : 0 });
  return `${told} (${asked.length === 1 ? '1 call' : `${asked.length} calls`}, ${record.ending})`;
}

async function playRow(entry: Row, set: number): Promise<void> {
  const told = await Promise.all(
    columns.map(({ stream }, column) => play(entry.script, stream, studioOf(set, column))),
  );
  outcomes.set(entry, told);
}

describe('a fault has one clear ending in each cell', () => {
  it.concurrent.each(rows.filter(({ heavy }) => !heavy))('$fault, $where', async (entry) => {
    const set = freeSets.pop();
    if (set === undefined) throw new Error('more rows at once than LM Studios for them');
    try {
      await playRow(entry, set);
    } finally {
      freeSets.push(set);
    }
  });
});

describe('so has one that is much work', () => {
  it.each(rows.filter(({ heavy }) => heavy))('$fault, $where', (entry) => playRow(entry, heavySet));
});

function document(): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const table = [
    line(['fault', 'where', ...columns.map(({ name }) => name)]),
    line(Array.from({ length: columns.length + 2 }, () => '---')),
    ...rows.map((entry) => line([entry.fault, entry.where, ...(outcomes.get(entry) ?? [])])),
  ];
  return `# What becomes of each fault

Generated by \`npm run faults\` from a test that plays every fault of the simulated LM Studio against the gateway; \`npm test\`
compares. One try may follow the first here (UPSTREAM_MAX_RETRIES=1), on one route alone, so a fault that is always there and may
be tried again shows two calls.

A cell tells what the client gets, how often the upstream was asked, and the ending in the usage log. \`HTTP 502: …\` is an
answer with that status and message; \`then error 502: …\` is the terminal chunk of a stream whose headers had left. The
upstream's own words stand there as the client sees them, without the provider's name in front.

${table.join('\n')}
`;
}
