import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { faults } from '../simulators/faults.ts';
import { startGateway } from './gateway.ts';
import { startUpstreams, type Upstreams, upstreamNames } from './upstreams.ts';

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams();
});
afterAll(() => upstreams.close());
beforeEach(() => upstreams.reset());

const messages = [{ role: 'user', content: '你好' }];
const local = { model: 'local-chat', messages };

const chat = (body: unknown, headers?: Readonly<Record<string, string>>): Promise<Response> =>
  upstreams.gateway.post('/v1/chat/completions', body, headers);

/** The stream with its identity replaced by names, after a check that there is only one. */
async function stream(body: object): Promise<string> {
  const response = await chat({ ...local, ...body, stream: true });
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  const text = await response.text();
  expect(new Set(text.match(/"id":"chatcmpl-[0-9a-f-]{36}"/g)).size).toBe(1);
  expect(new Set(text.match(/"created":\d+/g)).size).toBe(1);
  return text.replace(/chatcmpl-[0-9a-f-]{36}/g, 'ID').replace(/"created":\d+/g, '"created":0');
}

const chunk = (delta: object, finish_reason: string | null = null, model = 'local-chat'): string =>
  `data: ${JSON.stringify({
    id: 'ID',
    object: 'chat.completion.chunk',
    created: 0,
    model,
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
  })}\n\n`;

const done = 'data: [DONE]\n\n';

describe('the bytes of a stream', () => {
  it('are a chunk per delta, the role in the first, and no usage unless asked for', async () => {
    upstreams.of.openai.next({ text: ['你', '好'] });
    expect(await stream({})).toBe(
      chunk({ role: 'assistant', content: '你' }) + chunk({ content: '好' }) + chunk({}, 'stop') + done,
    );
  });

  it('end with the usage and without choices if asked for', async () => {
    upstreams.of.openai.next({ text: ['好'], usage: { input: 3, output: 4 } });
    const body = await stream({ stream_options: { include_usage: true } });
    expect(body).toContain('"finish_reason":"stop"}],"usage":null}\n\n');
    const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
    expect(body.endsWith(`,"choices":[],"usage":${JSON.stringify(usage)}}\n\n${done}`)).toBe(true);
  });

  it('carry reasoning beside the content', async () => {
    upstreams.of.openai.next({ reasoning: ['想', '想'], text: ['好'] });
    expect(await stream({})).toBe(
      chunk({ role: 'assistant', content: null, reasoning_content: '想' }) +
        chunk({ reasoning_content: '想' }) +
        chunk({ content: '好' }) +
        chunk({}, 'stop') +
        done,
    );
  });

  it('carry parallel tool calls in pieces', async () => {
    const tools = [{ type: 'function', function: { name: 'add' } }];
    upstreams.of.openai.next({
      text: '',
      toolCalls: [
        { id: 'call_1', name: 'add', arguments: ['{"a":', '1}'] },
        { id: 'call_2', name: 'add', arguments: ['{}'] },
      ],
    });
    const call = (index: number, rest: object) => ({ tool_calls: [{ index, ...rest }] });
    const opening = (id: string) => ({ id, type: 'function', function: { name: 'add', arguments: '' } });
    expect(await stream({ tools })).toBe(
      chunk({ role: 'assistant', content: null, ...call(0, opening('call_1')) }) +
        chunk(call(0, { function: { arguments: '{"a":' } })) +
        chunk(call(0, { function: { arguments: '1}' } })) +
        chunk(call(1, opening('call_2'))) +
        chunk(call(1, { function: { arguments: '{}' } })) +
        chunk({}, 'tool_calls') +
        done,
    );
  });

  it('name the model that really answered', async () => {
    upstreams.of.openai.next({ text: ['好'], model: 'another-model' });
    expect(await stream({})).toBe(
      chunk({ role: 'assistant', content: '好' }, null, 'another-model') +
        chunk({}, 'stop', 'another-model') +
        done,
    );
  });

  it('end with an error and without [DONE] when the upstream fails in the middle', async () => {
    upstreams.of.openai.next({ text: ['一', '二'], ...faults.cut('after-text') });
    const message = 'OpenAI 兼容服务返回错误:连接中断';
    const error = { message, type: 'server_error', param: null, code: 'server_error' };
    expect(await stream({})).toBe(
      `${chunk({ role: 'assistant', content: '一' })}data: ${JSON.stringify({ error })}\n\n`,
    );
  });
});

