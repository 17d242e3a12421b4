import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { faults } from '../simulators/faults.ts';
import { startUpstreams, type Upstreams, upstreamNames } from './upstreams.ts';

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams();
});
afterAll(() => upstreams.close());
beforeEach(() => upstreams.reset());

const unified = z.object({
  data: z.object({
    embeddings: z.array(z.object({ index: z.int(), embedding: z.array(z.number()) })),
    usage: z.object({ input_tokens: z.int(), output_tokens: z.int(), total_tokens: z.int() }).nullable(),
  }),
});
const upstreamBody = z.object({ input: z.array(z.string()) });

/** Bailian's simulator puts the number in a text first into its vector. */
const numbered = (count: number): string[] => Array.from({ length: count }, (_, index) => `第${index}段`);

const embed = async (body: object) => {
  const response = await upstreams.gateway.post('/api/llm/embeddings', body);
  expect(response.status).toBe(200);
  return unified.parse(await response.json()).data;
};

const batchesSent = (): string[][] =>
  upstreams.of.bailian.server.requests.map((request) => upstreamBody.parse(request.body).input);

describe.each(upstreamNames)('POST /api/llm/embeddings through %s', (name) => {
  it('gives one vector per input, in their order, and no output tokens', async () => {
    const { embeddingModel: model } = upstreams.of[name];
    const [first] = (await embed({ model, input: '一1' })).embeddings;
    const { embeddings, usage } = await embed({ model, input: ['二2', '一1'] });
    expect(embeddings.map(({ index }) => index)).toEqual([0, 1]);
    expect(embeddings[1]?.embedding).toEqual(first?.embedding);
    expect(embeddings[0]?.embedding).not.toEqual(first?.embedding);
    expect(usage?.output_tokens).toBe(0);
    expect(usage?.total_tokens).toBe(usage?.input_tokens);
  });

  it('gives the same vectors and usage through /v1', async () => {
    const { embeddingModel: model } = upstreams.of[name];
    const input = ['一1', '二2'];
    const { embeddings, usage } = await embed({ model, input });
    const response = await upstreams.gateway.post('/v1/embeddings', { model, input });
    expect(await response.json()).toMatchObject({
      object: 'list',
      data: embeddings.map((row) => ({ object: 'embedding', ...row })),
      usage: { prompt_tokens: usage?.input_tokens, total_tokens: usage?.total_tokens },
    });
  });

  it('answers a wrong model type with INVALID_MODEL', async () => {
    const { model, embeddingModel } = upstreams.of[name];
    const chatModel = await upstreams.gateway.post('/api/llm/embeddings', { model, input: '一' });
    expect(chatModel.headers.get('x-error-code')).toBe('INVALID_MODEL');
    const vectors = await upstreams.gateway.post('/api/llm/chat', {
      model: embeddingModel,
      messages: [{ role: 'user', content: '一' }],
    });
    expect(vectors.headers.get('x-error-code')).toBe('INVALID_MODEL');
  });

  it('names the route that answered', async () => {
    const { embeddingModel: model } = upstreams.of[name];
    const response = await upstreams.gateway.post('/api/llm/embeddings', { model, input: '一' });
    expect(response.headers.get('x-gateway-requested-model')).toBe(model);
    expect(response.headers.get('x-gateway-model')).toContain(model);
    expect(response.headers.get('x-gateway-attempts')).toBe('1');
  });
});

describe('a list that is longer than the upstream takes', () => {
  const model = 'text-embedding-v4';

  it('is split, put together in order, and its usage summed', async () => {
    const { embeddings, usage } = await embed({ model, input: numbered(25) });
    expect(embeddings.map(({ embedding }) => embedding[0])).toEqual(numbered(25).map((_, index) => index));
    expect(batchesSent().map((batch) => batch.length)).toEqual([10, 10, 5]);
    expect(usage?.input_tokens).toBe(25 * 2);
  });

  it('runs at most four batches at once', async () => {
    let open = (): void => {};
    const hold = new Promise<void>((resolve) => {
      open = resolve;
    });
    upstreams.of.bailian.next(...Array.from({ length: 8 }, () => faults.slowHeaders(hold)));
    const { server } = upstreams.of.bailian;
    const answer = embed({ model, input: numbered(80) });
    await server.waitForRequest(() => server.running === 4);
    open();
    expect((await answer).embeddings).toHaveLength(80);
    expect(server.maxRunning).toBe(4);
  });

  it('asks again only for the batch that failed', async () => {
    upstreams.of.bailian.next({}, faults.status(503));
    const { embeddings } = await embed({ model, input: numbered(20) });
    expect(embeddings.map(({ embedding }) => embedding[0])).toEqual(numbered(20).map((_, index) => index));
    expect(batchesSent()).toHaveLength(3);
    expect(batchesSent()[2]).toEqual(batchesSent()[1]);
  });

  it('ends the other batches when one is refused', async () => {
    upstreams.of.bailian.next({ stall: { at: 'headers' } }, faults.status(400));
    const response = await upstreams.gateway.post('/api/llm/embeddings', { model, input: numbered(20) });
    expect(response.status).toBe(400);
    expect((await upstreams.of.bailian.server.waitForAbort()).aborted).toBe(true);
  });
});

