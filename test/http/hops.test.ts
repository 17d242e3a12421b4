/** Gateways that ask each other in a circle: what they count, when they stop, and what the caller is told. */
import { describe, expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioSimulator } from '../simulators/lmstudio.ts';
import { ask } from './ask.ts';
import { chatBody, chatModel } from './prepare.ts';
import { type Stage, stage } from './stage.ts';

const hopsOf = (studio: LmStudioSimulator, generation: boolean): unknown[] => [
  ...new Set(
    studio.requests
      .filter((one) => one.generation === generation)
      .map((one) => one.headers['x-gateway-hops']),
  ),
];

/** A provider that is the gateway itself, and a model that it alone serves. */
async function pointAtItself({ url }: Stage, title: string): Promise<void> {
  for (const [path, body] of [
    ['providers', { key: 'itself', kind: 'openai', base_url: `${url}/v1` }],
    ['models', { title, provider: 'itself', upstream_model: title }],
  ] as const) {
    const answer = await fetch(`${url}/api/admin/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    expect(answer.status).toBe(201);
  }
}

describe('x-gateway-hops', () => {
  it('is 1 on discovery and on the calls of a client', async () => {
    const scene = await stage();
    await scene.chat().done;
    await scene.chat({ stream: true }).done;
    expect(hopsOf(scene.studio, true)).toEqual(['1']);
    expect(hopsOf(scene.studio, false)).toEqual(['1']);
  });

  it('is one more than arrived', async () => {
    const scene = await stage();
    await scene.chat({}, { 'x-gateway-hops': '2' }).done;
    await scene.chat({}, { 'x-gateway-hops': '3' }).done;
    await scene.chat({}, { 'x-gateway-hops': 'nonsense' }).done;
    expect(hopsOf(scene.studio, true)).toEqual(['3', '4', '1']);
  });

  it.each(['4', '5', '99999999999999999999999'])(
    'of %s is the end: 502, and nobody is asked',
    async (hops) => {
      const scene = await stage();
      const answer = scene.chat({}, { 'x-gateway-hops': hops });
      const { status, headers } = await answer.head;
      await answer.done;
      expect([status, headers['x-error-code'], headers['x-should-retry']]).toEqual([
        502,
        'UPSTREAM_ERROR',
        'false',
      ]);
      expect(JSON.parse(answer.body)).toEqual({ code: 502, message: '请求循环', data: null });
      const openai = ask(scene.port, '/v1/chat/completions', {
        body: chatBody(),
        headers: { 'x-gateway-hops': hops },
      });
      expect((await openai.head).status).toBe(502);
      await openai.done;
      expect(JSON.parse(openai.body)).toMatchObject({ error: { message: '请求循环' } });
      expect(hopsOf(scene.studio, true)).toEqual([]);
    },
  );
});

it.each([false, true])(
  'a provider that is the gateway itself makes five calls of one (stream: %s)',
  async (stream) => {
    const scene = await stage();
    await pointAtItself(scene, 'circle');
    const answer = scene.chat({ model: 'circle', stream });
    const { status, headers } = await answer.head;
    await answer.done;
    expect([status, headers['x-should-retry']]).toEqual([502, 'false']);
    expect(JSON.parse(answer.body).message).toContain('请求循环');
    const metrics = await (await fetch(`${scene.url}/metrics`)).text();
    const counts = [...metrics.matchAll(/^gateway_requests_total\{.*\} (\d+)$/gm)].map((match) =>
      Number(match[1]),
    );
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(5);
  },
);

describe('an upstream’s x-should-retry: false on a 502', () => {
  const refused = faults.status(502, { 'x-should-retry': 'false' });

  it.each([false, true])('is obeyed and passed on (stream: %s)', async (stream) => {
    const scene = await stage();
    scene.studio.next(refused);
    const { status, headers } = await scene.chat({ stream }).head;
    expect([status, headers['x-should-retry'], headers['x-error-code']]).toEqual([
      502,
      'false',
      'UPSTREAM_ERROR',
    ]);
    expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(1);
  });

  it('leaves another route to be tried', async () => {
    const scene = await stage({
      studios: [{}, {}],
      routes: [
        { model: 'both', studio: 0, upstream: chatModel, priority: 1 },
        { model: 'both', studio: 1, upstream: chatModel, priority: 2 },
      ],
    });
    scene.studios[0]?.always(refused);
    expect((await scene.chat({ model: 'both' }).head).status).toBe(200);
    expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(1);
  });
});