describe('a stream whose headers leave early', () => {
  it('still names the upstream model in its chunks, and fails as an event', async () => {
    const early = await startUpstreams({ STREAM_COMMIT_MS: '20', UPSTREAM_MAX_RETRIES: '0' });
    onTestFinished(() => early.close());
    let open = (): void => {};
    const hold = new Promise<void>((resolve) => {
      open = resolve;
    });
    early.of.openai.next({ hold, text: ['好'], model: 'another-model' }, { hold, ...faults.refuse() });
    const whole = await early.gateway.post('/v1/chat/completions', { ...local, stream: true });
    const failing = await early.gateway.post('/v1/chat/completions', { ...local, stream: true });
    expect(whole.headers.get('x-gateway-model')).toBeNull();
    open();
    const body = await whole.text();
    expect(body).toContain('"model":"another-model"');
    expect(await failing.text()).toMatch(/\n\ndata: \{"error":\{"message":"[^"]+连接中断"[^\n]+\n\n$/);
  });

  it('beats with chunks of its own id: the first has the one role, the later ones an empty text', async () => {
    const slow = await startUpstreams({ STREAM_COMMIT_MS: '20', HEARTBEAT_MS: '30' });
    onTestFinished(() => slow.close());
    const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
    slow.of.openai.next({ hold: after(120), text: ['你', '好'], gapMs: 100 });
    const answer = await slow.gateway.post('/v1/chat/completions', { ...local, stream: true });
    const chunks = (await answer.text())
      .split('\n\n')
      .filter((event) => event !== '' && event !== 'data: [DONE]')
      .map((event) => chunkSchema.parse(JSON.parse(event.replace(/^data: /, ''))));
    expect(new Set(chunks.map(({ id, created, object }) => `${id} ${created} ${object}`)).size).toBe(1);
    const deltas = chunks.map(({ choices }) => choices[0]?.delta);
    expect(deltas[0]).toEqual({ role: 'assistant', content: '' });
    const first = deltas.findIndex((delta) => delta?.content === '你');
    const second = deltas.findIndex((delta) => delta?.content === '好');
    for (const beats of [deltas.slice(1, first), deltas.slice(first + 1, second)]) {
      expect(beats).not.toEqual([]);
      expect(beats).toEqual(beats.map(() => ({ content: '' })));
    }
    expect(deltas.slice(1).every((delta) => delta?.role === undefined)).toBe(true);
    expect(chunks.map(({ choices }) => choices[0]?.finish_reason).filter(Boolean)).toEqual(['stop']);
  });

  it('beats with empty texts on /v1/completions', async () => {
    const slow = await startUpstreams({ STREAM_COMMIT_MS: '20', HEARTBEAT_MS: '30' });
    onTestFinished(() => slow.close());
    slow.of.openai.next({ hold: new Promise((go) => setTimeout(go, 100)), text: ['好'] });
    const body = { model: 'local-chat', prompt: '从前', stream: true };
    const [beat] = (await (await slow.gateway.post('/v1/completions', body)).text()).split('\n\n');
    expect(JSON.parse(beat?.replace(/^data: /, '') ?? '')).toMatchObject({
      id: expect.stringMatching(/^cmpl-/),
      object: 'text_completion',
      model: 'local-chat',
      choices: [{ text: '', index: 0, logprobs: null, finish_reason: null }],
    });
  });
});

const chunkSchema = z.object({
  id: z.string(),
  object: z.string(),
  created: z.int(),
  choices: z.array(
    z.object({
      delta: z.strictObject({ role: z.string().optional(), content: z.string().optional() }),
      finish_reason: z.string().nullable(),
    }),
  ),
});

const unifiedAnswer = z.object({
  data: z.object({
    content: z.string(),
    finish_reason: z.string(),
    usage: z.object({ input_tokens: z.int(), output_tokens: z.int(), total_tokens: z.int() }),
    tool_calls: z.unknown().optional(),
    reasoning_content: z.string().optional(),
  }),
});

const openaiAnswer = z.object({
  choices: z.tuple([
    z.object({
      message: z.object({
        content: z.string().nullable(),
        tool_calls: z.unknown().optional(),
        reasoning_content: z.string().optional(),
      }),
      finish_reason: z.string(),
    }),
  ]),
  usage: z.object({ prompt_tokens: z.int(), completion_tokens: z.int(), total_tokens: z.int() }),
});

const dataOf = (body: string): unknown[] =>
  body
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => JSON.parse(event.slice('data: '.length)));

const unifiedChunk = z.object({
  content: z.string(),
  finish_reason: z.string().nullable(),
  usage: z.unknown().optional(),
});
const openaiChunk = z.object({
  choices: z.array(
    z.object({
      delta: z.object({ content: z.string().nullish() }),
      finish_reason: z.string().nullable(),
    }),
  ),
  usage: openaiAnswer.shape.usage.nullish(),
});

describe.each(upstreamNames)('the same request through %s', (name) => {
  it('gives the same text, usage and finish on both APIs', async () => {
    const body = { model: upstreams.of[name].model, messages };
    const unified = unifiedAnswer.parse(
      await (await upstreams.gateway.post('/api/llm/chat', body)).json(),
    ).data;
    const openai = openaiAnswer.parse(await (await chat(body)).json());
    const [choice] = openai.choices;
    expect(choice.message.content).toBe(unified.content);
    expect(choice.message.reasoning_content).toBe(unified.reasoning_content);
    expect(choice.finish_reason).toBe(unified.finish_reason);
    expect(openai.usage).toMatchObject({
      prompt_tokens: unified.usage.input_tokens,
      completion_tokens: unified.usage.output_tokens,
      total_tokens: unified.usage.total_tokens,
    });
  });

  it('gives the same tool calls on both APIs', async () => {
    const { model, next } = upstreams.of[name];
    const tools = [{ type: 'function', function: { name: 'add', parameters: { type: 'object' } } }];
    const script = { text: '', toolCalls: [{ id: 'call_1', name: 'add', arguments: '{"a":1}' }] };
    next(script, script);
    const body = { model, messages, tools };
    const unified = unifiedAnswer.parse(
      await (await upstreams.gateway.post('/api/llm/chat', body)).json(),
    ).data;
    const [choice] = openaiAnswer.parse(await (await chat(body)).json()).choices;
    expect(choice.message.content).toBeNull();
    expect(choice.message.tool_calls).toEqual(unified.tool_calls);
    expect([choice.finish_reason, unified.finish_reason]).toEqual(['tool_calls', 'tool_calls']);
  });

  it('gives the same deltas, usage and finish in both streams', async () => {
    const body = { model: upstreams.of[name].model, messages, stream: true };
    const unified = dataOf(await (await upstreams.gateway.post('/api/llm/chat', body)).text()).map((event) =>
      unifiedChunk.parse(event),
    );
    const openai = dataOf(
      await (await chat({ ...body, stream_options: { include_usage: true } })).text(),
    ).map((event) => openaiChunk.parse(event));
    const deltas = openai.flatMap(({ choices }) => choices.flatMap(({ delta }) => delta.content ?? []));
    expect(deltas).toEqual(unified.map(({ content }) => content).filter((content) => content !== ''));
    const usage = openai.at(-1)?.usage;
    expect(unified.at(-1)).toMatchObject({
      finish_reason: openai.at(-2)?.choices[0]?.finish_reason,
      usage: {
        input_tokens: usage?.prompt_tokens,
        output_tokens: usage?.completion_tokens,
        total_tokens: usage?.total_tokens,
      },
    });
  });

  it('honours a tool_choice that names a tool, on both APIs', async () => {
    const { model, next, server } = upstreams.of[name];
    const tools = ['add', 'sub'].map((tool) => ({ type: 'function', function: { name: tool } }));
    const tool_choice = { type: 'function', function: { name: 'sub' } };
    for (const path of ['/v1/chat/completions', '/api/llm/chat']) {
      next({ text: '', toolCalls: [{ id: 'call_1', name: 'sub', arguments: '{}' }] });
      const answer = await upstreams.gateway.post(path, { model, messages, tools, tool_choice });
      expect(answer.status).toBe(200);
      const sent = server.requests.at(-1)?.body;
      if (name === 'bailian') expect(sent).toMatchObject({ tools, tool_choice });
      else expect(sent).toMatchObject({ tools: [tools[1]], tool_choice: 'required' });
    }
  });

  it.each([false, true])(
    'passes on the first call alone if only one is wanted, streamed %s',
    async (stream) => {
      const { model, next } = upstreams.of[name];
      const tools = [{ type: 'function', function: { name: 'add' } }];
      const calls = ['call_1', 'call_2'].map((id) => ({ id, name: 'add', arguments: ['{"a":', '1}'] }));
      next({ text: '', toolCalls: calls });
      const body = { model, messages, tools, parallel_tool_calls: false, stream };
      const text = await (await upstreams.gateway.post('/api/llm/chat', body)).text();
      expect(text).toContain('call_1');
      expect(text).not.toContain('call_2');
      expect(text).toContain('"finish_reason":"tool_calls"');
      expect(text).not.toContain('"index":1');
    },
  );

  it('takes detail as a hint', async () => {
    const { server } = upstreams.of[name];
    const seeing = { lmstudio: 'qwen2-vl-7b-instruct', bailian: 'qwen-vl-max', openai: 'local-chat' }[name];
    const url =
      'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
    const content = [
      { type: 'text', text: '看' },
      { type: 'image_url', image_url: { url, detail: 'high' } },
    ];
    const body = { model: seeing, messages: [{ role: 'user', content }] };
    await upstreams.gateway.post('/api/llm/chat', body);
    const [unified] = server.requests.slice(-1);
    await chat(body);
    const [openai] = server.requests.slice(-1);
    expect(openai).not.toBe(unified);
    for (const request of [unified, openai]) {
      expect(JSON.stringify(request?.body)).toContain(url);
      expect(JSON.stringify(request?.body).includes('"detail":"high"')).toBe(name === 'openai');
    }
  });

  it('has an ending for every finish reason', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: ['一'], finishReason: 'length' });
    const response = await chat({ model, messages });
    expect(openaiAnswer.parse(await response.json()).choices[0].finish_reason).toBe('length');
  });
});

