/** Limits over real sockets: what counts, what is refused, and what the headers tell. */
import { describe, expect, it, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { type Answer, type Team, team } from './administrator.ts';
import { chatBody, chatModel } from './prepare.ts';

const chat = (
  { ask }: Team,
  key: string | undefined,
  body: Readonly<Record<string, unknown>> = {},
): Promise<Answer> => ask(key, 'POST', '/api/llm/chat', chatBody(body));

const headersOf = (answer: Answer, what: string) =>
  ['limit', 'remaining', 'reset'].map((name) => answer.headers.get(`x-ratelimit-${name}-${what}`));

describe('requests a minute', () => {
  it('are exactly what each of 20 keys is allowed, whoever else hammers at the same time', async () => {
    const scene = await team();
    const keys = await Promise.all(
      Array.from({ length: 20 }, (_, index) => scene.createKey({ name: `key ${index}`, rpm: index + 1 })),
    );
    const granted = await Promise.all(
      keys.map(async ({ key }, index) => {
        const answers = await Promise.all(Array.from({ length: index + 6 }, () => chat(scene, key)));
        const statuses = answers.map(({ status }) => status);
        expect(statuses.filter((status) => status === 429)).toHaveLength(5);
        return statuses.filter((status) => status === 200).length;
      }),
    );
    expect(granted).toEqual(keys.map((_, index) => index + 1));
  });

  it('are told in headers, and a refusal says when to come back', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ rpm: 1 });
    expect(headersOf(await chat(scene, key), 'requests')).toEqual(['1', '0', '1m0s']);
    const refused = await chat(scene, key);
    expect(refused).toMatchObject({ status: 429, body: { code: 429, message: '请求频率超限', data: null } });
    expect(refused.headers.get('x-error-code')).toBe('RATE_LIMITED');
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(55);
    expect(headersOf(refused, 'requests').slice(0, 2)).toEqual(['1', '0']);
  });

  it("are refused in OpenAI's shape under /v1, and before a stream begins", async () => {
    const scene = await team();
    const { key } = await scene.createKey({ rpm: 1 });
    const streamed = await scene.ask(key, 'POST', '/v1/chat/completions', chatBody({ stream: true }));
    expect(headersOf(streamed, 'requests').slice(0, 2)).toEqual(['1', '0']);
    const refused = await scene.ask(key, 'POST', '/v1/chat/completions', chatBody({ stream: true }));
    expect([refused.status, refused.body.error.message]).toEqual([429, '请求频率超限']);
  });

  it('are used up by a request that is refused for what it says, and not by a look at the models', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ rpm: 5, models: [chatModel] });
    const wrong = [
      { temperature: 9 },
      { messages: [] },
      { model: 'nobody' },
      { model: 'openai/gpt-oss-20b' },
    ];
    for (const body of wrong) expect([400, 403]).toContain((await chat(scene, key, body)).status);
    for (const path of ['/api/llm/models', '/v1/models']) await scene.ask(key, 'GET', path);
    expect((await chat(scene, key)).status).toBe(200);
    expect((await chat(scene, key)).status).toBe(429);
  });

  it('are counted together over all inference endpoints', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ rpm: 2 });
    await chat(scene, key);
    const embedding = { model: 'text-embedding-nomic-embed-text-v1.5', input: 'x' };
    expect((await scene.ask(key, 'POST', '/v1/embeddings', embedding)).status).toBe(200);
    expect((await scene.ask(key, 'POST', '/v1/chat/completions', chatBody())).status).toBe(429);
  });

  it('change with the key at once', async () => {
    const scene = await team();
    const { id, key } = await scene.createKey({ rpm: 1 });
    await chat(scene, key);
    expect((await chat(scene, key)).status).toBe(429);
    await scene.change('PATCH', `/keys/${id}`, 1, { rpm: 0 });
    expect((await chat(scene, key)).status).toBe(200);
  });
});

describe('RATE_LIMIT_RPM', () => {
  const environment = { AUTH: 'off', ADMIN_API_KEY: undefined, RATE_LIMIT_RPM: '2' };

  it('holds for each address without a key', async () => {
    const scene = await team({ environment });
    const statuses = [];
    for (let i = 0; i < 3; i += 1) statuses.push((await chat(scene, undefined)).status);
    expect(statuses).toEqual([200, 200, 429]);
  });

  it("counts by a proxy's word for the address only where TRUST_PROXY says so", async () => {
    const from = (address: string) => ({ 'x-forwarded-for': address });
    const statuses: Record<string, number[]> = {};
    for (const trusted of ['true', 'false']) {
      const scene = await team({ environment: { ...environment, TRUST_PROXY: trusted } });
      statuses[trusted] = [];
      for (const address of ['10.0.0.1', '10.0.0.1', '10.0.0.1', '10.0.0.2']) {
        const answer = await scene.ask(undefined, 'POST', '/api/llm/chat', chatBody(), from(address));
        statuses[trusted].push(answer.status);
      }
    }
    expect(statuses).toEqual({ true: [200, 200, 429, 200], false: [200, 200, 429, 429] });
  });

  it('holds for all addresses of one IPv6 network together', async () => {
    const scene = await team({ environment: { ...environment, TRUST_PROXY: 'true' } });
    const statuses = [];
    for (const address of ['2001:db8:1:2::1', '2001:db8:1:2::2', '2001:db8:1:2:3::4', '2001:db8:1:3::1']) {
      const headers = { 'x-forwarded-for': address };
      const answer = await scene.ask(undefined, 'POST', '/api/llm/chat', chatBody(), headers);
      statuses.push(answer.status);
    }
    expect(statuses).toEqual([200, 200, 429, 200]);
  });

  it("is a key's where it has no limit of its own", async () => {
    const scene = await team({ environment: { RATE_LIMIT_RPM: '1' } });
    const plain = await scene.createKey();
    const own = await scene.createKey({ rpm: 3 });
    expect(headersOf(await chat(scene, plain.key), 'requests')[0]).toBe('1');
    expect((await chat(scene, plain.key)).status).toBe(429);
    expect(headersOf(await chat(scene, own.key), 'requests')[0]).toBe('3');
  });
});

