/** The four limits on an upstream: what each counts, what none counts, and who sets them. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { findProvider, updateProvider } from '../../src/store/providers.ts';
import { faults } from '../simulators/faults.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { deafServer } from './deaf.ts';
import { type Stage, since, stage, startStage } from './stage.ts';
import { deferred, readEvents, request, type WireAnswer } from './wire.ts';

const connectMs = 150;
const firstMs = 250;
const idleMs = 150;
const totalMs = 700;
/** On a busy machine: timers count from when their turn of the loop began, and wait for the end of another. */
const earlyMs = 60;
const lateMs = 250;

const limits = {
  UPSTREAM_CONNECT_TIMEOUT_MS: String(connectMs),
  UPSTREAM_FIRST_EVENT_TIMEOUT_MS: String(firstMs),
  UPSTREAM_IDLE_TIMEOUT_MS: String(idleMs),
  UPSTREAM_TOTAL_TIMEOUT_MS: String(totalMs),
};

const timeoutEnvelope = { code: 504, message: '请求超时', data: null };
const timeoutChunk = {
  content: '',
  finish_reason: 'error',
  error: { code: 504, type: 'TIMEOUT', message: '请求超时' },
};

async function expectTimeout(answer: WireAnswer): Promise<void> {
  const { status, headers } = await answer.head;
  expect(await answer.done).toBe('complete');
  expect(status).toBe(504);
  expect(headers['x-error-code']).toBe('TIMEOUT');
  expect(JSON.parse(answer.body)).toEqual(timeoutEnvelope);
}

function expectAbout(milliseconds: number, expected: number): void {
  expect(milliseconds).toBeGreaterThan(expected - earlyMs);
  expect(milliseconds).toBeLessThan(expected + lateMs);
}

const role = 'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n';

describe('the limits of the configuration', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({ environment: limits });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  it.each<[string, LmStudioScript]>([
    ['no headers', faults.stall('start')],
    ['nothing after the headers', faults.stall('headers')],
    ['comments alone', faults.heartbeatsOnly('headers', 20)],
    ['events without a text', { raw: { pieces: Array.from({ length: 30 }, () => [role, 50]).flat() } }],
  ])('first event: 504 after %s', async (_name, script) => {
    scene.studio.always(script);
    const answer = scene.chat({ stream: true });
    const { receivedAt } = await scene.studio.waitForRequest();
    await expectTimeout(answer);
    expectAbout(since(receivedAt), firstMs);
  });

  it('first event: the upstream socket is closed and the call recorded', async () => {
    const id = randomUUID();
    scene.studio.next(faults.stall('headers'));
    const answer = scene.chat({ stream: true }, { 'x-request-id': id });
    await expectTimeout(answer);
    const upstream = await scene.studio.waitForAbort();
    await upstream.closed;
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'timeout', status: 504, attempts: 1 });
  });

  it.each<[string, LmStudioScript]>([
    ['silence', faults.stall('after-text')],
    ['comments', faults.heartbeatsOnly('after-text', 20)],
  ])('idle: the terminal chunk after %s', async (_name, script) => {
    const id = randomUUID();
    scene.studio.next({ ...script, text: ['你', '好'], gapMs: 0 });
    const answer = scene.chat({ stream: true }, { 'x-request-id': id });
    await answer.until((body) => body.includes('你'));
    const [at = 0] = answer.times;
    expect(await answer.done).toBe('complete');
    expectAbout(since(at), idleMs);
    const { text, terminal } = readEvents(answer.body);
    expect(text).toBe('你');
    expect(terminal).toEqual(timeoutChunk);
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'timeout', status: 200 });
  });

  it('idle: each event starts it anew', async () => {
    scene.studio.next({ text: Array.from({ length: 6 }, () => '你'), gapMs: idleMs / 2 });
    const answer = scene.chat({ stream: true });
    await answer.done;
    expect(readEvents(answer.body).terminal?.finish_reason).toBe('stop');
  });

  it('total: the terminal chunk of a stream that does not end', async () => {
    scene.studio.next({ text: Array.from({ length: 100 }, () => '你'), gapMs: 50 });
    const start = performance.now();
    const answer = scene.chat({ stream: true });
    await answer.done;
    expectAbout(since(start), totalMs);
    expect(readEvents(answer.body).terminal).toEqual(timeoutChunk);
  });

  it('total: 504 for a plain answer, which has neither of the other two', async () => {
    scene.studio.next(faults.stall('start'));
    const start = performance.now();
    await expectTimeout(scene.chat());
    expectAbout(since(start), totalMs);
  });

  it('total: a plain answer in the middle of its body', async () => {
    scene.studio.next(faults.stall('after-text'));
    await expectTimeout(scene.chat());
  });

  it('a plain answer may be silent for longer than first event and idle', async () => {
    scene.studio.next(faults.slowHeaders(firstMs + idleMs));
    const answer = scene.chat();
    expect((await answer.head).status).toBe(200);
    await answer.done;
  });
});

