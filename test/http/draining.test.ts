/** How the process ends: who is told what, who may finish, and what is left on the disk. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { UsageRow } from '../../src/store/schema.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { faults } from '../simulators/faults.ts';
import { type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { ask } from './ask.ts';
import { chatBody, prepareDatabase } from './prepare.ts';
import { type SpawnedGateway, spawnGateway } from './spawned.ts';
import { since } from './stage.ts';
import { deferred, readEvents, type WireAnswer } from './wire.ts';

const SqliteDatabase = await loadSqlite();

interface Scene extends SpawnedGateway {
  readonly studio: LmStudioSimulator;
  chat(body?: Readonly<Record<string, unknown>>, id?: string): WireAnswer;
  /** After the process's end. */
  usageOf(id: string): UsageRow | undefined;
}

async function start(graceMs: number, maxConcurrency = 0): Promise<Scene> {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-'));
  const file = path.join(directory, 'gateway.db');
  const studio = await startLmStudio();
  onTestFinished(async () => {
    await studio.close();
    rmSync(directory, { recursive: true, force: true });
  });
  await prepareDatabase(file, [studio], { providers: [{ max_concurrency: maxConcurrency }] });
  const gateway = await spawnGateway({
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: studio.url,
    SHUTDOWN_GRACE_MS: String(graceMs),
  });
  return {
    ...gateway,
    studio,
    chat: (body = {}, id = randomUUID()) =>
      ask(gateway.port, '/api/llm/chat', { body: chatBody(body), headers: { 'x-request-id': id } }),
    usageOf(id) {
      const database = new SqliteDatabase(file, { readonly: true });
      try {
        return database.prepare<[string], UsageRow>('SELECT * FROM usage WHERE request_id = ?').get(id);
      } finally {
        database.close();
      }
    },
  };
}

/** Asks until the answer is that of a process which drains: the signal takes a moment to arrive. */
async function untilDraining(scene: Scene): Promise<WireAnswer> {
  for (;;) {
    const answer = ask(scene.port, '/readyz', { method: 'GET' });
    await answer.done;
    if (answer.body.includes('"draining"')) return answer;
  }
}

const longGraceMs = 30_000;

describe.each(['SIGTERM', 'SIGINT'] as const)('%s', (signal) => {
  it('turns readiness off, refuses what is new, lets what runs finish, and exits with 0', async () => {
    const scene = await start(longGraceMs);
    const rest = deferred();
    scene.studio.always({ ...faults.stall('after-text', rest.promise), text: ['你', '好'], gapMs: 0 });
    const id = randomUUID();
    const streamed = scene.chat({ stream: true }, id);
    await streamed.until((body) => body.includes('你'));
    const plain = scene.chat();
    await scene.studio.waitForRequest((one) => one.text.includes('"stream":false'));

    scene.kill(signal);
    const ready = await untilDraining(scene);
    expect((await ready.head).status).toBe(503);
    const refused = scene.chat({ stream: true });
    const { status, headers } = await refused.head;
    await refused.done;
    expect(status).toBe(503);
    expect(headers).toMatchObject({ 'x-error-code': 'SHUTTING_DOWN', connection: 'close' });
    expect(Number(headers['retry-after'])).toBeGreaterThan(0);
    expect(JSON.parse(refused.body)).toEqual({ code: 503, message: '服务正在关闭', data: null });

    rest.resolve();
    expect(await streamed.done).toBe('complete');
    expect(readEvents(streamed.body)).toMatchObject({ text: '你好', terminal: { finish_reason: 'stop' } });
    await plain.done;
    expect(JSON.parse(plain.body)).toMatchObject({ code: 200, data: { content: '你好' } });
    expect(await scene.exit).toBe(0);
    expect(scene.usageOf(id)).toMatchObject({ ending: 'stop' });
  });
});

