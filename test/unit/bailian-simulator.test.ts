import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bailian } from '../../src/adapters/bailian.ts';
import type { Target, UpstreamCall } from '../../src/chat/adapter.ts';
import { GatewayError } from '../../src/chat/errors.ts';
import { type ChatEvent, type ChatResult, collect } from '../../src/chat/events.ts';
import type { ChatRequest, Parameters } from '../../src/chat/request.ts';
import { FrameReader } from '../../src/upstream/sse.ts';
import { type BailianSimulator, defaultKey, startBailian } from '../simulators/bailian.ts';
import { bailianFaults } from '../simulators/bailian-faults.ts';
import { faults } from '../simulators/faults.ts';

let platform: BailianSimulator;

beforeAll(async () => {
  platform = await startBailian();
});
beforeEach(() => {
  platform.scripts.clear();
  platform.forget();
});
afterAll(() => platform.stop());

const post = (body: object, path = '/chat/completions', key = defaultKey): Promise<Response> =>
  fetch(`${platform.baseUrl}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });

const hello = { model: 'qwen-max', messages: [{ role: 'user', content: '你好' }] };

/** The platform's complaint about a call, with its status. */
async function complaint(body: object, path?: string): Promise<string> {
  const response = await post(body, path);
  const text = await response.text();
  const message = /"message":"((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? text;
  return `${response.status} ${message}`;
}

describe('what the platform refuses', () => {
  it('a wrong key', async () => {
    const response = await post(hello, undefined, 'sk-other');
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({ error: { code: 'invalid_api_key', param: null } });
  });

  const picture = [{ type: 'image_url', image_url: { url: 'https://example.com/a.png' } }];
  const tool = { type: 'function', function: { name: 'f' } };
  it.each([
    ['no model', { messages: hello.messages }, '400 .*you must provide a model parameter'],
    ['an unknown model', { ...hello, model: 'qwen-nope' }, '404 The model `qwen-nope` does not exist'],
    ['no messages', { ...hello, messages: [] }, '400 .*is too short'],
    [
      'the role developer',
      { ...hello, messages: [{ role: 'developer', content: 'x' }] },
      '400 .*developer is not one of',
    ],
    ['no user message', { ...hello, messages: [{ role: 'system', content: 'x' }] }, '400 .*user message'],
    [
      'parts for a text model',
      { ...hello, messages: [{ role: 'user', content: picture }] },
      '400 .*must be a string',
    ],
    [
      'a tool message out of place',
      { ...hello, messages: [...hello.messages, { role: 'tool', content: 'x' }] },
      '400 .*preceeding message',
    ],
    [
      'an unknown parameter',
      { ...hello, frequency_penalty: 1 },
      '400 .*Unknown parameter: frequency_penalty',
    ],
    ['temperature 2', { ...hello, temperature: 2 }, '400 .*Temperature should be in'],
    ['top_p 0', { ...hello, top_p: 0 }, '400 .*Range of top_p'],
    ['a negative seed', { ...hello, seed: -1 }, '400 .*Range of seed'],
    ['too many tokens', { ...hello, max_tokens: 9000 }, '400 .*Range of max_tokens should be \\[1, 8192\\]'],
    [
      'max_completion_tokens on an older model',
      { ...hello, max_completion_tokens: 9 },
      '400 .*max_completion_tokens',
    ],
    [
      'enable_thinking where there is none',
      { ...hello, enable_thinking: false },
      '400 .*does not support enable_thinking',
    ],
    [
      'no thinking where there is nothing else',
      { ...hello, model: 'qwq-plus', stream: true, enable_thinking: false },
      '400 .*restricted to True',
    ],
    [
      'a budget above the ceiling',
      { ...hello, model: 'qwen3-235b-a22b', stream: true, thinking_budget: 40_000 },
      '400 .*not greater than 38912',
    ],
    [
      'effort and budget together',
      { ...hello, model: 'qwen3.8-max', reasoning_effort: 'low', thinking_budget: 9 },
      '400 .*mutually exclusive',
    ],
    [
      'effort on an older model',
      { ...hello, model: 'qwen-plus', reasoning_effort: 'low' },
      '400 .*reasoning_effort',
    ],
    ['plain calls of a stream-only model', { ...hello, model: 'qwq-plus' }, '400 .*only support stream mode'],
    [
      'plain calls with thinking',
      { ...hello, model: 'qwen-turbo', enable_thinking: true },
      '400 .*non-streaming calls',
    ],
    [
      'JSON mode without the word',
      { ...hello, response_format: { type: 'json_object' } },
      "400 .*must contain the word 'json'",
    ],
    [
      'JSON mode with thinking',
      { ...hello, model: 'qwen3.5-plus', response_format: { type: 'json_object' } },
      '400 .*Json mode response is not supported',
    ],
    [
      'tool_choice required',
      { ...hello, tools: [tool], tool_choice: 'required' },
      '400 .*tool_choice is one of',
    ],
    [
      'a tool named search',
      { ...hello, tools: [{ type: 'function', function: { name: 'search' } }] },
      '400 .*\\[search\\]',
    ],
    ['an empty list of tools', { ...hello, tools: [] }, '400 .*too short'],
    [
      'a long prompt',
      { ...hello, messages: [{ role: 'user', content: 'x'.repeat(40_000) }] },
      '400 .*Range of input length should be \\[1, 30720\\]',
    ],
    ['a native body', { model: 'qwen-max', input: { messages: hello.messages } }, '400 .*Either'],
  ])('%s', async (_what, body, pattern) => {
    expect(await complaint(body)).toMatch(new RegExp(`^${pattern}`));
  });

  it('more than ten texts to embed', async () => {
    const input = Array.from({ length: 11 }, (_, index) => `text ${index}`);
    expect(await complaint({ model: 'text-embedding-v4', input }, '/embeddings')).toContain(
      'batch size is invalid, it should not be larger than 10.',
    );
  });

  it('embeddings in base64', async () => {
    const body = { model: 'text-embedding-v4', input: 'x', encoding_format: 'base64' };
    expect(await complaint(body, '/embeddings')).toMatch(/^400/);
  });
});

describe('what the platform sends', () => {
  it('streams to the byte as recorded', async () => {
    platform.scripts.next({ text: ['Hel', 'lo'], usage: { input: 12, output: 4 } });
    const response = await post({ ...hello, stream: true, stream_options: { include_usage: true } });
    const tail = '"created":1770000000,"system_fingerprint":null,"model":"qwen-max","id":"chatcmpl-sim"}';
    const chunk = (choice: string): string =>
      `data: {"choices":[{${choice}}],"object":"chat.completion.chunk","usage":null,${tail}\n\n`;
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    expect(await response.text()).toBe(
      [
        chunk('"delta":{"content":"","role":"assistant"},"index":0,"logprobs":null,"finish_reason":null'),
        chunk('"finish_reason":null,"logprobs":null,"delta":{"content":"Hel"},"index":0'),
        chunk('"finish_reason":null,"logprobs":null,"delta":{"content":"lo"},"index":0'),
        chunk('"finish_reason":"stop","logprobs":null,"delta":{"content":""},"index":0'),
        `data: {"choices":[],"object":"chat.completion.chunk","usage":{"prompt_tokens":12,"completion_tokens":4,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":0}},${tail}\n\n`,
        'data: [DONE]\n\n',
      ].join(''),
    );
  });

  it('tells usage in a stream only to those who ask', async () => {
    const text = await (await post({ ...hello, stream: true })).text();
    expect(text).not.toContain('prompt_tokens');
  });

  it('lists models for a key', async () => {
    const url = `${platform.baseUrl}/models`;
    expect((await fetch(url)).status).toBe(401);
    const response = await fetch(url, { headers: { authorization: `Bearer ${defaultKey}` } });
    expect(bailian.listings[0]?.decode(await response.json())).toContainEqual({
      id: 'qwen-turbo',
      type: 'llm',
      state: 'unknown',
    });
  });
});