describe('the connect limit', () => {
  it.each([{ stream: true }, { stream: false }])('is a 504 (%o)', async (body) => {
    const scene = await stage({
      environment: { ...limits, UPSTREAM_CONNECT_TIMEOUT_MS: '300' },
      routes: [{ studio: 0 }],
      providers: [{ base_url: await deafServer() }],
    });
    const id = randomUUID();
    const start = performance.now();
    await expectTimeout(scene.chat(body, { 'x-request-id': id }));
    expectAbout(since(start), 300);
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'timeout', attempts: 1 });
  });

  it('leads to the next route', async () => {
    const scene = await stage({
      environment: limits,
      studios: [{}, {}],
      routes: [
        { studio: 0, priority: 0 },
        { studio: 1, priority: 1 },
      ],
      providers: [{ base_url: await deafServer() }],
    });
    // One that discovery knows to be down is asked last, but these routes differ in priority.
    const answer = scene.chat();
    const { headers } = await answer.head;
    await answer.done;
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '2' });
  });
});

describe('a plain call to a silent route', () => {
  const routes = [
    { studio: 0, priority: 0 },
    { studio: 1, priority: 1 },
  ];

  it('goes to the next one after the first-event limit', async () => {
    const scene = await stage({ environment: limits, studios: [{}, {}], routes });
    scene.studio.always(faults.stall('start'));
    const start = performance.now();
    const { status, headers } = await scene.chat().head;
    expectAbout(since(start), firstMs);
    expect(status).toBe(200);
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '2' });
  });

  it('goes to the next one for embeddings, too', async () => {
    const upstream = 'text-embedding-nomic-embed-text-v1.5';
    const scene = await stage({
      environment: limits,
      studios: [{}, {}],
      routes: routes.map((route) => ({ ...route, model: 'vectors', type: 1, upstream })),
    });
    scene.studio.always(faults.stall('start'));
    const answer = request(scene.port, '/api/llm/embeddings', { body: { model: 'vectors', input: '你好' } });
    const { status, headers } = await answer.head;
    expect([status, headers['x-gateway-provider']]).toEqual([200, 'lmstudio-2']);
  });

  it('stays where no other try is left', async () => {
    const scene = await stage({
      environment: { ...limits, UPSTREAM_MAX_RETRIES: '0' },
      studios: [{}, {}],
      routes,
    });
    scene.studio.always(faults.slowHeaders(firstMs + 100));
    const { headers } = await scene.chat().head;
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio', 'x-gateway-attempts': '1' });
  });

  it('stays once the head of its answer came', async () => {
    const scene = await stage({ environment: limits, studios: [{}, {}], routes });
    scene.studio.always(faults.stall('headers', firstMs + 100));
    const { headers } = await scene.chat().head;
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio', 'x-gateway-attempts': '1' });
  });
});

describe("a route's own total limit", () => {
  it.each([true, false])('ends its try and not the call (stream: %s)', async (stream) => {
    const scene = await stage({
      studios: [{}, {}],
      routes: [
        { studio: 0, priority: 0, total_timeout_ms: 150 },
        { studio: 1, priority: 1 },
      ],
    });
    scene.studio.always(faults.stall('headers'));
    const answer = scene.chat({ stream });
    const { status, headers } = await answer.head;
    await answer.done;
    expect(status).toBe(200);
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '2' });
  });
});