it('what outlives the grace is told so, the upstream is left, records are written, and the exit code is 0', async () => {
  const scene = await start(150, 3);
  const ids = { streamed: randomUUID(), silent: randomUUID(), plain: randomUUID() };
  scene.studio.always({ ...faults.stall('after-text'), text: ['你', '好'], gapMs: 0 });
  const streamed = scene.chat({ stream: true }, ids.streamed);
  await streamed.until((body) => body.includes('你'));
  scene.studio.always(faults.stall('start'));
  const silent = scene.chat({ stream: true }, ids.silent);
  const plain = scene.chat({}, ids.plain);
  await scene.studio.waitForRequest((one) => one.text.includes('"stream":false'));
  const running = scene.studio.requests.filter((one) => one.generation);

  const asked = performance.now();
  expect(await scene.end('SIGTERM')).toBe(0);
  expect(since(asked)).toBeLessThan(3000);
  expect(await streamed.done).toBe('complete');
  expect(readEvents(streamed.body)).toMatchObject({
    text: '你',
    done: true,
    terminal: {
      finish_reason: 'error',
      error: { code: 503, type: 'SHUTTING_DOWN', message: '服务正在关闭' },
    },
  });
  for (const answer of [silent, plain]) {
    expect((await answer.head).status).toBe(503);
    expect(JSON.parse(answer.body)).toEqual({ code: 503, message: '服务正在关闭', data: null });
  }
  await Promise.all(running.map((one) => one.closed));
  expect(running.map((one) => one.aborted)).toEqual(running.map(() => true));
  for (const id of Object.values(ids)) expect(scene.usageOf(id)).toMatchObject({ ending: 'shutdown' });
});

it('what waits for its next try when the grace is over is recorded, too', async () => {
  const scene = await start(150);
  scene.studio.always(faults.status(503, { 'retry-after': '9', connection: 'close' }));
  const id = randomUUID();
  const answer = scene.chat({}, id);
  await scene.studio.waitForRequest((one) => one.generation);

  expect(await scene.end('SIGTERM')).toBe(0);
  expect((await answer.head).status).toBe(503);
  expect(scene.usageOf(id)).toMatchObject({ ending: 'shutdown', attempts: 1 });
});

it('what waits in a queue is refused at once with a 503', async () => {
  const scene = await start(longGraceMs, 1);
  const rest = deferred();
  scene.studio.next({ ...faults.stall('after-text', rest.promise), text: ['你', '好'], gapMs: 0 });
  const running = scene.chat({ stream: true });
  await running.until((body) => body.includes('你'));
  const waiting = scene.chat({ stream: true });
  const shown = scene.chat({ stream: true, stream_options: { include_progress: true } });
  await shown.until((body) => body.includes('"position":'));
  scene.kill('SIGTERM');
  await waiting.done;
  expect((await waiting.head).status).toBe(503);
  await shown.done;
  expect(readEvents(shown.body).terminal).toMatchObject({ error: { code: 503, type: 'SHUTTING_DOWN' } });
  rest.resolve();
  await running.done;
  expect(readEvents(running.body).text).toBe('你好');
  expect(await scene.exit).toBe(0);
});

it('connections that are only kept alive do not hold up the end', async () => {
  const scene = await start(longGraceMs);
  const agent = new Agent({ keepAlive: true });
  onTestFinished(() => agent.destroy());
  await Promise.all(
    Array.from(
      { length: 5 },
      () =>
        new Promise<void>((resolve, reject) => {
          get(`${scene.url}/healthz`, { agent }, (response) => {
            response.resume().on('end', resolve);
          }).on('error', reject);
        }),
    ),
  );
  const asked = performance.now();
  expect(await scene.end('SIGTERM')).toBe(0);
  expect(since(asked)).toBeLessThan(3000);
});

it('a second signal ends it at once', async () => {
  const scene = await start(longGraceMs);
  scene.studio.always({ ...faults.stall('after-text'), text: ['你', '好'], gapMs: 0 });
  const streamed = scene.chat({ stream: true });
  await streamed.until((body) => body.includes('你'));
  scene.kill('SIGTERM');
  await untilDraining(scene);
  const again = performance.now();
  scene.kill('SIGTERM');
  await scene.exit;
  expect(since(again)).toBeLessThan(2000);
  expect(await streamed.done).toBe('cut');
});

it('kill -9 under load leaves a database that opens and is whole', async () => {
  const scene = await start(longGraceMs);
  scene.studio.always({ text: ['你', '好'], gapMs: 0 });
  const first = randomUUID();
  await scene.chat({}, first).done;
  for (let round = 0; round < 40; round += 1) {
    await Promise.all(Array.from({ length: 10 }, () => scene.chat({ stream: round % 2 === 0 }).done));
  }
  await scene.end('SIGKILL');
  const row = scene.usageOf(first);
  expect(row).toMatchObject({ ending: 'stop' });
  const again = await spawnGateway({
    DATABASE_URL: `sqlite:${String(scene.log.find((line) => 'database' in line)?.['database'])}`,
    LMSTUDIO_BASE_URL: scene.studio.url,
  });
  const ready = ask(again.port, '/readyz', { method: 'GET' });
  await ready.done;
  expect(JSON.parse(ready.body)).toMatchObject({ status: 'ok', database: 'ok' });
});
