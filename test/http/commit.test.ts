/** When a stream's headers leave, what keeps it alive, and what may still change behind them. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { type Stage, since, stage, startStage } from './stage.ts';
import { deferred, heartbeat, readEvents } from './wire.ts';

const commitMs = 60;
const heartbeatMs = 40;

const early = { provider: 'lmstudio', model: 'qwen2.5-7b-instruct', attempts: 1, ignored: [] };

describe('an upstream that is slow to begin', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({
      environment: { STREAM_COMMIT_MS: String(commitMs), HEARTBEAT_MS: String(heartbeatMs) },
    });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  it('keeps the headers back until STREAM_COMMIT_MS, and a heartbeat goes with them', async () => {
    const start = performance.now();
    const text = deferred();
    scene.studio.next(faults.stall('headers', text.promise));
    const answer = scene.chat({ stream: true });
    const { at } = await answer.head;
    expect(at - start).toBeGreaterThanOrEqual(commitMs - 2);
    await answer.until((body) => body !== '');
    expect(answer.body).toBe('data: {"content":"","finish_reason":null}\n\n');
    expect(since(at)).toBeLessThan(heartbeatMs);
    text.resolve();
    await answer.done;
  });

  it('lets the terminal chunk name the route that the headers could not', async () => {
    const text = deferred();
    scene.studio.next(faults.stall('headers', text.promise));
    const answer = scene.chat({ stream: true });
    const { status, headers } = await answer.head;
    text.resolve();
    await answer.done;
    expect(status).toBe(200);
    expect(headers).toMatchObject({ 'x-gateway-requested-model': 'qwen2.5-7b-instruct' });
    for (const name of ['x-gateway-provider', 'x-gateway-model', 'x-gateway-attempts']) {
      expect(headers).not.toHaveProperty(name);
    }
    expect(readEvents(answer.body).terminal).toMatchObject({ finish_reason: 'stop', route: early });
  });

  it('goes on with a heartbeat for every HEARTBEAT_MS of silence, also between deltas', async () => {
    const rest = deferred();
    scene.studio.next({ ...faults.stall('after-text', rest.promise), text: ['你', '好'], gapMs: 0 });
    const answer = scene.chat({ stream: true });
    await answer.until((body) => body.split(heartbeat).length === 4);
    const { deltas, heartbeats } = readEvents(answer.body, { partial: true });
    expect({ deltas, heartbeats }).toEqual({ deltas: ['你'], heartbeats: 3 });
    const beats = answer.times.slice(1).map((at, index) => at - (answer.times[index] ?? 0));
    for (const silence of beats) expect(silence).toBeGreaterThanOrEqual(heartbeatMs - 2);
    rest.resolve();
    await answer.done;
  });

  it('does not name the route in the terminal chunk where the headers did', async () => {
    const answer = scene.chat({ stream: true });
    expect((await answer.head).headers).toMatchObject({ 'x-gateway-provider': 'lmstudio' });
    await answer.done;
    const { terminal, heartbeats } = readEvents(answer.body);
    expect(terminal).not.toHaveProperty('route');
    expect(heartbeats).toBe(0);
  });

  it('may still be tried again after the headers', async () => {
    const failure = deferred();
    scene.studio.next({ hold: failure.promise, ...faults.refuse() }, { text: ['你', '好'], gapMs: 0 });
    const answer = scene.chat({ stream: true });
    await answer.head;
    failure.resolve();
    await answer.done;
    const { text, terminal } = readEvents(answer.body);
    expect(text).toBe('你好');
    expect(terminal).toMatchObject({ finish_reason: 'stop', route: { ...early, attempts: 2 } });
  });

  it('ends in the terminal chunk when it fails after the headers, with the route that failed', async () => {
    const failure = deferred();
    scene.studio.next({ hold: failure.promise, ...faults.status(400) });
    const answer = scene.chat({ stream: true });
    await answer.head;
    failure.resolve();
    await answer.done;
    expect(readEvents(answer.body).terminal).toEqual({
      content: '',
      finish_reason: 'error',
      error: {
        code: 400,
        type: 'INVALID_PARAMS',
        message: '参数值超出有效范围:LM Studio返回错误:Bad request',
      },
      route: early,
    });
  });

  it('is an ordinary HTTP error when it fails before the headers', async () => {
    scene.studio.next(faults.status(400));
    const answer = scene.chat({ stream: true });
    expect((await answer.head).status).toBe(400);
    await answer.done;
  });

  it('never holds back a plain answer', async () => {
    const text = deferred();
    scene.studio.next(faults.slowHeaders(text.promise));
    const answer = scene.chat();
    await scene.studio.waitForRequest();
    await new Promise((resolve) => setTimeout(resolve, commitMs + heartbeatMs));
    expect(answer.socket.bytesRead).toBe(0);
    text.resolve();
    expect((await answer.head).status).toBe(200);
    await answer.done;
  });
});

it('gives the answer of another route when the first fails after the headers', async () => {
  const scene = await stage({
    environment: { STREAM_COMMIT_MS: '30' },
    studios: [{}, {}],
    routes: [
      { studio: 0, priority: 0 },
      { studio: 1, priority: 1 },
    ],
  });
  const failure = deferred();
  scene.studio.next({ hold: failure.promise, ...faults.status(503) });
  const answer = scene.chat({ stream: true });
  await answer.head;
  failure.resolve();
  await answer.done;
  expect(readEvents(answer.body).terminal).toMatchObject({
    finish_reason: 'stop',
    route: { ...early, provider: 'lmstudio-2', attempts: 2 },
  });
});

it('lets the first progress chunk send the headers', async () => {
  const scene = await stage();
  const text = deferred();
  scene.studio.next({ loadMs: 20, ...faults.stall('before-text', text.promise) });
  const answer = scene.chat({ stream: true, stream_options: { include_progress: true } });
  const { headers } = await answer.head;
  expect(headers).not.toHaveProperty('x-gateway-provider');
  await answer.until((body) => body.includes('prompt_processing'));
  text.resolve();
  await answer.done;
  const { chunks, terminal } = readEvents(answer.body);
  const [first] = chunks;
  expect(first).toEqual({ content: '', finish_reason: null, progress: { stage: 'model_load', value: 0 } });
  expect(terminal).toMatchObject({ finish_reason: 'stop', route: early });
});

it('shows no progress to who did not ask for it', async () => {
  const scene = await stage();
  scene.studio.next({ loadMs: 20 });
  const answer = scene.chat({ stream: true, store: true });
  expect((await answer.head).headers).toHaveProperty('x-gateway-provider');
  await answer.done;
  expect(answer.body).not.toContain('progress');
});

it('keeps the headers back for as long as it takes where STREAM_COMMIT_MS is 0', async () => {
  const scene = await stage({ environment: { STREAM_COMMIT_MS: '0', HEARTBEAT_MS: '10' } });
  const text = deferred();
  scene.studio.next(faults.stall('headers', text.promise));
  const answer = scene.chat({ stream: true });
  await scene.studio.waitForRequest();
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(answer.socket.bytesRead).toBe(0);
  text.resolve();
  expect((await answer.head).headers).toHaveProperty('x-gateway-provider');
  await answer.done;
});

it('writes no heartbeats where HEARTBEAT_MS is 0, not even with early headers', async () => {
  const scene = await stage({ environment: { STREAM_COMMIT_MS: '20', HEARTBEAT_MS: '0' } });
  scene.studio.next({ ...faults.stall('after-text', 100), hold: new Promise((go) => setTimeout(go, 100)) });
  const answer = scene.chat({ stream: true });
  expect((await answer.head).headers).not.toHaveProperty('x-gateway-provider');
  await answer.done;
  expect(readEvents(answer.body).heartbeats).toBe(0);
});