it('a limit of 0 is none', async () => {
  const scene = await stage({
    environment: {
      UPSTREAM_CONNECT_TIMEOUT_MS: '0',
      UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '0',
      UPSTREAM_IDLE_TIMEOUT_MS: '0',
      UPSTREAM_TOTAL_TIMEOUT_MS: '0',
    },
  });
  scene.studio.next({ hold: 100, ...faults.stall('after-text', 200), text: ['你', '好'], gapMs: 0 });
  const answer = scene.chat({ stream: true });
  await answer.done;
  expect(readEvents(answer.body).text).toBe('你好');
});

describe('who sets a limit', () => {
  it('the provider, over the configuration', async () => {
    const scene = await stage({ providers: [{ first_event_timeout_ms: 100 }] });
    scene.studio.next(faults.stall('headers'));
    await expectTimeout(scene.chat({ stream: true }));
  });

  it('the route, over its provider', async () => {
    const scene = await stage({
      providers: [{ first_event_timeout_ms: 0, idle_timeout_ms: 30, total_timeout_ms: 10 }],
      routes: [{ studio: 0, first_event_timeout_ms: 100, idle_timeout_ms: 0, total_timeout_ms: 0 }],
    });
    scene.studio.next(faults.stall('after-text', 100), faults.stall('headers'));
    const answer = scene.chat({ stream: true });
    await answer.done;
    expect(readEvents(answer.body).terminal?.finish_reason).toBe('stop');
    await expectTimeout(scene.chat({ stream: true }));
  });

  it('another process, while the server runs', async () => {
    const scene = await stage();
    const store = await openStore(scene.file);
    const row = await findProvider(store.db, 'lmstudio');
    await updateProvider(store.db, row?.id ?? 0, { total_timeout_ms: 60 });
    await store.close();
    await expect
      .poll(
        async () => {
          scene.studio.next(faults.slowHeaders(150));
          const answer = scene.chat();
          await answer.done;
          return (await answer.head).status;
        },
        { timeout: 2000, interval: 100 },
      )
      .toBe(504);
  });
});

describe('a model that loads', () => {
  const withProgress = { stream: true, stream_options: { include_progress: true } };

  it('may take longer than first event and idle', async () => {
    const scene = await stage({ environment: { ...limits, UPSTREAM_TOTAL_TIMEOUT_MS: '0' } });
    scene.studio.next({ loadMs: 4 * (firstMs + 50), text: ['你', '好'], gapMs: 0 });
    const answer = scene.chat(withProgress);
    await answer.done;
    const { text, terminal } = readEvents(answer.body);
    expect(terminal?.finish_reason).toBe('stop');
    expect(text).toBe('你好');
  });

  it('has the whole first-event limit for its text once it is loaded', async () => {
    const scene = await stage({
      environment: { ...limits, UPSTREAM_TOTAL_TIMEOUT_MS: '0', UPSTREAM_IDLE_TIMEOUT_MS: '0' },
    });
    scene.studio.next({ loadMs: firstMs, ...faults.stall('before-text') });
    const answer = scene.chat(withProgress);
    await answer.until((body) => body.includes('prompt_processing'));
    const loadedAt = answer.times.at(-1) ?? 0;
    await answer.done;
    expectAbout(since(loadedAt), firstMs);
    expect(readEvents(answer.body).terminal).toMatchObject(timeoutChunk);
  });
});

it('a reader that is slow does not use up the idle limit', async () => {
  const scene = await stage({ environment: { UPSTREAM_IDLE_TIMEOUT_MS: String(idleMs) } });
  const pieces = Array.from({ length: 160 }, (_, index) => `${index} `.padEnd(100_000, 'x'));
  scene.studio.next({ text: pieces, gapMs: 0 });
  const answer = scene.chat({ stream: true });
  await answer.until((body) => body !== '');
  answer.socket.pause();
  const slow = deferred();
  setTimeout(slow.resolve, 4 * idleMs);
  await slow.promise;
  expect(scene.studio.running).toBe(1);
  answer.socket.resume();
  await answer.done;
  const { deltas, terminal } = readEvents(answer.body);
  expect(terminal?.finish_reason).toBe('stop');
  expect(deltas).toEqual(pieces);
});
