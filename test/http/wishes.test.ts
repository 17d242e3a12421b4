/** What a route may go without, what it gets though the gateway does not know it, and how the caller is told. */
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { startUpstreams, type Upstreams, upstreamNames } from './upstreams.ts';
import { deferred, readEvents } from './wire.ts';

const messages = [{ role: 'user', content: '你好' }];
const secondTurn = [...messages, { role: 'assistant', content: '在' }, ...messages];
const tools = [{ type: 'function', function: { name: 'add' } }];

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams({}, { passthrough: '["grammar","chat_template_kwargs"]' });
});
afterAll(() => upstreams.close());
beforeEach(() => upstreams.reset());

const openai = (body: object): Promise<Response> => upstreams.gateway.post('/v1/chat/completions', body);
const unified = (body: object): Promise<Response> => upstreams.gateway.post('/api/llm/chat', body);
const ignoredIn = (answer: Response): string | null => answer.headers.get('x-gateway-ignored');

describe('reasoning_effort', () => {
  const sentTo = (name: 'lmstudio' | 'bailian') => upstreams.of[name].server.requests.at(-1);
  const thinking = 'openai/gpt-oss-20b';

  it.each([
    ['tools', { model: thinking, messages, tools, reasoning_effort: 'high' }],
    ['a second turn', { model: thinking, messages: secondTurn, reasoning_effort: 'medium' }],
    ['texts that end the answer', { model: thinking, messages, stop: ['一'], reasoning_effort: 'none' }],
    ['a model that does not think', { model: 'qwen2.5-7b-instruct', messages, reasoning_effort: 'low' }],
  ])('is left out and named over LM Studio beside %s', async (_, body) => {
    const answer = await openai(body);
    expect(answer.status).toBe(200);
    expect(ignoredIn(answer)).toBe('reasoning_effort');
    expect(sentTo('lmstudio')).toMatchObject({ path: '/api/v0/chat/completions' });
  });

  it('goes to v1 where that can have it', async () => {
    const answer = await openai({ model: thinking, messages, reasoning_effort: 'xhigh' });
    expect(answer.status).toBe(200);
    expect(ignoredIn(answer)).toBeNull();
    expect(sentTo('lmstudio')).toMatchObject({ path: '/api/v1/chat', body: { reasoning: 'high' } });
  });

  it('of none changes nothing for a model that does not think, and neither does reasoning: off', async () => {
    const model = 'qwen2.5-7b-instruct';
    const answers = [
      await openai({ model, messages: secondTurn, tools, reasoning_effort: 'none' }),
      await unified({ model, messages: secondTurn, tools, reasoning: 'off' }),
    ];
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      expect(ignoredIn(answer)).toBeNull();
    }
  });

  it('becomes on for a model that knows only on and off', async () => {
    const answer = await openai({ model: 'qwen3-235b-a22b', messages, reasoning_effort: 'minimal' });
    expect(answer.status).toBe(200);
    expect(ignoredIn(answer)).toBeNull();
    expect(sentTo('bailian')).toMatchObject({ body: { enable_thinking: true } });
  });

  it('is left out and named for a model of Bailian that does not think', async () => {
    const answer = await openai({ model: 'qwen-max', messages, reasoning_effort: 'high' });
    expect(answer.status).toBe(200);
    expect(ignoredIn(answer)).toBe('reasoning_effort');
    expect(JSON.stringify(sentTo('bailian')?.body)).not.toContain('thinking');
  });

  it('is a condition on /api/llm: reasoning beside tools is refused by name', async () => {
    const answer = await unified({ model: thinking, messages, tools, reasoning: 'high' });
    expect(answer.status).toBe(400);
    expect(await answer.text()).toContain('reasoning');
  });
});

