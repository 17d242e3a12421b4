import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startUpstreams, type Upstreams } from './upstreams.ts';

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams();
});
afterAll(() => upstreams.close());
beforeEach(() => upstreams.reset());

const withCompletions = ['lmstudio', 'openai'] as const;
const prompt = '从前有座山';
const continuation = `,这是「${prompt}」的后续。📝`;

const events = (body: string): unknown[] =>
  body
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => JSON.parse(event.slice('data: '.length)));

const unifiedChunk = z.object({ content: z.string(), finish_reason: z.string().nullable() });
const openaiChunk = z.object({
  id: z.string(),
  object: z.literal('text_completion'),
  choices: z.array(z.object({ text: z.string(), finish_reason: z.string().nullable() })),
});

describe.each(withCompletions)('POST /api/llm/completions through %s', (name) => {
  it('continues a text', async () => {
    const { model, server } = upstreams.of[name];
    const response = await upstreams.gateway.post('/api/llm/completions', { model, prompt });
    expect(response.status).toBe(200);
    expect(response.headers.get('x-gateway-model')).toBe(model);
    expect(await response.json()).toMatchObject({
      code: 200,
      message: 'success',
      data: { content: continuation, finish_reason: 'stop', usage: { input_tokens: 3, output_tokens: 8 } },
    });
    expect(server.requests.at(-1)?.path).toMatch(/\/completions$/);
    expect(server.requests.at(-1)?.path).not.toMatch(/chat/);
  });

  it('streams in the chunks of a chat', async () => {
    const { model } = upstreams.of[name];
    const response = await upstreams.gateway.post('/api/llm/completions', { model, prompt, stream: true });
    const body = await response.text();
    const chunks = events(body).map((event) => unifiedChunk.parse(event));
    expect(chunks.map(({ content }) => content).join('')).toBe(continuation);
    expect(chunks.filter(({ finish_reason }) => finish_reason !== null)).toHaveLength(1);
    expect(events(body).at(-1)).toMatchObject({
      finish_reason: 'stop',
      usage: { input_tokens: 3, output_tokens: 8, total_tokens: 11 },
    });
    expect(body.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  it('passes the sampling parameters on', async () => {
    const { model, server } = upstreams.of[name];
    const parameters = { temperature: 0.5, top_p: 0.9, max_tokens: 3, seed: 7 };
    const response = await upstreams.gateway.post('/api/llm/completions', {
      model,
      prompt,
      stop: '山',
      ...parameters,
    });
    expect(response.status).toBe(200);
    expect(server.requests.at(-1)?.body).toMatchObject({ model, prompt, stop: ['山'], ...parameters });
  });

  it('refuses by name what makes no sense without a chat', async () => {
    const { model } = upstreams.of[name];
    const response = await upstreams.gateway.post('/api/llm/completions', {
      model,
      prompt,
      response_format: { type: 'json_object' },
    });
    expect(response.status).toBe(400);
    expect(await response.text()).toContain('response_format');
  });
});

describe('POST /api/llm/completions', () => {
  it.each([
    ['a missing prompt', {}, 'prompt'],
    ['a prompt that is no text', { prompt: ['一'] }, 'prompt'],
    ['a field that it does not know', { prompt, suffix: '。' }, 'suffix'],
  ])('refuses %s by name', async (_, fields, name) => {
    const response = await upstreams.gateway.post('/api/llm/completions', {
      model: 'qwen2.5-7b-instruct',
      ...fields,
    });
    expect(response.status).toBe(400);
    expect(response.headers.get('x-error-code')).toBe('INVALID_PARAMS');
    expect(await response.text()).toContain(name);
  });

  it('refuses the prompt where the upstream has no text completions', async () => {
    const response = await upstreams.gateway.post('/api/llm/completions', { model: 'qwen-max', prompt });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      message: '参数值超出有效范围:prompt: 百炼平台(bailian) 不支持文本补全',
    });
  });
});

describe.each(withCompletions)('POST /v1/completions through %s', (name) => {
  it('continues a text', async () => {
    const { model } = upstreams.of[name];
    const response = await upstreams.gateway.post('/v1/completions', { model, prompt: [prompt] });
    expect(await response.json()).toEqual({
      id: expect.stringMatching(/^cmpl-[0-9a-f-]{36}$/),
      object: 'text_completion',
      created: expect.any(Number),
      model,
      choices: [{ text: continuation, index: 0, logprobs: null, finish_reason: 'stop' }],
      usage: { prompt_tokens: 3, completion_tokens: 8, total_tokens: 11 },
    });
  });

  it('streams under one id, with the usage at the end for those who ask', async () => {
    const { model } = upstreams.of[name];
    const response = await upstreams.gateway.post('/v1/completions', {
      model,
      prompt,
      stream: true,
      stream_options: { include_usage: true },
    });
    const body = await response.text();
    const chunks = events(body).map((event) => openaiChunk.parse(event));
    expect(chunks.flatMap(({ choices }) => choices.map(({ text }) => text)).join('')).toBe(continuation);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(events(body).at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 3, completion_tokens: 8, total_tokens: 11 },
    });
    expect(body.endsWith('data: [DONE]\n\n')).toBe(true);
  });
});

describe('POST /v1/completions', () => {
  it.each([
    ['prompt', { prompt: ['一', '二'] }],
    ['prompt', { prompt: [1, 2, 3] }],
    ['prompt', { prompt: [[1, 2]] }],
    ['prompt', { prompt: null }],
    ['best_of', { best_of: 2 }],
    ['n', { n: 2 }],
    ['echo', { echo: true }],
    ['suffix', { suffix: '。' }],
    ['logprobs', { logprobs: 3 }],
    ['logprobs', { logprobs: 0 }],
  ])('refuses %s by name: %j', async (param, fields) => {
    const response = await upstreams.gateway.post('/v1/completions', {
      model: 'local-chat',
      prompt,
      ...fields,
    });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { type: 'invalid_request_error', param, message: expect.stringContaining(param) },
    });
  });

  it('takes what changes nothing as absent', async () => {
    const { server } = upstreams.of.openai;
    const response = await upstreams.gateway.post('/v1/completions', {
      model: 'local-chat',
      prompt,
      best_of: 1,
      n: 1,
      echo: false,
      suffix: '',
      logprobs: null,
      max_tokens: -1,
      logit_bias: {},
    });
    expect(response.status).toBe(200);
    expect(server.requests.at(-1)?.body).toEqual({ model: 'local-chat', prompt, stream: false });
  });
});