const targetOf = (model: string): Target => ({
  provider: 'bailian',
  displayName: '百炼平台',
  model,
  apiKey: defaultKey,
  apis: undefined,
  api: 'auto',
  info: undefined,
});

const ask = (parameters: Parameters = {}, stream = false): ChatRequest => ({
  kind: 'chat',
  model: 'title',
  messages: [{ role: 'user', content: '用 json 回答' }],
  parameters,
  stream,
  includeProgress: false,
});

const send = (call: UpstreamCall): Promise<Response> =>
  fetch(`${platform.baseUrl}${call.path}`, {
    method: call.method,
    headers: call.headers,
    ...(call.body === undefined ? {} : { body: call.body }),
  });

/** One call through the adapter, collected. @throws GatewayError */
async function answerOf(model: string, request: ChatRequest): Promise<ChatResult> {
  const target = targetOf(model);
  const adapter = bailian.adapterFor(request, target);
  const refused = adapter.refuse(request, target);
  if (refused !== undefined) throw refused;
  const call = adapter.chat(request, target);
  const response = await send(call);
  const text = await response.text();
  const contentType = response.headers.get('content-type') ?? '';
  if (!response.ok) {
    throw adapter.decodeError(
      { status: response.status, contentType, body: text, retryAfterSeconds: undefined },
      target,
    );
  }
  if (!contentType.startsWith('text/event-stream'))
    return adapter.decodeResult(JSON.parse(text), request, target);
  const decoder = adapter.decoder(request, target);
  const reader = new FrameReader();
  const events: ChatEvent[] = [];
  for (const frame of [...reader.push(Buffer.from(text)), ...reader.end()])
    events.push(...decoder.push(frame));
  return collect([...events, ...decoder.end()]);
}

