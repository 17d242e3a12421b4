/** Several routes to one model: which is taken, which is passed over, and how a provider that fails comes back. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioSimulator } from '../simulators/lmstudio.ts';
import { chatModel } from './prepare.ts';
import { type Stage, stage } from './stage.ts';
import { deferred, type WireAnswer } from './wire.ts';

const generations = (studio: LmStudioSimulator): number =>
  studio.requests.filter((one) => one.generation).length;

async function providerOf(answer: WireAnswer): Promise<string | undefined> {
  const { headers } = await answer.head;
  return headers['x-gateway-provider'];
}

/** A stream whose place is taken when this returns. */
async function occupy(scene: Stage): Promise<WireAnswer> {
  const answer = scene.chat({ stream: true });
  await answer.until((body) => body.includes('content'));
  return answer;
}

describe('a model that three LM Studios have', () => {
  const models = [{ id: chatModel, type: 'llm' as const, loaded: true, parallel: 1 }];

  it('is served by all of them at once, without any route being made by hand', async () => {
    const scene = await stage({ studios: [{ models }, { models }, { models }] });
    const rest = deferred();
    for (const studio of scene.studios) studio.always(faults.stall('after-text', rest.promise));
    const answers = [await occupy(scene), await occupy(scene), await occupy(scene)];
    const providers = await Promise.all(answers.map(providerOf));
    expect([...providers].sort()).toEqual(['lmstudio', 'lmstudio-2', 'lmstudio-3']);
    expect(scene.studios.map((studio) => studio.running)).toEqual([1, 1, 1]);
    rest.resolve();
    await Promise.all(answers.map((answer) => answer.done));
  });

  it('overflows to the route that comes after them', async () => {
    const scene = await stage({
      studios: [{ models }, { models }, {}],
      routes: [
        { studio: 0, priority: 0 },
        { studio: 1, priority: 0 },
        { studio: 2, priority: 9 },
      ],
    });
    const rest = deferred();
    for (const studio of scene.studios) studio.always(faults.stall('after-text', rest.promise));
    const answers = [await occupy(scene), await occupy(scene), await occupy(scene), await occupy(scene)];
    const providers = await Promise.all(answers.map(providerOf));
    expect(providers.slice(0, 2).sort()).toEqual(['lmstudio', 'lmstudio-2']);
    expect(providers.slice(2)).toEqual(['lmstudio-3', 'lmstudio-3']);
    rest.resolve();
    await Promise.all(answers.map((answer) => answer.done));
  });

  it('is waited for where nobody has a place, at whoever is free first', async () => {
    const scene = await stage({ studios: [{ models }, { models }] });
    const rests = [deferred(), deferred()];
    for (const [index, studio] of scene.studios.entries()) {
      studio.next(faults.stall('after-text', rests[index]?.promise));
    }
    const running = [await occupy(scene), await occupy(scene)];
    const waiting = scene.chat({ stream: true, stream_options: { include_progress: true } });
    await waiting.until((body) => body.includes('"position":1'));
    rests[1]?.resolve();
    await waiting.done;
    expect(waiting.body).toContain('"route":{"provider":"lmstudio-2"');
    rests[0]?.resolve();
    await Promise.all(running.map((answer) => answer.done));
  });
});

describe('the order of the routes', () => {
  it('is by priority', async () => {
    const scene = await stage({
      studios: [{}, {}],
      routes: [
        { studio: 0, priority: 2, weight: 100 },
        { studio: 1, priority: 1 },
      ],
    });
    for (let round = 0; round < 5; round += 1) {
      expect(await providerOf(scene.chat())).toBe('lmstudio-2');
    }
  });

  it('is by free places times weight among equals', async () => {
    const scene = await stage({
      studios: [{}, {}],
      providers: [{ max_concurrency: 4 }, { max_concurrency: 4 }],
      routes: [{ studio: 0 }, { studio: 1, weight: 3 }],
    });
    const rest = deferred();
    for (const studio of scene.studios) studio.always(faults.stall('after-text', rest.promise));
    const answers: WireAnswer[] = [];
    // 4 and 12, 4 and 9, 4 and 6, 4 and 3, 3 and 3
    for (let round = 0; round < 4; round += 1) answers.push(await occupy(scene));
    expect(await Promise.all(answers.map(providerOf))).toEqual([
      'lmstudio-2',
      'lmstudio-2',
      'lmstudio-2',
      'lmstudio',
    ]);
    rest.resolve();
    await Promise.all(answers.map((answer) => answer.done));
  });

  it('puts a provider that discovery found down after its equals', async () => {
    const scene = await stage({
      studios: [{}, {}],
      providers: [{ base_url: 'http://127.0.0.1:9' }],
      routes: [{ studio: 0, weight: 100 }, { studio: 1 }],
    });
    for (let round = 0; round < 5; round += 1) {
      const { headers } = await scene.chat().head;
      expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '1' });
    }
  });
});

