/** Usage rows over real sockets: one per call whatever its end, on the disk in time, and traffic that outlives the database. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { UsageRow } from '../../src/store/schema.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { faults } from '../simulators/faults.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { chatBody, chatModel } from './prepare.ts';
import { spawnGateway } from './spawned.ts';
import { type Stage, stage, startStage } from './stage.ts';
import { request } from './wire.ts';

const SqliteDatabase = await loadSqlite();

const tools = [{ type: 'function', function: { name: 'now', parameters: { type: 'object' } } }];

describe('the usage row of a call', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({
      environment: {
        STREAM_COMMIT_MS: '100',
        UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '300',
        UPSTREAM_TOTAL_TIMEOUT_MS: '800',
        UPSTREAM_MAX_RETRIES: '0',
      },
    });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  interface End {
    readonly name: string;
    readonly ending: string;
    readonly status: number;
    readonly script?: LmStudioScript;
    readonly body?: Readonly<Record<string, unknown>>;
    readonly row?: Partial<UsageRow>;
  }
  const answered = { exact: 1, provider: 'lmstudio', upstream_model: chatModel, attempts: 1 } as const;
  const unknown = { exact: 0, input_tokens: null, output_tokens: null, attempts: 1 } as const;
  /** By what was sent and what came. */
  const estimated: Partial<UsageRow> = {
    exact: 0,
    input_tokens: expect.any(Number),
    output_tokens: expect.any(Number),
    attempts: 1,
  };
  const nothing = { exact: 1, input_tokens: 0, output_tokens: 0, attempts: 0, provider: null } as const;
  const usage = { input: 12, output: 7 };
  const counted = { ...answered, input_tokens: 12, output_tokens: 7 };

  const ends: readonly End[] = [
    { name: 'stop', ending: 'stop', status: 200, script: { usage }, row: counted },
    {
      name: 'stop, streamed',
      ending: 'stop',
      status: 200,
      script: { usage },
      body: { stream: true },
      row: counted,
    },
    {
      name: 'length',
      ending: 'length',
      status: 200,
      script: { finishReason: 'length', usage },
      row: counted,
    },
    {
      name: 'tool_calls',
      ending: 'tool_calls',
      status: 200,
      script: { toolCalls: [{ name: 'now', arguments: '{}' }], usage },
      body: { tools },
      row: counted,
    },
    {
      name: 'content_filter',
      ending: 'content_filter',
      status: 200,
      script: { finishReason: 'content_filter', usage },
      body: { stream: true },
      row: counted,
    },
    {
      name: 'an answer without counts',
      ending: 'stop',
      status: 200,
      script: faults.noUsage(),
      row: estimated,
    },
    { name: 'an upstream error', ending: 'error', status: 502, script: faults.status(503), row: unknown },
    {
      name: 'a stream that is cut',
      ending: 'error',
      status: 200,
      script: faults.cut(),
      body: { stream: true },
      row: estimated,
    },
    { name: 'silence', ending: 'timeout', status: 504, script: faults.stall('start'), row: unknown },
    {
      name: 'silence after the headers',
      ending: 'timeout',
      status: 200,
      script: faults.stall('headers'),
      body: { stream: true },
      row: unknown,
    },
    {
      name: 'an unknown model',
      ending: 'rejected',
      status: 400,
      body: { model: 'nobody' },
      row: { ...nothing, model: 'nobody' },
    },
    { name: 'a bad parameter', ending: 'rejected', status: 400, body: { temperature: 3 }, row: nothing },
    { name: 'no messages', ending: 'rejected', status: 400, body: { messages: [] }, row: nothing },
  ];

  it.each(ends)('of $name says $ending', async ({ ending, status, script, body, row }) => {
    if (script !== undefined) scene.studio.next(script);
    const requestId = randomUUID();
    const answer = scene.chat({ user: 'u1', ...body }, { 'x-request-id': requestId });
    expect((await answer.head).status).toBe(status);
    await answer.done;
    const found = await scene.usageOf(requestId);
    expect(found).toMatchObject({
      request_id: requestId,
      ending,
      status,
      endpoint: '/api/llm/chat',
      stream: body?.['stream'] === true ? 1 : 0,
      ...row,
    });
  });

  it('is written for a body that is no JSON', async () => {
    const answer = request(scene.port, '/api/llm/chat', {
      body: '{',
      headers: { 'x-request-id': 'no-json' },
    });
    await answer.done;
    expect(await scene.usageOf('no-json')).toMatchObject({ ending: 'rejected', status: 400, model: '' });
  });

  it('is written for a client that left, as 499 if nothing was answered', async () => {
    scene.studio.next(faults.stall('start'));
    const heard = vi.waitFor(() => expect(scene.studio.requests.some((one) => one.generation)).toBe(true));
    const answer = scene.chat({}, { 'x-request-id': 'gone' });
    await heard;
    answer.leave();
    expect(await scene.usageOf('gone')).toMatchObject({ ending: 'client_gone', status: 499, ...estimated });
  });

  it('is written for calls of the OpenAI API as well', async () => {
    const answer = request(scene.port, '/v1/chat/completions', {
      body: chatBody({ user: 'someone' }),
      headers: { 'x-request-id': 'openai' },
    });
    await answer.done;
    expect(await scene.usageOf('openai')).toMatchObject({
      endpoint: '/v1/chat/completions',
      ending: 'stop',
      user: 'someone',
    });
  });

  it('counts the tries and times the queue and the first token', async () => {
    scene.studio.next({ hold: 60, gapMs: 1 });
    const answer = scene.chat({ stream: true }, { 'x-request-id': 'timed' });
    await answer.done;
    const row = await scene.usageOf('timed');
    expect(row.first_token_ms).toBeGreaterThanOrEqual(50);
    expect(row.duration_ms).toBeGreaterThanOrEqual(row.first_token_ms ?? 0);
    expect(row.queued_ms).toBe(0);
  });

  it('holds no word of the prompt or the answer', async () => {
    scene.studio.next({ text: 'sesame-answer' });
    await scene.chat({ messages: [{ role: 'user', content: 'sesame-prompt' }] }).done;
    await vi.waitFor(() => expect(JSON.stringify(scene.usage())).toContain('stop'));
    expect(JSON.stringify(scene.usage())).not.toContain('sesame');
  });
});