describe('the adapter against the platform', () => {
  const models = [
    'qwen-turbo',
    'qwen-plus',
    'qwen-plus-latest',
    'qwen-max',
    'qwen-flash',
    'qwen-long',
    'qwen3-max',
    'qwen3-max-preview',
    'qwen3.5-plus',
    'qwen3.5-flash',
    'qwen3.6-plus',
    'qwen3.7-max',
    'qwen3.7-max-preview',
    'qwen3.7-plus',
    'qwen3.8-max',
    'qwen3.8-flash',
    'qwen3-coder-plus',
    'qwen-vl-max',
    'qwen3-vl-plus',
    'qwq-plus',
    'qvq-max',
    'qwen3-235b-a22b',
    'qwen3-235b-a22b-thinking-2507',
    'qwen3-235b-a22b-instruct-2507',
  ];
  const tools: Parameters['tools'] = [{ type: 'function', function: { name: 'f' } }];
  const ways: readonly Parameters[] = [
    {},
    { reasoning: 'off' },
    { reasoning: 'on' },
    { reasoning: 'low' },
    { reasoning: 'high', max_tokens: 100 },
    { response_format: { type: 'json_object' } },
    { tools, tool_choice: { type: 'function', function: { name: 'f' } } },
    {
      temperature: 1.99,
      top_p: 1,
      top_k: 5,
      stop: ['x'],
      seed: 0,
      presence_penalty: -2,
      repeat_penalty: 1.1,
    },
  ];

  it.each(models)('%s: whatever the adapter does not refuse is accepted', async (model) => {
    for (const parameters of ways) {
      for (const stream of [false, true]) {
        const answer = await answerOf(model, ask(parameters, stream)).catch((error: unknown) => error);
        if (answer instanceof GatewayError) expect(answer.message).toContain(`的模型 ${model} `);
        else expect(answer).toMatchObject({ content: '你好!我是通义千问。', usage: { input_tokens: 12 } });
      }
    }
  });

  it('says that a model it does not know only streams', async () => {
    await expect(answerOf('qwen9-stream', ask())).rejects.toMatchObject({ reason: 'stream_only' });
  });

  it.each(['object', 'native', 'error_finish'] as const)(
    'reads a throttle in mid-stream as %s',
    async (failureForm) => {
      platform.scripts.next(bailianFaults.throttledAfterText(failureForm));
      await expect(answerOf('qwen-plus', ask({}, true))).rejects.toMatchObject({ code: 'RATE_LIMITED' });
    },
  );

  it('reads the words of a failure that come as text', async () => {
    platform.scripts.next({
      failureForm: 'error_finish_text',
      error: { at: 'after-text', message: '模型不可用' },
    });
    await expect(answerOf('qwen-plus', ask({}, true))).rejects.toThrow('百炼平台返回错误:模型不可用');
  });

  it('ends as filtered where inspection strikes in mid-stream', async () => {
    platform.scripts.next({ text: ['一', '二'], ...bailianFaults.filteredAfterText() });
    expect(await answerOf('qwen-plus', ask({}, true))).toMatchObject({
      content: '一',
      finish: { reason: 'content_filter' },
    });
  });

  it('reads scripted tool calls', async () => {
    platform.scripts.next({ toolCalls: [{ name: 'f', arguments: ['{"a":', '1}'] }] });
    expect(await answerOf('qwen-plus', ask({ tools }, true))).toMatchObject({
      toolCalls: [{ id: 'call_sim_0', function: { name: 'f', arguments: '{"a":1}' } }],
      finish: { reason: 'tool_calls' },
    });
  });

  it('does not take a stream that ends early for an answer', async () => {
    platform.scripts.next(faults.endsEarly());
    await expect(answerOf('qwen-plus', ask({}, true))).rejects.toMatchObject({ reason: 'cut' });
  });

  it.each([
    ['throttled', { code: 'RATE_LIMITED', retryable: true }],
    ['freeAllowanceUsedUp', { code: 'RATE_LIMITED', retryable: false }],
    ['arrearage', { code: 'UPSTREAM_ERROR', retryable: false, reason: 'quota' }],
    ['arrearageAsNativeStream', { code: 'UPSTREAM_ERROR', retryable: false, reason: 'quota' }],
    ['filtered', { code: 'INVALID_PARAMS', reason: 'content_filter' }],
    ['filteredAsStream', { code: 'INVALID_PARAMS', reason: 'content_filter' }],
    ['throttledAfterText', { code: 'RATE_LIMITED', retryable: true }],
    ['overloaded', { code: 'UPSTREAM_ERROR', retryable: true }],
    ['nativeErrorIn200', { code: 'UPSTREAM_ERROR', retryable: true }],
  ] as const)('reads %s', async (name, expected) => {
    platform.scripts.next(bailianFaults[name]());
    await expect(answerOf('qwen-plus', ask({}, true))).rejects.toMatchObject(expected);
  });

  it('calls a plain answer that was cut after five minutes length', async () => {
    platform.scripts.next(bailianFaults.cutAfterFiveMinutes());
    expect(await answerOf('qwen-plus', ask())).toMatchObject({ finish: { reason: 'length', raw: null } });
  });

  it('embeds in order', async () => {
    const { embeddings } = bailian;
    const target = targetOf('text-embedding-v3');
    const request = { kind: 'embedding', model: 't', input: ['7', '3'], dimensions: 64 } as const;
    const response = await send(embeddings?.embed(request, target) ?? expect.fail('no embeddings'));
    const result = embeddings?.decodeEmbeddings(await response.json(), target);
    expect(result?.embeddings.map((vector) => [vector[0], vector.length])).toEqual([
      [7, 64],
      [3, 64],
    ]);
  });
});