describe('what is passed on', () => {
  const sent = () => upstreams.of.openai.server.requests.at(-1)?.body;

  it('is every parameter that the upstream has, under its own name', async () => {
    const parameters = {
      temperature: 2,
      top_p: 0.5,
      seed: 7,
      presence_penalty: 0.5,
      frequency_penalty: -0.5,
      logit_bias: { '1': 5 },
      tools: [{ type: 'function', function: { name: 'add', parameters: { type: 'object' } } }],
      tool_choice: 'auto',
      parallel_tool_calls: false,
    };
    expect((await chat({ ...local, ...parameters, stop: ['一', '二'] })).status).toBe(200);
    expect(sent()).toMatchObject({ ...parameters, stop: ['一', '二'] });
  });

  it.each([
    ['max_tokens', { max_tokens: 9 }],
    ['max_completion_tokens', { max_completion_tokens: 9 }],
    ['both, if they agree', { max_tokens: 9, max_completion_tokens: 9 }],
    ['one, if the other is -1', { max_tokens: -1, max_completion_tokens: 9 }],
  ])('is the limit as %s', async (_, limits) => {
    expect((await chat({ ...local, ...limits })).status).toBe(200);
    expect(sent()).toMatchObject({ max_tokens: 9 });
  });

  it.each([
    ['none', 'none'],
    ['minimal', 'low'],
    ['low', 'low'],
    ['medium', 'medium'],
    ['high', 'high'],
    ['xhigh', 'high'],
    ['max', 'high'],
  ])('is the reasoning effort %s as %s', async (asked, expected) => {
    expect((await chat({ ...local, reasoning_effort: asked })).status).toBe(200);
    expect(sent()).toMatchObject({ reasoning_effort: expected });
  });

  it('is a developer message as a system message', async () => {
    await chat({ ...local, messages: [{ role: 'developer', content: '简短' }, ...messages] });
    expect(sent()).toMatchObject({ messages: [{ role: 'system', content: '简短' }, ...messages] });
  });

  it('is what an earlier answer said, without what only answers have', async () => {
    const earlier = {
      role: 'assistant',
      content: null,
      refusal: null,
      annotations: [],
      audio: null,
      function_call: null,
      parsed: null,
      reasoning_content: '想',
      tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name: 'add', arguments: '{}' } }],
    };
    const result = { role: 'tool', tool_call_id: 'call_1', content: [{ type: 'text', text: '3' }] };
    expect((await chat({ ...local, messages: [...messages, earlier, result] })).status).toBe(200);
    expect(sent()).toMatchObject({
      messages: [
        messages[0],
        {
          role: 'assistant',
          content: '',
          reasoning_content: '想',
          tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'add', arguments: '{}' } }],
        },
        result,
      ],
    });
    expect(JSON.stringify(sent())).not.toMatch(/annotations|refusal|audio|function_call"|parsed/);
  });

  it('is nothing of what clients keep in messages and their parts for themselves', async () => {
    const content = [{ type: 'text', text: '你好', cache_control: { type: 'ephemeral' } }];
    const message = { role: 'user', content, id: 'm1', timestamp: 1 };
    expect((await chat({ ...local, messages: [message] })).status).toBe(200);
    expect(sent()).toMatchObject({ messages: [{ role: 'user', content: [{ type: 'text', text: '你好' }] }] });
    expect(JSON.stringify(sent())).not.toMatch(/cache_control|m1|timestamp/);
  });

  it('is an empty text for an assistant message whose list of parts is empty', async () => {
    const call = { id: 'call_1', type: 'function', function: { name: 'add', arguments: '{}' } };
    const history = [...messages, { role: 'assistant', content: [], tool_calls: [call] }];
    const result = { role: 'tool', tool_call_id: 'call_1', content: '3' };
    expect((await chat({ ...local, messages: [...history, result] })).status).toBe(200);
    expect(sent()).toMatchObject({
      messages: [messages[0], { role: 'assistant', content: '', tool_calls: [call] }, result],
    });
  });

  it('is up to 64 texts that end the answer', async () => {
    const stop = Array.from({ length: 64 }, (_, n) => `停${n}`);
    expect((await chat({ ...local, stop })).status).toBe(200);
    expect(sent()).toMatchObject({ stop });
  });

  it.each([
    ['what changes nothing', { n: 1, presence_penalty: 0, frequency_penalty: 0, logit_bias: {} }],
    ['no log probabilities', { logprobs: false, top_logprobs: 0 }],
    ['tools that are none', { tools: [], tool_choice: 'auto', parallel_tool_calls: true, functions: [] }],
    ['an answer that is text', { response_format: { type: 'text' }, modalities: ['text'] }],
    ['a limit of -1', { max_tokens: -1, max_completion_tokens: -1 }],
    ['null', { temperature: null, stop: null, audio: null, verbosity: null, stream_options: null }],
    ['what is for bookkeeping', { user: 'u', metadata: { a: 'b' }, service_tier: 'flex', store: true }],
    ['keys for OpenAI', { prompt_cache_key: 'k', safety_identifier: 's' }],
    ['hints for OpenAI', { prompt_cache_retention: '24h', prediction: { type: 'content', content: '一' } }],
    ['the usual verbosity', { verbosity: 'medium' }],
    ['a choice among tools that are none', { tool_choice: 'none', parallel_tool_calls: false }],
    ['a choice among functions that are none', { functions: [], function_call: 'auto' }],
    ['what OpenAI does not have', { chat_id: 'x', options: { num_ctx: 1 }, think: true }],
  ])('is nothing of %s', async (_, fields) => {
    expect((await chat({ ...local, ...fields })).status).toBe(200);
    expect(sent()).toEqual({ ...local, stream: false });
  });
});