it('a call that the shutdown ended is recorded as shutdown', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'usage-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const studio = await startLmStudio();
  onTestFinished(() => studio.close());
  const file = path.join(directory, 'gateway.db');
  const gateway = await spawnGateway({
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: studio.url,
    SHUTDOWN_GRACE_MS: '50',
  });
  studio.next(faults.stall('after-text'));
  const answer = request(gateway.port, '/api/llm/chat', { body: chatBody({ stream: true }) });
  await answer.until((body) => body.includes('data: '));
  await gateway.end('SIGTERM');
  const database = new SqliteDatabase(file, { readonly: true });
  expect(database.prepare('SELECT ending, exact FROM usage').all()).toEqual([
    { ending: 'shutdown', exact: 0 },
  ]);
  database.close();
});

it('kill -9 loses no row that is older than 500 ms, doubles none, and leaves a database that opens', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'usage-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const studio = await startLmStudio();
  onTestFinished(() => studio.close());
  const file = path.join(directory, 'gateway.db');
  const gateway = await spawnGateway({ DATABASE_URL: `sqlite:${file}`, LMSTUDIO_BASE_URL: studio.url });
  const ended: { readonly id: string; readonly at: number }[] = [];
  let killed = false;
  const client = async (name: number): Promise<void> => {
    for (let count = 0; !killed; count += 1) {
      const id = `kill-${name}-${count}`;
      const answer = request(gateway.port, '/api/llm/chat', {
        body: chatBody(),
        headers: { 'x-request-id': id, connection: 'close' },
      });
      if ((await answer.done.catch(() => 'cut')) !== 'complete') return;
      ended.push({ id, at: performance.now() });
    }
  };
  const clients = [0, 1, 2, 3].map((name) => client(name));
  await vi.waitFor(() => {
    const first = ended[0];
    expect(first !== undefined && performance.now() - first.at > 1500).toBe(true);
  }, 10_000);
  const killedAt = performance.now();
  await gateway.end('SIGKILL');
  killed = true;
  await Promise.all(clients);
  const database = new SqliteDatabase(file);
  onTestFinished(() => void database.close());
  expect(database.pragma('integrity_check', { simple: true })).toBe('ok');
  const ids = database.prepare<[], { request_id: string }>('SELECT request_id FROM usage').all();
  const written = new Set(ids.map((row) => row.request_id));
  expect(written.size).toBe(ids.length);
  const old = ended.filter(({ at }) => killedAt - at > 500);
  expect(old.length).toBeGreaterThan(10);
  expect(old.filter(({ id }) => !written.has(id))).toEqual([]);
});

describe('a broken database', () => {
  const readiness = async (scene: Stage): Promise<unknown> => (await fetch(`${scene.url}/readyz`)).json();

  it('that is locked does not hold up traffic, and loses no row', async () => {
    const scene = await stage();
    const other = new SqliteDatabase(scene.file);
    onTestFinished(() => void other.close());
    other.exec('BEGIN IMMEDIATE');
    const startedAt = performance.now();
    await scene.chat({}, { 'x-request-id': 'locked-1' }).done;
    await vi.waitFor(async () => expect(await readiness(scene)).toMatchObject({ status: 'degraded' }), 5000);
    const askedAt = performance.now();
    await scene.chat({}, { 'x-request-id': 'locked-2' }).done;
    expect(performance.now() - askedAt).toBeLessThan(1000);
    expect(performance.now() - startedAt).toBeGreaterThan(900);
    other.exec('COMMIT');
    await scene.usageOf('locked-1');
    await scene.usageOf('locked-2');
    expect(await readiness(scene)).toMatchObject({ status: 'ok', database: 'ok' });
  });

  it('whose file is gone is degraded, serves on, and gets its rows when the file is back', async () => {
    const scene = await stage();
    renameSync(scene.file, `${scene.file}.away`);
    await vi.waitFor(async () => expect(await readiness(scene)).toMatchObject({ status: 'degraded' }), 5000);
    const answer = scene.chat({}, { 'x-request-id': 'away' });
    expect((await answer.head).status).toBe(200);
    await answer.done;
    const metrics = await (await fetch(`${scene.url}/metrics`)).text();
    expect(metrics).toContain('gateway_database_up 0');
    renameSync(`${scene.file}.away`, scene.file);
    expect(await scene.usageOf('away')).toMatchObject({ ending: 'stop' });
    await vi.waitFor(async () => expect(await readiness(scene)).toMatchObject({ status: 'ok' }), 5000);
  });
});