describe('a field that the gateway does not know', () => {
  const { model } = { model: 'local-chat' };
  const sent = () => upstreams.of.openai.server.requests.at(-1)?.body;

  it('goes as it came to a provider that lists it, from both APIs', async () => {
    const extra = {
      grammar: 'root ::= "a"',
      chat_template_kwargs: { enable_thinking: false, deep: [null, 1] },
    };
    for (const answer of [
      await openai({ model, messages, ...extra }),
      await unified({ model, messages, ...extra }),
    ]) {
      expect(answer.status).toBe(200);
      expect(ignoredIn(answer)).toBeNull();
      expect(sent()).toMatchObject(extra);
    }
  });

  it.each(upstreamNames)('is named on /v1 where %s does not list it', async (name) => {
    const answer = await openai({ model: upstreams.of[name].model, messages, chat_id: 'x', 'gr ä': 1 });
    expect(answer.status).toBe(200);
    expect(ignoredIn(answer)).toBe('chat_id, gr%20%C3%A4');
    expect(JSON.stringify(upstreams.of[name].server.requests.at(-1)?.body)).not.toContain('chat_id');
  });

  it('is a 400 on /api/llm where no provider of the model lists it', async () => {
    for (const body of [
      { model, messages, mirostat: 2, grammar: 'g' },
      { model: 'qwen-max', messages, grammar: 'g' },
      { model: 'nobody', messages, mirostat: 2 },
    ]) {
      const answer = await unified(body);
      expect(answer.status).toBe(400);
      expect(await answer.text()).toMatch(/参数值超出有效范围:(?:mirostat|grammar): 未知字段/);
    }
  });

  it('is refused by name if it is listed and nested beyond measure', async () => {
    let grammar: unknown = 1;
    for (let depth = 0; depth < 100; depth += 1) grammar = [grammar];
    const answer = await openai({ model, messages, grammar });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { param: 'grammar' } });
  });

  it('is named in a list of 20 names and 1 KB at most', async () => {
    const many = Object.fromEntries(Array.from({ length: 25 }, (_, n) => [`field_${n}`, n]));
    const names = (ignoredIn(await openai({ model, messages, ...many })) ?? '')
      .split(', ')
      .map(decodeURIComponent);
    expect(names).toEqual([...Object.keys(many).slice(0, 20), '…']);
    const long = Object.fromEntries(['a', 'b'].map((letter) => [letter.repeat(600), 1]));
    const list = ignoredIn(await openai({ model, messages, ...long })) ?? '';
    expect(list.length).toBeLessThanOrEqual(1024);
    expect(decodeURIComponent(list)).toBe(`${'a'.repeat(600)}, …`);
  });

  it('goes and is named with text completions and embeddings too', async () => {
    const completion = { model, prompt: '从前', grammar: 'g', chat_id: 'x' };
    const first = await upstreams.gateway.post('/v1/completions', completion);
    expect([first.status, ignoredIn(first)]).toEqual([200, 'chat_id']);
    expect(sent()).toMatchObject({ grammar: 'g' });
    const embedding = { model: 'local-embed', input: '你好', grammar: 'g', chat_id: 'x' };
    const second = await upstreams.gateway.post('/v1/embeddings', embedding);
    expect([second.status, ignoredIn(second)]).toEqual([200, 'chat_id']);
    expect(sent()).toMatchObject({ grammar: 'g' });
    const { chat_id: _, ...known } = embedding;
    expect((await upstreams.gateway.post('/api/llm/embeddings', known)).status).toBe(200);
    expect((await upstreams.gateway.post('/api/llm/embeddings', embedding)).status).toBe(400);
  });

  it('passes * unless it chooses models, addresses or credentials; those are listed singly', async () => {
    const open = await startUpstreams({}, { passthrough: '["*","fallbacks"]' });
    onTestFinished(() => open.close());
    const held = {
      models: ['m'],
      provider: {},
      route: 'r',
      api_base: 'a',
      base_url: 'b',
      api_key: 'k',
      baseURL: 'b',
      'base-url': 'b',
      apiKey: 'k',
      aws_session_token: 's',
      azure_ad_token: 's',
      context_window_fallbacks: [],
      model_list: [],
      modelName: 'm',
    };
    const free = {
      mirostat: 2,
      stop_token_ids: [1],
      add_bos_token: true,
      video_urls: [],
      chat_template_kwargs: {},
    };
    const body = { model, messages, ...free, fallbacks: ['m'], ...held };
    const answer = await open.gateway.post('/v1/chat/completions', body);
    expect(answer.status).toBe(200);
    expect(ignoredIn(answer)).toBe(Object.keys(held).join(', '));
    const passed = open.of.openai.server.requests.at(-1)?.body;
    expect(passed).toMatchObject({ ...free, fallbacks: ['m'] });
    for (const name of Object.keys(held)) expect(passed).not.toHaveProperty(name);
    const refused = await open.gateway.post('/api/llm/chat', { model, messages, api_key: 'k' });
    expect(refused.status).toBe(400);
  });

  it('has its place in the terminal chunk of /api/llm where the headers left before the route was known', async () => {
    const early = await startUpstreams({ STREAM_COMMIT_MS: '20' });
    onTestFinished(() => early.close());
    const text = deferred();
    early.of.openai.next(faults.stall('headers', text.promise));
    const answer = await early.gateway.post('/api/llm/chat', { model, messages, stream: true });
    text.resolve();
    expect(readEvents(await answer.text()).terminal).toMatchObject({
      route: { provider: 'local', model, attempts: 1, ignored: [] },
    });
  });
});

describe('the extensions of /api/llm on /v1', () => {
  it.each([
    ['lmstudio', { top_k: 5, repeat_penalty: 1.1, ttl: 60 }, { top_k: 5, repeat_penalty: 1.1, ttl: 60 }],
    ['lmstudio', { min_p: 0.1, context_length: 2048 }, { min_p: 0.1, context_length: 2048 }],
    ['bailian', { top_k: 5, repeat_penalty: 1.1 }, { top_k: 5, repetition_penalty: 1.1 }],
    ['openai', { top_k: 5, min_p: 0.1, repeat_penalty: 1.1 }, { top_k: 5, min_p: 0.1, repeat_penalty: 1.1 }],
  ] as const)('reach %s: %j', async (name, fields, expected) => {
    const answer = await openai({ model: upstreams.of[name].model, messages, ...fields });
    expect(answer.status).toBe(200);
    expect(upstreams.of[name].server.requests.at(-1)?.body).toMatchObject(expected);
  });

  it.each([
    ['bailian', 'min_p', { min_p: 0.1 }],
    ['openai', 'integrations', { integrations: ['mcp/playwright'] }],
    ['lmstudio', 'top_k', { top_k: -1 }],
  ] as const)('are refused by %s by name: %s', async (name, param, fields) => {
    const answer = await openai({ model: upstreams.of[name].model, messages, ...fields });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { param } });
  });
});