describe('what cannot be honoured', () => {
  const tool = { type: 'function', function: { name: 'add' } };

  it.each([
    ['n', { n: 2 }],
    ['audio', { audio: { voice: 'alloy', format: 'wav' } }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['web_search_options', { web_search_options: {} }],
    ['functions', { functions: [{ name: 'add' }] }],
    ['function_call', { function_call: { name: 'add' } }],
    ['verbosity', { verbosity: 'low' }],
    ['moderation', { moderation: {} }],
    ['prompt_cache_options', { prompt_cache_options: {} }],
    ['stream_options.include_obfuscation', { stream_options: { include_obfuscation: true } }],
    ['temperature', { temperature: 2.1 }],
    ['temperature', { temperature: '1' }],
    ['top_p', { top_p: 1.1 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 5, max_completion_tokens: 6 }],
    ['max_completion_tokens', { max_completion_tokens: -2 }],
    ['reasoning_effort', { reasoning_effort: 'extreme' }],
    ['top_logprobs', { top_logprobs: 3 }],
    ['top_logprobs', { logprobs: true, top_logprobs: 21 }],
    ['stop', { stop: Array.from({ length: 65 }, String) }],
    ['tools[0].type', { tools: [{ type: 'custom', custom: { name: 'a' } }] }],
    ['tool_choice', { tools: [tool], tool_choice: { type: 'allowed_tools', allowed_tools: {} } }],
    ['tool_choice', { tool_choice: 'required' }],
    ['tool_choice', { tools: [tool], tool_choice: { type: 'function', function: { name: 'sub' } } }],
    ['response_format', { response_format: { type: 'grammar' } }],
    ['messages[0].function_call', { messages: [{ role: 'assistant', content: '', function_call: {} }] }],
    ['messages[0].audio', { messages: [{ role: 'assistant', content: '', audio: { id: 'a' } }] }],
    ['messages[0].role', { messages: [{ role: 'function', name: 'a', content: '1' }] }],
    ['messages[0].content[0].type', { messages: [{ role: 'user', content: [{ type: 'input_audio' }] }] }],
    ['messages[0].content[0].type', { messages: [{ role: 'user', content: [{ type: 'file' }] }] }],
  ])('is refused by name: %s in %j', async (param, fields) => {
    const response = await chat({ ...local, ...fields });
    expect(response.status).toBe(400);
    const { error } = z
      .object({
        error: z.object({ message: z.string(), type: z.string(), param: z.string(), code: z.null() }),
      })
      .parse(await response.json());
    expect(error.type).toBe('invalid_request_error');
    expect(error.param === param || error.param.startsWith(`${param}.`)).toBe(true);
    expect(error.message).toContain(param);
    expect(upstreams.of.openai.server.requests).toHaveLength(0);
  });

  it('says what takes the place of the old function calls', async () => {
    const response = await chat({ ...local, functions: [{ name: 'add' }] });
    expect(await response.json()).toMatchObject({
      error: { message: '参数值超出有效范围:functions: 不支持此参数, 请使用 tools' },
    });
  });

  it.each([
    ['temperature', 'qwen-max', { temperature: 2 }],
    ['logprobs', 'qwen2.5-7b-instruct', { logprobs: true }],
    ['reasoning', 'qwen-max', { reasoning: 'high' }],
    ['frequency_penalty', 'qwen-max', { frequency_penalty: 1 }],
  ])(
    'is refused under the field that the caller set: %s by the route of %s',
    async (param, model, fields) => {
      const response = await chat({ model, messages, ...fields });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({
        error: { param, message: expect.stringMatching(new RegExp(`^参数值超出有效范围:${param}: `)) },
      });
    },
  );
});

describe('an error', () => {
  const shape = (message: unknown, type: string, code: string | null, param: string | null = null) => ({
    error: { message, type, param, code },
  });

  it.each([
    ['a missing model', { messages }],
    ['an unknown model', { model: 'nobody', messages }],
    ['an embedding model', { model: 'local-embed', messages }],
  ])('for %s is model_not_found', async (_, body: object) => {
    const response = await chat(body);
    expect(response.status).toBe(400);
    expect(response.headers.get('x-error-code')).toBe('INVALID_MODEL');
    expect(await response.json()).toEqual(
      shape('无效的模型名称或模型类型不匹配', 'invalid_request_error', 'model_not_found', 'model'),
    );
  });

  it('for no messages says so', async () => {
    const response = await chat({ model: 'local-chat', messages: [] });
    expect(response.headers.get('x-error-code')).toBe('INVALID_MESSAGES');
    expect(await response.json()).toEqual(
      shape('消息列表不能为空', 'invalid_request_error', null, 'messages'),
    );
  });

  it.each([
    ['no JSON', '{', 400, 'INVALID_PARAMS'],
    ['an empty body', '', 400, 'INVALID_PARAMS'],
    ['an array', '[]', 400, 'INVALID_PARAMS'],
    ['a prototype', '{"__proto__":{}}', 400, 'INVALID_PARAMS'],
  ])('for %s has the same shape', async (_, body, status, code) => {
    const response = await chat(body);
    expect(response.status).toBe(status);
    expect(response.headers.get('x-error-code')).toBe(code);
    expect(await response.json()).toEqual(shape(expect.any(String), 'invalid_request_error', null));
  });

  it('for another media type has the same shape', async () => {
    const response = await chat('<chat/>', { 'content-type': 'application/xml' });
    expect(response.status).toBe(415);
    expect(await response.json()).toEqual(
      shape(
        expect.stringMatching(/^不支持的媒体类型:请求体须为 application\/json, /),
        'invalid_request_error',
        null,
      ),
    );
  });

  it('for a body that is too long has the same shape', async () => {
    const gateway = await startGateway({ BODY_LIMIT_BYTES: '1024' });
    onTestFinished(() => gateway.close());
    const response = await gateway.post('/v1/chat/completions', { ...local, user: 'x'.repeat(2000) });
    expect(response.status).toBe(413);
    expect(await response.json()).toEqual(shape('请求体过大', 'invalid_request_error', null));
  });

  it('for another method names the one that exists', async () => {
    const response = await upstreams.gateway.get('/v1/chat/completions');
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toContain('POST');
    expect(await response.json()).toEqual(shape('请求方法不被允许', 'invalid_request_error', null));
  });

  it('for a path that does not exist has the same shape', async () => {
    const response = await upstreams.gateway.post('/v1/audio/speech', {});
    expect(response.status).toBe(404);
    expect(await response.json()).toEqual(
      shape(`资源不存在:请使用基础地址 ${upstreams.gateway.url}/v1`, 'invalid_request_error', 'unknown_url'),
    );
  });

  it.each(['GET', 'POST', 'DELETE'])('for %s /v1/responses points to chat completions', async (method) => {
    for (const path of ['/v1/responses', '/v1/responses/resp_1']) {
      const response = await fetch(upstreams.gateway.url + path, { method });
      expect(response.status).toBe(404);
      expect(response.headers.get('x-error-code')).toBe('NOT_FOUND');
      expect(await response.json()).toEqual(
        shape(expect.stringContaining('/v1/chat/completions'), 'invalid_request_error', 'unknown_url'),
      );
    }
  });

  it('without a key is invalid_api_key', async () => {
    const gateway = await startGateway({ AUTH: 'on', ADMIN_API_KEY: 'an-administrator-key-of-the-tests' });
    onTestFinished(() => gateway.close());
    const response = await gateway.post('/v1/chat/completions', local);
    expect(response.status).toBe(401);
    expect(await response.json()).toEqual(
      shape('未授权:API Key缺失或无效', 'invalid_request_error', 'invalid_api_key'),
    );
  });

  it('of the upstream has its words, and is not to be repeated', async () => {
    const { next } = upstreams.of.openai;
    next(faults.status(503), faults.status(503), faults.status(503));
    const response = await chat(local, { 'x-request-id': 'my-own-id' });
    expect(response.status).toBe(502);
    expect(response.headers.get('x-error-code')).toBe('UPSTREAM_ERROR');
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect(response.headers.get('x-request-id')).toBe('my-own-id');
    expect(await response.json()).toEqual(
      shape('OpenAI 兼容服务返回错误:Service unavailable', 'server_error', 'server_error'),
    );
  });

  it('for an upstream at its limit tells when to come again', async () => {
    upstreams.of.openai.next(faults.rateLimited('30'));
    const response = await chat({ ...local, stream: true });
    expect(response.status).toBe(429);
    expect(response.headers.get('retry-after')).toBe('30');
    expect(await response.json()).toEqual(
      shape(
        '请求频率超限:OpenAI 兼容服务返回错误:Too many requests',
        'rate_limit_error',
        'rate_limit_exceeded',
      ),
    );
  });

  it('for a prompt that does not fit is context_length_exceeded', async () => {
    const content = '长'.repeat(20_000);
    const response = await chat({ ...local, messages: [{ role: 'user', content }] });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { type: 'invalid_request_error', code: 'context_length_exceeded' },
    });
  });
});

