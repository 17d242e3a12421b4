/** Which failures are followed by another try, where and when; and what the client is told in the end. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioSimulator } from '../simulators/lmstudio.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { ask } from './ask.ts';
import { chatModel } from './prepare.ts';
import { type Stage, since, stage, startStage } from './stage.ts';
import { readEvents } from './wire.ts';

const calls = (studio: LmStudioSimulator): number => studio.requests.filter((one) => one.generation).length;

const good: LmStudioScript = { text: ['你', '好'], gapMs: 0 };

describe('one route', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage();
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  const passing: readonly [string, LmStudioScript][] = [
    ['408', faults.status(408)],
    ['429', faults.rateLimited('0')],
    ['500', faults.status(500)],
    ['502', faults.status(502)],
    ['502 with HTML', faults.html(502)],
    ['503', faults.status(503)],
    ['504', faults.status(504)],
    ['520', faults.status(520)],
    ['524', faults.status(524)],
    ['529', faults.status(529)],
    ['a closed connection', faults.refuse()],
    ['a reset connection', faults.reset('start')],
    ['an answer of nothing', faults.emptyAnswer()],
  ];

  it.each(passing)('is tried again after %s (plain)', async (_name, script) => {
    scene.studio.next(script, good);
    const answer = scene.chat();
    const { status, headers } = await answer.head;
    await answer.done;
    expect(status).toBe(200);
    expect(headers['x-gateway-attempts']).toBe('2');
    expect(headers).not.toHaveProperty('x-should-retry');
    expect(JSON.parse(answer.body)).toMatchObject({ data: { content: '你好' } });
    expect(calls(scene.studio)).toBe(2);
  });

  it.each([
    ...passing,
    ['a cut before the first text', faults.cut('before-text')],
    ['an early end before the first text', faults.endsEarly('before-text')],
    ['a stream without any delta', faults.noDelta()],
  ] satisfies [string, LmStudioScript][])('is tried again after %s (stream)', async (_name, script) => {
    scene.studio.next(script, good);
    const answer = scene.chat({ stream: true });
    const { headers } = await answer.head;
    await answer.done;
    expect(headers['x-gateway-attempts']).toBe('2');
    expect(readEvents(answer.body).deltas).toEqual(['你', '好']);
    expect(calls(scene.studio)).toBe(2);
  });

  it.each([400, 401, 403, 404, 413, 422])('is not tried again after %i', async (upstream) => {
    scene.studio.always(faults.status(upstream));
    const answer = scene.chat();
    const { headers } = await answer.head;
    await answer.done;
    expect(calls(scene.studio)).toBe(1);
    expect(headers['x-should-retry']).toBe('false');
  });

  it('is not tried again when the prompt does not fit', async () => {
    scene.studio.always(faults.errorIn200('Context size has been exceeded.'));
    const answer = scene.chat();
    expect((await answer.head).status).toBe(400);
    expect(calls(scene.studio)).toBe(1);
  });

  it('is tried again only once after 500', async () => {
    scene.studio.always(faults.status(500));
    const answer = scene.chat();
    expect((await answer.head).status).toBe(502);
    expect(calls(scene.studio)).toBe(2);
  });

  it.each<[string, LmStudioScript]>([
    ['a cut', faults.cut()],
    ['an error', faults.errorFrame()],
    ['an end without a word', faults.endsEarly()],
  ])('is not tried again once a text was written: %s', async (_name, script) => {
    scene.studio.next({ ...good, ...script }, good);
    const answer = scene.chat({ stream: true });
    await answer.done;
    expect(readEvents(answer.body).terminal?.finish_reason).toBe('error');
    expect(calls(scene.studio)).toBe(1);
  });

  it('is tried again when a plain answer broke in its middle, which nobody has seen', async () => {
    scene.studio.next(faults.cut('after-text'), good);
    const answer = scene.chat();
    expect((await answer.head).status).toBe(200);
    expect(calls(scene.studio)).toBe(2);
  });

  it.each<[string, object]>([
    ['store', { store: true }],
    ['integrations', { integrations: ['mcp/weather'] }],
  ])('is not tried again where the upstream may have acted on it: %s', async (_name, parameters) => {
    scene.studio.always(faults.refuse());
    const answer = scene.chat({ stream: true, ...parameters });
    const { status, headers } = await answer.head;
    expect(status).toBe(502);
    expect(headers['x-should-retry']).toBe('false');
    expect(calls(scene.studio)).toBe(1);
  });

  it('waits as many seconds as Retry-After says', async () => {
    scene.studio.next(faults.rateLimited('1'), good);
    const answer = scene.chat();
    const first = await scene.studio.waitForRequest();
    expect((await answer.head).status).toBe(200);
    const second = scene.studio.requests.filter((one) => one.generation)[1];
    expect((second?.receivedAt ?? 0) - first.receivedAt).toBeGreaterThan(950);
  });

  it.each(['-1', '5s', '99999999'])(
    'takes no notice of a Retry-After that says nothing usable: %s',
    async (retryAfter) => {
      scene.studio.always(faults.rateLimited(retryAfter));
      const { status, headers } = await scene.chat().head;
      expect([status, headers['retry-after']]).toEqual([429, '1']);
      expect(calls(scene.studio)).toBe(3);
    },
  );

  it('keeps the words of a 429', async () => {
    scene.studio.always(faults.rateLimited('60'));
    const answer = scene.chat();
    await answer.done;
    expect(JSON.parse(answer.body).message).toBe('请求频率超限:LM Studio返回错误:Too many requests');
  });

  it('waits until the date that Retry-After says', async () => {
    const at = Math.ceil(Date.now() / 1000) * 1000 + 1000;
    scene.studio.next(faults.rateLimited(new Date(at).toUTCString()), good);
    const answer = scene.chat();
    expect((await answer.head).status).toBe(200);
    expect(Date.now()).toBeGreaterThan(at - 60);
    expect(Date.now()).toBeLessThan(at + 1500);
  });

  it('passes on a Retry-After that is too long to wait for', async () => {
    scene.studio.always(faults.rateLimited('11'));
    const start = performance.now();
    const answer = scene.chat();
    const { status, headers } = await answer.head;
    expect(since(start)).toBeLessThan(500);
    expect(status).toBe(429);
    expect(headers).toMatchObject({
      'x-error-code': 'RATE_LIMITED',
      'retry-after': '11',
      'x-should-retry': 'false',
    });
    expect(calls(scene.studio)).toBe(1);
  });

  it('gives the last real error when all tries failed', async () => {
    const id = randomUUID();
    scene.studio.always(faults.status(503));
    const answer = scene.chat({ stream: true }, { 'x-request-id': id });
    const { status, headers } = await answer.head;
    await answer.done;
    expect(status).toBe(502);
    expect(headers['x-should-retry']).toBe('false');
    expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:Service unavailable');
    expect(calls(scene.studio)).toBe(3);
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'error', attempts: 3, status: 502 });
  });

  it('gives the last 429 with its Retry-After when all tries failed', async () => {
    scene.studio.next(faults.rateLimited('0'), faults.rateLimited('0'), faults.rateLimited('7'));
    const { status, headers } = await scene.chat().head;
    expect(status).toBe(429);
    expect(headers).toMatchObject({ 'retry-after': '7', 'x-should-retry': 'false' });
    expect(calls(scene.studio)).toBe(3);
  });

  it('does not tell clients not to try again when it was never asked', async () => {
    const { status, headers } = await scene.chat({ temperature: 9 }).head;
    expect(status).toBe(400);
    expect(headers).not.toHaveProperty('x-should-retry');
  });
});

it('tries again where no connection came about, even with side effects: nothing was sent', async () => {
  const scene = await stage({ routes: [{ studio: 0 }] });
  await scene.studio.stop();
  const id = randomUUID();
  const answer = scene.chat({ store: true }, { 'x-request-id': id });
  expect((await answer.head).status).toBe(502);
  await answer.done;
  expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:连接失败');
  expect(await scene.usageOf(id)).toMatchObject({ attempts: 3, ending: 'error' });
});

it('makes no second try where UPSTREAM_MAX_RETRIES is 0', async () => {
  const scene = await stage({ environment: { UPSTREAM_MAX_RETRIES: '0' } });
  scene.studio.always(faults.status(503));
  expect((await scene.chat().head).status).toBe(502);
  expect(calls(scene.studio)).toBe(1);
});

it('does not wait for a try that the total limit would not allow any more', async () => {
  const scene = await stage({ environment: { UPSTREAM_TOTAL_TIMEOUT_MS: '500' } });
  scene.studio.always(faults.rateLimited('3'));
  const start = performance.now();
  const { status, headers } = await scene.chat().head;
  expect(since(start)).toBeLessThan(450);
  expect(status).toBe(429);
  expect(headers['retry-after']).toBe('3');
});

it('tries again at once where the only slot was that of a try whose connection the upstream closed', async () => {
  const scene = await stage({ providers: [{ max_concurrency: 1, abort_grace_ms: 5000 }] });
  scene.studio.next(faults.refuse(), good);
  const start = performance.now();
  expect((await scene.chat().head).status).toBe(200);
  expect(since(start)).toBeLessThan(1500);
});

describe('an answer without a word', () => {
  const long = 'word '.repeat(4000);
  const silent: readonly [string, LmStudioScript][] = [
    ['empty', faults.emptyAnswer()],
    ['without any delta', faults.noDelta()],
    ['that ends before its first word', faults.endsEarly('before-text')],
  ];

  it.each(silent)(
    'to a prompt above the loaded context is a prompt that does not fit: %s',
    async (_name, script) => {
      const scene = await stage();
      scene.studio.always(script);
      const answer = scene.chat({ stream: true, messages: [{ role: 'user', content: long }] });
      const { status, headers } = await answer.head;
      await answer.done;
      expect([status, headers['x-error-code']]).toEqual([400, 'INVALID_PARAMS']);
      expect(JSON.parse(answer.body).message).toContain('超过上下文长度 4096');
      expect(calls(scene.studio)).toBe(1);
    },
  );

  it('has the reason context_length in the words of OpenAI', async () => {
    const scene = await stage();
    scene.studio.always(faults.emptyAnswer());
    const body = { model: chatModel, messages: [{ role: 'user', content: long }] };
    const answer = ask(scene.port, '/v1/chat/completions', { body });
    await answer.done;
    expect(JSON.parse(answer.body).error.code).toBe('context_length_exceeded');
  });

  it('to one whose tools alone are above it, too', async () => {
    const scene = await stage();
    scene.studio.always(faults.emptyAnswer());
    const tools = [{ type: 'function', function: { name: 'weather', description: long } }];
    expect((await scene.chat({ tools }).head).status).toBe(400);
  });

  it('to a short prompt is an empty answer, and tried again', async () => {
    const scene = await stage();
    scene.studio.always(faults.emptyAnswer());
    expect((await scene.chat().head).status).toBe(502);
    expect(calls(scene.studio)).toBe(3);
  });

  it('is a cut connection where the network broke, whatever the prompt', async () => {
    const scene = await stage();
    scene.studio.always(faults.reset('before-text'));
    const answer = scene.chat({ stream: true, messages: [{ role: 'user', content: long }] });
    await answer.done;
    expect(JSON.parse(answer.body).message).toContain('连接中断');
    expect(calls(scene.studio)).toBe(3);
  });
});

describe('several routes', () => {
  const two = {
    studios: [{}, {}],
    routes: [
      { studio: 0, priority: 0 },
      { studio: 1, priority: 1 },
    ],
  };

  it('are tried without a wait, for the tries of one', async () => {
    const scene = await stage(two);
    for (const studio of scene.studios) studio.always(faults.rateLimited('1'));
    const { status } = await scene.chat().head;
    expect(status).toBe(429);
    expect(scene.studios.map(calls)).toEqual([2, 1]);
    const [first, second] = scene.studios.map((studio) => studio.requests.find((one) => one.generation));
    expect((second?.receivedAt ?? 0) - (first?.receivedAt ?? 0)).toBeLessThan(500);
  });

  it('are not tried again once they were silent', async () => {
    const scene = await stage({
      ...two,
      routes: [
        { studio: 0, priority: 0, first_event_timeout_ms: 80 },
        { studio: 1, priority: 1 },
      ],
    });
    scene.studios[0]?.always(faults.stall('headers'));
    scene.studios[1]?.next(faults.status(503), good);
    const answer = scene.chat({ stream: true });
    const { headers } = await answer.head;
    await answer.done;
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '3' });
    expect(scene.studios.map(calls)).toEqual([1, 2]);
  });

  it.each<[string, LmStudioScript]>([
    ['401', faults.status(401)],
    ['402', faults.status(402)],
    ['403', faults.status(403)],
    ['404', faults.status(404)],
    ['501', faults.status(501)],
    ['529', faults.status(529)],
    ['HTML with 200', faults.html(200)],
    ['HTML with 404', faults.html(404)],
    ['an event that is not JSON', faults.garbage('before-text')],
    ['an error with 200', faults.errorIn200('Something broke')],
    ['a model that it cannot load', faults.refused(400, 'Failed to load model "m". Error loading model.')],
    ['a model that it does not have', faults.refused(400, 'Invalid model identifier "m"')],
    ['an exhausted quota', faults.refused(429, 'You exceeded your quota', 'insufficient_quota')],
    ['a stopped answer', faults.stopped('modelUnloaded')],
  ])('of the same model are tried after %s', async (_name, script) => {
    const scene = await stage(two);
    scene.studio.always({ ...good, ...script });
    for (const stream of [true, false]) {
      // What was written is not taken back.
      if (stream && 'stopReason' in script) continue;
      const answer = scene.chat({ stream });
      const { status, headers } = await answer.head;
      await answer.done;
      expect(status).toBe(200);
      expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '2' });
    }
  });

  it.each<[string, LmStudioScript]>([
    ['400', faults.status(400)],
    ['413', faults.status(413)],
    ['422', faults.status(422)],
  ])('are not tried after a refusal that speaks of the request: %s', async (_name, script) => {
    const scene = await stage(two);
    scene.studio.always(script);
    expect((await scene.chat().head).status).toBe(400);
    expect(scene.studios.map(calls)).toEqual([1, 0]);
  });

  it('are tried with a chat that is to be stored where the first refused it', async () => {
    const scene = await stage(two);
    scene.studio.always(faults.status(401));
    const { status, headers } = await scene.chat({ store: true }).head;
    expect([status, headers['x-gateway-provider']]).toEqual([200, 'lmstudio-2']);
  });

  describe('after a prompt that does not fit', () => {
    const loaded = (contextLength: number) => ({
      models: [{ id: chatModel, type: 'llm' as const, loaded: true, contextLength }],
    });
    const overflow = faults.errorIn200('Context size has been exceeded.');

    it('are tried where their context is larger', async () => {
      const scene = await stage({ ...two, studios: [loaded(4096), loaded(8192)] });
      scene.studio.always(overflow);
      const { status, headers } = await scene.chat().head;
      expect([status, headers['x-gateway-provider']]).toEqual([200, 'lmstudio-2']);
    });

    it('are not tried where it is no larger', async () => {
      const scene = await stage({ ...two, studios: [loaded(4096), loaded(4096)] });
      scene.studio.always(overflow);
      expect((await scene.chat().head).status).toBe(400);
      expect(scene.studios.map(calls)).toEqual([1, 0]);
    });

    it('are tried where they lead to another model', async () => {
      const scene = await stage({
        studios: [loaded(4096), {}],
        routes: [
          { studio: 0, priority: 0 },
          { studio: 1, priority: 1, upstream: 'qwen2-vl-7b-instruct' },
        ],
      });
      scene.studio.always(overflow);
      const { headers } = await scene.chat().head;
      expect(headers).toMatchObject({ 'x-gateway-model': 'qwen2-vl-7b-instruct', 'x-gateway-attempts': '2' });
    });
  });
});
