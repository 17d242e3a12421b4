/** A server that says that it is loading the model: waited for within the first-event limit, and told as progress. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { type Stage, since, stage } from './stage.ts';
import { startUpstreams, type Upstreams } from './upstreams.ts';
import { readEvents } from './wire.ts';

/** In the catalog of the default LM Studio, and not in its memory. */
const unloaded = 'openai/gpt-oss-20b';

const calls = ({ studio }: Stage): number => studio.requests.filter((one) => one.generation).length;

/** As LM Studio answers in the moment in which a load begins. */
const beginning = faults.html(500);

describe('LM Studio in the moment in which a load begins', () => {
  it.each([true, false])('is asked until it is ready, whatever the retries (stream: %s)', async (stream) => {
    const scene = await stage({ environment: { UPSTREAM_MAX_RETRIES: '0' } });
    scene.studio.next(beginning, beginning);
    const answer = scene.chat({ model: unloaded, stream });
    const { status, headers } = await answer.head;
    await answer.done;
    expect([status, headers['x-gateway-attempts']]).toEqual([200, '3']);
  });

  it('is told as progress to those who want it', async () => {
    const scene = await stage();
    scene.studio.next(beginning);
    const answer = scene.chat({
      model: unloaded,
      stream: true,
      tools: [{ type: 'function', function: { name: 'weather' } }],
      stream_options: { include_progress: true },
    });
    await answer.done;
    expect(answer.body).toContain('"progress":{"stage":"model_load"}');
    expect(readEvents(answer.body).terminal?.finish_reason).toBe('stop');
  });

  it('is waited for no longer than the first-event limit', async () => {
    const scene = await stage({ environment: { UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '400' } });
    scene.studio.always(beginning);
    const start = performance.now();
    const answer = scene.chat({ model: unloaded });
    expect((await answer.head).status).toBe(504);
    expect(since(start)).toBeLessThan(2000);
    expect(calls(scene)).toBe(2);
  });

  it('is given up at once by a client that leaves', async () => {
    const scene = await stage();
    scene.studio.always(beginning);
    const answer = scene.chat({ model: unloaded }, { 'x-request-id': 'left-while-loading' });
    await scene.studio.waitForRequest();
    answer.leave();
    expect(await scene.usageOf('left-while-loading')).toMatchObject({ ending: 'client_gone' });
  });

  it('leaves the call to a route that is ready', async () => {
    const scene = await stage({
      studios: [{}, {}],
      routes: [
        { studio: 0, priority: 0, upstream: unloaded },
        { studio: 1, priority: 1 },
      ],
    });
    scene.studio.always(beginning);
    const { headers } = await scene.chat().head;
    expect(headers).toMatchObject({ 'x-gateway-provider': 'lmstudio-2', 'x-gateway-attempts': '2' });
  });

  it('is no failure that would open its breaker', async () => {
    const scene = await stage({
      studios: [{}, {}],
      routes: [
        { studio: 0, priority: 0, upstream: unloaded },
        { studio: 1, priority: 1 },
      ],
    });
    scene.studio.always(beginning);
    for (let round = 0; round < 6; round += 1) await scene.chat().done;
    scene.studio.always(undefined);
    expect((await scene.chat().head).headers['x-gateway-provider']).toBe('lmstudio');
  });

  it('is a failure like any other where the model is loaded', async () => {
    const scene = await stage();
    scene.studio.always(beginning);
    expect((await scene.chat().head).status).toBe(502);
    expect(calls(scene)).toBe(2);
  });
});

describe('llama.cpp while it loads', () => {
  let upstreams: Upstreams;
  beforeAll(async () => {
    upstreams = await startUpstreams({ UPSTREAM_MAX_RETRIES: '0' });
  });
  afterAll(() => upstreams.close());
  beforeEach(() => upstreams.reset());

  it.each([true, false])('is asked until it is ready (stream: %s)', async (stream) => {
    upstreams.of.openai.next(faults.loading(), faults.loading());
    const response = await upstreams.gateway.post('/v1/chat/completions', {
      model: 'local-chat',
      messages: [{ role: 'user', content: '你好' }],
      stream,
    });
    expect([response.status, response.headers.get('x-gateway-attempts')]).toEqual([200, '3']);
    await response.text();
  });
});