describe('GET /v1/models', () => {
  const list = z.object({ object: z.literal('list'), data: z.array(z.object({ id: z.string() })) });

  it('lists chat and embedding models with what is known of them', async () => {
    const { data } = list.parse(await (await upstreams.gateway.get('/v1/models')).json());
    const ids = data.map(({ id }) => id);
    expect(ids).toEqual(expect.arrayContaining(['qwen-max', 'text-embedding-v4', 'local-chat']));
    expect(ids).toContain('text-embedding-nomic-embed-text-v1.5');
  });

  it.each(['openai/gpt-oss-20b', 'openai%2Fgpt-oss-20b'])('shows one model: %s', async (id) => {
    const response = await upstreams.gateway.get(`/v1/models/${id}`);
    expect(await response.json()).toEqual({
      id: 'openai/gpt-oss-20b',
      object: 'model',
      created: expect.any(Number),
      owned_by: 'lmstudio',
      context_length: expect.any(Number),
      max_output_tokens: null,
      capabilities: ['tool_use', 'reasoning'],
      state: expect.stringMatching(/^(?:loaded|not-loaded)$/),
    });
  });

  it('tells the length with which a model is loaded', async () => {
    const response = await upstreams.gateway.get('/v1/models/qwen2.5-7b-instruct');
    expect(await response.json()).toMatchObject({
      context_length: 4096,
      capabilities: ['tool_use'],
      state: 'loaded',
    });
  });

  it('knows the limits of a model that no list describes', async () => {
    const response = await upstreams.gateway.get('/v1/models/qwen-max');
    expect(await response.json()).toMatchObject({
      owned_by: 'bailian',
      context_length: expect.any(Number),
      max_output_tokens: expect.any(Number),
      state: 'unknown',
    });
  });

  it('answers 404 for a model that is not there', async () => {
    const response = await upstreams.gateway.get('/v1/models/nobody/at-home');
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: 'model_not_found', param: 'model' } });
  });
});