describe('tokens', () => {
  it('a minute stop a key once its calls have used them', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ tpm: 20 });
    const first = await chat(scene, key);
    const used = first.body.data.usage.total_tokens;
    expect(headersOf(first, 'tokens')[0]).toBe('20');
    let spent = used;
    while (spent < 20) spent += (await chat(scene, key)).body.data.usage.total_tokens;
    const refused = await chat(scene, key);
    expect(refused.status).toBe(429);
    expect(headersOf(refused, 'tokens').slice(0, 2)).toEqual(['20', '0']);
    expect(headersOf(refused, 'requests')).toEqual([null, null, null]);
  });

  it('count what was delivered of an answer whose usage never came, by an estimate that its row has as inexact', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ tpm: 100 });
    scene.studio.next({ ...faults.noUsage(), text: ['x'.repeat(400)] });
    const headers = { 'x-request-id': 'uncounted' };
    await scene.ask(key, 'POST', '/api/llm/chat', chatBody({ max_tokens: 50 }), headers);
    const row = await scene.usageOf('uncounted');
    expect(row).toMatchObject({ exact: 0, output_tokens: 100 });
    expect(row.input_tokens).toBeGreaterThan(0);
    expect((await chat(scene, key)).status).toBe(429);
  });

  it('count the prompt of a stream that is left before its first token', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ tpm: 1000 });
    scene.studio.next(faults.stall('headers'));
    const before = scene.studio.requests.length;
    const messages = [{ role: 'user', content: 'x'.repeat(8000) }];
    const left = scene.chat(
      { stream: true, messages },
      { authorization: `Bearer ${key}`, 'x-request-id': 'left' },
    );
    await vi.waitFor(() => expect(scene.studio.requests.length).toBeGreaterThan(before));
    left.leave();
    expect(await scene.usageOf('left')).toMatchObject({ exact: 0, input_tokens: 2000, output_tokens: 0 });
    expect((await chat(scene, key)).status).toBe(429);
  });

  it('are reserved while a stream runs', async () => {
    const scene = await team({ studios: [{ tokenMs: 50 }] });
    const { key } = await scene.createKey({ tpm: 1000 });
    const running = scene.chat({ stream: true, max_tokens: 5000 }, { authorization: `Bearer ${key}` });
    await running.head;
    expect((await chat(scene, key)).status).toBe(429);
    await running.done;
    expect((await chat(scene, key)).status).toBe(200);
  });

  it('of the day are remembered over a restart', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ daily_tokens: 5 });
    const answer = await scene.ask(key, 'POST', '/api/llm/chat', chatBody(), { 'x-request-id': 'before' });
    expect(answer.body.data.usage.total_tokens).toBeGreaterThanOrEqual(5);
    await scene.usageOf('before');
    const again = await scene.another();
    const refused = await again.ask(key, 'POST', '/api/llm/chat', chatBody());
    expect(refused.status).toBe(429);
    expect(headersOf(refused, 'tokens').slice(0, 2)).toEqual(['5', '0']);
  });
});

describe('calls at once', () => {
  it('are as many as the key is allowed, and one more when one is over', async () => {
    const scene = await team({ studios: [{ tokenMs: 50 }] });
    const { key } = await scene.createKey({ max_concurrency: 1 });
    const running = scene.chat({ stream: true }, { authorization: `Bearer ${key}` });
    await running.head;
    const refused = await chat(scene, key);
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1']);
    await running.done;
    expect((await chat(scene, key)).status).toBe(200);
  });

  it('are given back by a client that leaves', async () => {
    const scene = await team({ studios: [{ tokenMs: 50 }] });
    const { key } = await scene.createKey({ max_concurrency: 1 });
    const running = scene.chat({ stream: true }, { authorization: `Bearer ${key}` });
    await running.head;
    running.leave();
    await vi.waitFor(async () => expect((await chat(scene, key)).status).toBe(200));
  });
});