it('a route to another model is a fallback for a model whose server is gone', async () => {
  const scene = await stage({
    studios: [{}, {}],
    routes: [
      { studio: 0, priority: 0 },
      { studio: 1, priority: 1, upstream: 'qwen2-vl-7b-instruct' },
    ],
  });
  await scene.studio.stop();
  const answer = scene.chat();
  const { status, headers } = await answer.head;
  expect(status).toBe(200);
  expect(headers).toMatchObject({
    'x-gateway-provider': 'lmstudio-2',
    'x-gateway-model': 'qwen2-vl-7b-instruct',
    'x-gateway-requested-model': chatModel,
  });
});

describe('of several LM Studios', () => {
  const bad: readonly [string, (studio: LmStudioSimulator) => unknown][] = [
    ['dead', (studio) => studio.stop()],
    ['unauthorized', (studio) => studio.always(faults.status(401))],
    ['without the model', (studio) => studio.always(faults.status(404))],
    ['unable to load it', (studio) => studio.always(faults.refused(400, 'Failed to load model "m".'))],
    ['loading it', (studio) => studio.always(faults.loading())],
    ['answering with HTML', (studio) => studio.always(faults.html(200))],
  ];

  it.each(bad)('one that is %s lets no call fail', async (_name, spoil) => {
    const scene = await stage({ studios: [{}, {}] });
    await spoil(scene.studio);
    const answers = Array.from({ length: 40 }, (_, index) => scene.chat({ stream: index % 2 === 0 }));
    for (const answer of answers) await answer.done;
    const ends = await Promise.all(answers.map(async (answer) => (await answer.head).status));
    expect(ends).toEqual(ends.map(() => 200));
    for (const { body } of answers) expect(body).not.toContain('error');
  });
});