describe('POST /api/llm/embeddings', () => {
  const studioModel = 'text-embedding-nomic-embed-text-v1.5';

  it.each([
    ['a missing input', {}, 'input'],
    ['an empty list', { input: [] }, 'input'],
    ['token numbers', { input: [1, 2, 3] }, 'input'],
    ['lists of token numbers', { input: [[1, 2], [3]] }, 'input'],
    ['dimensions of 0', { input: '一', dimensions: 0 }, 'dimensions'],
    ['dimensions that LM Studio cannot choose', { input: '一', dimensions: 256 }, 'dimensions'],
    ['a field that it does not know', { input: '一', encoding_format: 'float' }, 'encoding_format'],
  ])('refuses %s by name', async (_, fields, name) => {
    const response = await upstreams.gateway.post('/api/llm/embeddings', { model: studioModel, ...fields });
    expect(response.status).toBe(400);
    expect(response.headers.get('x-error-code')).toBe('INVALID_PARAMS');
    expect(await response.text()).toContain(name);
  });

  it('passes dimensions on where the model can choose', async () => {
    const { embeddings } = await embed({ model: 'text-embedding-v4', input: '一', dimensions: 256 });
    expect(embeddings[0]?.embedding).toHaveLength(256);
  });

  it('takes an answer without all vectors for a malformed one', async () => {
    const { next } = upstreams.of.openai;
    const body = { object: 'list', data: [{ object: 'embedding', index: 0, embedding: [1] }] };
    next({ answer: { status: 200, body } });
    const response = await upstreams.gateway.post('/api/llm/embeddings', {
      model: 'local-embed',
      input: ['一', '二'],
    });
    expect(response.status).toBe(502);
    expect(await response.text()).toContain('响应格式错误');
  });

  it('reports no usage where a batch came without', async () => {
    upstreams.of.openai.next({ usage: false });
    expect((await embed({ model: 'local-embed', input: '一' })).usage).toBeNull();
  });

  it('ends the upstream call when the client leaves', async () => {
    const { next, server } = upstreams.of.openai;
    next({ stall: { at: 'start' } });
    const leaving = new AbortController();
    onTestFinished(() => leaving.abort());
    const answer = fetch(`${upstreams.gateway.url}/api/llm/embeddings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'local-embed', input: '一' }),
      signal: leaving.signal,
    });
    answer.catch(() => {});
    await server.waitForRequest();
    leaving.abort();
    expect((await server.waitForAbort()).aborted).toBe(true);
  });
});

describe('POST /v1/embeddings', () => {
  it('packs little-endian floats for base64', async () => {
    const body = { model: 'local-embed', input: '一' };
    const plain = z
      .object({ data: z.array(z.object({ embedding: z.array(z.number()) })) })
      .parse(await (await upstreams.gateway.post('/v1/embeddings', body)).json());
    const packed = z
      .object({ data: z.array(z.object({ embedding: z.string() })) })
      .parse(
        await (await upstreams.gateway.post('/v1/embeddings', { ...body, encoding_format: 'base64' })).json(),
      );
    const bytes = Buffer.from(packed.data[0]?.embedding ?? '', 'base64');
    const floats = Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(index * 4));
    expect(floats).toEqual(plain.data[0]?.embedding.map(Math.fround));
  });

  it.each([
    ['input', { input: [1, 2] }],
    ['encoding_format', { input: '一', encoding_format: 'hex' }],
    ['dimensions', { input: '一', dimensions: 1.5 }],
  ])('refuses a bad %s by name', async (param, fields) => {
    const response = await upstreams.gateway.post('/v1/embeddings', { model: 'local-embed', ...fields });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { type: 'invalid_request_error', param } });
  });
});