describe('a provider that keeps failing', () => {
  afterEach(() => vi.useRealTimers());

  const environment = { UPSTREAM_MAX_RETRIES: '1' };
  const routes = [
    { studio: 0, priority: 0 },
    { studio: 1, priority: 1 },
  ];
  const threshold = 5;

  async function ask(scene: Stage, times: number): Promise<(string | undefined)[]> {
    const attempts: (string | undefined)[] = [];
    for (let round = 0; round < times; round += 1) {
      const answer = scene.chat();
      attempts.push((await answer.head).headers['x-gateway-attempts']);
      await answer.done;
    }
    return attempts;
  }

  it.each([
    ['answers 500', faults.status(500)],
    ['answers 503', faults.status(503)],
    ['closes its connections', faults.refuse()],
  ])('is not asked any more: %s', async (_name, script) => {
    const scene = await stage({ environment, studios: [{}, {}], routes });
    scene.studio.always(script);
    expect(await ask(scene, threshold)).toEqual(Array.from({ length: threshold }, () => '2'));
    expect(await ask(scene, 3)).toEqual(['1', '1', '1']);
    expect(generations(scene.studio)).toBe(threshold);
  });

  it('is not asked any more when its streams are cut', async () => {
    const scene = await stage({ environment, studios: [{}, {}], routes });
    scene.studio.always({ ...faults.cut(), text: ['你', '好'], gapMs: 0 });
    for (let round = 0; round < threshold; round += 1) await scene.chat({ stream: true }).done;
    expect(await providerOf(scene.chat({ stream: true }))).toBe('lmstudio-2');
  });

  it.each([
    ['400', faults.status(400)],
    ['404', faults.status(404)],
    ['429', faults.rateLimited('0')],
  ])('is asked as before where it is not to blame: %s', async (_name, script) => {
    const scene = await stage({ environment, studios: [{}, {}], routes });
    scene.studio.always(script);
    await ask(scene, threshold + 2);
    scene.studio.always(undefined);
    expect(await providerOf(scene.chat())).toBe('lmstudio');
  });

  it('is asked as before when clients leave it', async () => {
    const scene = await stage({ environment, studios: [{}, {}], routes, providers: [{ abort_grace_ms: 0 }] });
    scene.studio.always(faults.stall('start'));
    for (let round = 0; round < threshold + 1; round += 1) {
      const answer = scene.chat();
      const upstream = await scene.studio.waitForRequest((one) => one.generation && !one.aborted);
      answer.leave();
      await upstream.closed;
      scene.studio.reset();
      scene.studio.always(faults.stall('start'));
    }
    scene.studio.always(undefined);
    expect(await providerOf(scene.chat())).toBe('lmstudio');
  });

  it('is tried none the less where it is the last', async () => {
    const scene = await stage({ environment: { UPSTREAM_MAX_RETRIES: '0' } });
    scene.studio.always(faults.status(503));
    for (let round = 0; round < threshold + 1; round += 1) {
      expect((await scene.chat().head).status).toBe(502);
    }
    expect(generations(scene.studio)).toBe(threshold + 1);
    scene.studio.always(undefined);
    expect((await scene.chat().head).status).toBe(200);
  });

  it('comes back when its model list answers, within 10 s and without a generation', async () => {
    const scene = await stage({ environment, studios: [{}, {}], routes });
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] });
    scene.studio.always(faults.status(503));
    await ask(scene, threshold);
    scene.studio.reset();
    const probed = scene.studio.waitForRequest((one) => one.path === '/api/v1/models');
    await vi.advanceTimersByTimeAsync(10_000);
    await (await probed).closed;
    await vi.waitFor(async () => expect(await providerOf(scene.chat())).toBe('lmstudio'), {
      timeout: 2000,
      interval: 20,
    });
    const asked = scene.studio.requests.map((one) => one.path);
    expect(asked.slice(0, asked.indexOf('/api/v0/chat/completions'))).toContain('/api/v1/models');
  });

  it('stays away while its list answers and its chats fail, but for one call after each probe', async () => {
    const scene = await stage({ environment, studios: [{}, {}], routes });
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] });
    scene.studio.always(faults.status(503));
    await ask(scene, threshold);
    for (let round = 1; round <= 2; round += 1) {
      const before = generations(scene.studio);
      await vi.advanceTimersByTimeAsync(5000);
      await vi.waitFor(async () => expect(await ask(scene, 1)).toEqual(['2']), {
        timeout: 2000,
        interval: 20,
      });
      expect(await ask(scene, 3)).toEqual(['1', '1', '1']);
      expect(generations(scene.studio)).toBe(before + 1);
    }
  });

  it('is taken back at once when a call that had nowhere else to go went well', async () => {
    const scene = await stage({
      environment: { UPSTREAM_MAX_RETRIES: '0' },
      studios: [{}, {}],
      routes: [...routes, { studio: 0, model: 'alone' }],
    });
    scene.studio.always(faults.status(503));
    await ask(scene, threshold);
    scene.studio.always(undefined);
    expect((await scene.chat({ model: 'alone' }).head).status).toBe(200);
    expect(await providerOf(scene.chat())).toBe('lmstudio');
  });

  it('stays away while its model list does not answer', async () => {
    const scene = await stage({ environment, studios: [{}, {}], routes });
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] });
    scene.studio.always(faults.status(503));
    scene.studio.alwaysControl(faults.status(503));
    await ask(scene, threshold);
    const before = generations(scene.studio);
    const probed = scene.studio.waitForRequest((one) => one.path === '/api/v1/models');
    await vi.advanceTimersByTimeAsync(10_000);
    await (await probed).closed;
    expect(await ask(scene, 2)).toEqual(['1', '1']);
    expect(generations(scene.studio)).toBe(before);
  });
});
