/** The simulator behaves as LM Studio's reference says, refuses what the real server refuses, and can fail on purpose. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { faults } from '../simulators/faults.ts';
import { type LmStudioOptions, type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { replyTo, tokenize } from '../simulators/lmstudio-answers.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';

const llm = 'qwen2.5-7b-instruct';
const thinker = 'openai/gpt-oss-20b';
const vision = 'qwen2-vl-7b-instruct';
const png = 'data:image/png;base64,iVBORw0KGgo=';
const hello = [{ role: 'user', content: '你好' }];
const reply = replyTo([{ role: 'user', text: '你好' }]);

const open: LmStudioSimulator[] = [];
async function start(options: LmStudioOptions = {}): Promise<LmStudioSimulator> {
  const simulator = await startLmStudio(options);
  open.push(simulator);
  return simulator;
}
afterEach(async () => {
  await Promise.all(open.splice(0).map((simulator) => simulator.close()));
});

interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: unknown;
}

async function read(response: Response): Promise<Reply> {
  const text = await response.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

const request = (
  simulator: LmStudioSimulator,
  path: string,
  body: object,
  init: RequestInit = {},
): Promise<Response> =>
  fetch(`${simulator.url}${path}`, { method: 'POST', body: JSON.stringify(body), ...init });
const post = async (simulator: LmStudioSimulator, path: string, body: object): Promise<Reply> =>
  read(await request(simulator, path, body));
const get = async (simulator: LmStudioSimulator, path: string): Promise<Reply> =>
  read(await fetch(`${simulator.url}${path}`));
const chat0 = (simulator: LmStudioSimulator, body: object = {}): Promise<Reply> =>
  post(simulator, '/api/v0/chat/completions', { model: llm, messages: hello, ...body });
const chat1 = (simulator: LmStudioSimulator, body: object = {}): Promise<Reply> =>
  post(simulator, '/api/v1/chat', { model: llm, input: '你好', ...body });
const stream0 = (simulator: LmStudioSimulator, body: object = {}): Promise<Reply> =>
  chat0(simulator, { stream: true, ...body });
const stream1 = (simulator: LmStudioSimulator, body: object = {}): Promise<Reply> =>
  chat1(simulator, { stream: true, ...body });

const chunkSchema = z.looseObject({
  choices: z.array(
    z.looseObject({
      delta: z.looseObject({
        content: z.string().optional(),
        reasoning_content: z.string().optional(),
        reasoning: z.string().optional(),
        tool_calls: z.array(z.looseObject({ index: z.int() })).optional(),
      }),
      finish_reason: z.string().nullable(),
    }),
  ),
  usage: z.unknown().optional(),
  stats: z.looseObject({ stop_reason: z.string() }).optional(),
});
const completionSchema = z.looseObject({
  model: z.string(),
  choices: z.array(z.looseObject({ finish_reason: z.string().nullable(), message: z.looseObject({}) })),
  usage: z.unknown().optional(),
  stats: z.looseObject({ stop_reason: z.string() }),
});
const chatSchema = z.looseObject({
  output: z.array(z.looseObject({ type: z.string() })),
  stats: z.looseObject({ total_output_tokens: z.number() }),
  response_id: z.string().optional(),
});

const dataLines = (text: string): readonly string[] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .map((line) => line.slice('data: '.length));
const chunks = (text: string): readonly z.output<typeof chunkSchema>[] =>
  dataLines(text)
    .filter((line) => line !== '[DONE]')
    .map((line) => chunkSchema.parse(JSON.parse(line)));
const eventsOf = (text: string): readonly Readonly<Record<string, unknown>>[] =>
  dataLines(text).map((line) => z.record(z.string(), z.unknown()).parse(JSON.parse(line)));
const names = (text: string): readonly unknown[] => eventsOf(text).map((event) => event.type);
const textOf = (text: string): string =>
  chunks(text)
    .map((chunk) => chunk.choices[0]?.delta.content ?? '')
    .join('');

/** What arrived until the connection broke, and whether it did. */
async function readBroken(response: Response): Promise<{ readonly text: string; readonly broken: boolean }> {
  const bytes: Uint8Array[] = [];
  try {
    for await (const piece of response.body ?? []) bytes.push(piece);
    return { text: Buffer.concat(bytes).toString(), broken: false };
  } catch {
    return { text: Buffer.concat(bytes).toString(), broken: true };
  }
}
const broken0 = async (
  simulator: LmStudioSimulator,
): Promise<{ readonly text: string; readonly broken: boolean }> =>
  readBroken(
    await request(simulator, '/api/v0/chat/completions', { model: llm, messages: hello, stream: true }),
  );

describe('v0 answers', () => {
  it('lists models with their state', async () => {
    const { json } = await get(await start(), '/api/v0/models');
    expect(json).toMatchObject({
      object: 'list',
      data: [
        { id: llm, type: 'llm', state: 'loaded', loaded_context_length: 4096, capabilities: ['tool_use'] },
        { id: thinker, state: 'not-loaded', compatibility_type: 'gguf', max_context_length: 131_072 },
        { id: vision, type: 'vlm' },
        { type: 'embeddings' },
      ],
    });
  });

  it('tells of one model, plain or percent-encoded', async () => {
    const simulator = await start();
    const plain = await get(simulator, `/api/v0/models/${thinker}`);
    const encoded = await get(simulator, `/api/v0/models/${encodeURIComponent(thinker)}`);
    expect(plain.json).toMatchObject({ id: thinker, object: 'model' });
    expect(encoded.json).toEqual(plain.json);
  });

  it('completes a chat with usage that adds up, stats, model_info and runtime', async () => {
    const { status, json } = await chat0(await start());
    expect(status).toBe(200);
    expect(json).toMatchObject({
      object: 'chat.completion',
      model: llm,
      choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: reply } }],
      usage: {
        prompt_tokens: 5,
        completion_tokens: tokenize(reply).length,
        total_tokens: 5 + tokenize(reply).length,
      },
      stats: { stop_reason: 'eosFound' },
      model_info: { arch: 'qwen2', context_length: 4096 },
      runtime: { supported_formats: ['gguf'] },
    });
  });

  it('streams a role, one delta a piece, a finish with stats, the usage if asked for, and [DONE]', async () => {
    const { text, headers } = await stream0(await start(), { stream_options: { include_usage: true } });
    expect(headers.get('content-type')).toBe('text/event-stream');
    const all = chunks(text);
    expect(all[0]?.choices[0]?.delta).toEqual({ role: 'assistant' });
    expect(all.slice(1, -2).map((chunk) => chunk.choices[0]?.delta.content)).toEqual(tokenize(reply));
    expect(all.at(-2)?.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
    expect(all.at(-2)?.stats?.stop_reason).toBe('eosFound');
    expect(all.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 5 } });
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  it('streams no usage unless asked for it', async () => {
    expect((await stream0(await start())).text).not.toContain('"usage"');
  });

  it('stops at max_tokens with length, and has no limit at -1', async () => {
    const simulator = await start();
    expect((await chat0(simulator, { max_tokens: 3 })).json).toMatchObject({
      choices: [{ finish_reason: 'length', message: { content: tokenize(reply).slice(0, 3).join('') } }],
      usage: { completion_tokens: 3 },
      stats: { stop_reason: 'maxPredictedTokensReached' },
    });
    expect((await chat0(simulator, { max_tokens: -1 })).json).toMatchObject({
      choices: [{ finish_reason: 'stop' }],
    });
  });

  it('stops before a stop string, wherever pieces end', async () => {
    expect((await chat0(await start(), { stop: ['说的是'] })).json).toMatchObject({
      choices: [{ finish_reason: 'stop', message: { content: '你好!你' } }],
      stats: { stop_reason: 'stopStringFound' },
    });
  });

  it('calls a tool that the user names, with arguments that fit its schema', async () => {
    const parameters = {
      type: 'object',
      properties: { city: { type: 'string' }, days: { type: 'integer' } },
    };
    const tools = [{ type: 'function', function: { name: 'get_weather', parameters } }];
    const messages = [{ role: 'user', content: '请用 get_weather' }];
    const simulator = await start();
    expect((await chat0(simulator, { tools, messages })).json).toMatchObject({
      choices: [
        {
          finish_reason: 'tool_calls',
          message: {
            tool_calls: [
              { type: 'function', function: { name: 'get_weather', arguments: '{"city":"示例","days":1}' } },
            ],
          },
        },
      ],
      stats: { stop_reason: 'toolCalls' },
    });
    const deltas = chunks((await stream0(simulator, { tools, messages })).text).flatMap(
      (chunk) => chunk.choices[0]?.delta.tool_calls ?? [],
    );
    expect(deltas[0]).toMatchObject({ index: 0, type: 'function', function: { name: 'get_weather' } });
    expect(deltas.length).toBeGreaterThan(2);
  });

  it('calls the first tool if one is required, and none if none is wanted', async () => {
    const simulator = await start();
    const tools = [{ type: 'function', function: { name: 'clock' } }];
    const required = await chat0(simulator, { tools, tool_choice: 'required' });
    expect(required.json).toMatchObject({ choices: [{ finish_reason: 'tool_calls' }] });
    const none = await chat0(simulator, {
      tools,
      tool_choice: 'none',
      messages: [{ role: 'user', content: 'clock' }],
    });
    expect(none.json).toMatchObject({ choices: [{ finish_reason: 'stop' }] });
  });

  it('answers with JSON that fits a json_schema', async () => {
    const schema = { type: 'object', properties: { name: { type: 'string' }, ok: { type: 'boolean' } } };
    const { json } = await chat0(await start(), {
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema } },
    });
    expect(json).toMatchObject({ choices: [{ message: { content: '{"name":"示例","ok":true}' } }] });
  });

  it('sees images with a model that can', async () => {
    const content = [
      { type: 'text', text: '看' },
      { type: 'image_url', image_url: { url: png } },
    ];
    const { json } = await chat0(await start(), { model: vision, messages: [{ role: 'user', content }] });
    expect(JSON.stringify(json)).toContain('我看到1张图片');
  });

  it('gives reasoning apart from the text, under either name, or inline', async () => {
    const simulator = await start();
    const usual = chunks((await stream0(simulator, { model: thinker })).text);
    expect(usual[1]?.choices[0]?.delta.reasoning_content).toBe('用户');
    simulator.next(
      { reasoning: ['嗯'], reasoningIn: 'reasoning' },
      { reasoning: ['嗯'], reasoningIn: 'think' },
    );
    expect(chunks((await stream0(simulator)).text)[1]?.choices[0]?.delta.reasoning).toBe('嗯');
    expect(textOf((await stream0(simulator)).text)).toBe(`<think>嗯</think>${reply}`);
  });

  it('loads a model that a request needs, in silence, and puts away the one loaded that way before', async () => {
    const models = ['a', 'b'].map((id) => ({ id, type: 'llm' as const }));
    const simulator = await start({ models, loadMs: 30 });
    const began = performance.now();
    await chat0(simulator, { model: 'a' });
    expect(performance.now() - began).toBeGreaterThanOrEqual(29);
    await chat0(simulator, { model: 'b' });
    expect((await get(simulator, '/api/v0/models')).json).toMatchObject({
      data: [
        { id: 'a', state: 'not-loaded' },
        { id: 'b', state: 'loaded' },
      ],
    });
  });

  it('completes a text, streamed and not', async () => {
    const simulator = await start();
    const body = { model: llm, prompt: '从前', max_tokens: 2 };
    const whole = await post(simulator, '/api/v0/completions', body);
    expect(whole.json).toMatchObject({
      object: 'text_completion',
      choices: [{ text: ',这是「', finish_reason: 'length' }],
    });
    const streamed = await post(simulator, '/api/v0/completions', { ...body, stream: true });
    expect(dataLines(streamed.text)[0]).toContain('"text":",这"');
  });

  it('embeds a text or several, the same text always alike', async () => {
    const simulator = await start();
    const model = 'text-embedding-nomic-embed-text-v1.5';
    const one = await post(simulator, '/api/v0/embeddings', { model, input: '甲' });
    const two = await post(simulator, '/api/v0/embeddings', { model, input: ['乙', '甲'] });
    const schema = z.looseObject({
      data: z.array(z.object({ embedding: z.array(z.number()), index: z.int(), object: z.string() })),
    });
    expect(schema.parse(two.json).data.map((entry) => entry.index)).toEqual([0, 1]);
    expect(schema.parse(two.json).data[1]?.embedding).toEqual(schema.parse(one.json).data[0]?.embedding);
    expect(one.json).toMatchObject({ usage: { prompt_tokens: 1, total_tokens: 1 } });
  });

  it('answers the OpenAI paths without what is its own', async () => {
    const { json } = await post(await start(), '/v1/chat/completions', { model: llm, messages: hello });
    expect(json).toMatchObject({ choices: [{ finish_reason: 'stop' }] });
    expect(json).not.toHaveProperty('stats');
  });
});

describe('v0 refusals', () => {
  const image = (url: string): object => ({
    model: vision,
    messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
  });
  it.each([
    [
      'json_object',
      { response_format: { type: 'json_object' } },
      "'response_format.type' must be 'json_schema' or 'text'",
    ],
    ['an http image', image('http://x/y.png'), "'url' field must be a base64 encoded image."],
    [
      'WebP',
      image('data:image/webp;base64,UklGRg=='),
      'Unsupported image format. Only base64 PNG and JPEG are supported.',
    ],
    [
      'a tool_choice object',
      { tool_choice: { type: 'function', function: { name: 'a' } } },
      "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
    ],
    [
      'images without vision',
      { ...image(png), model: llm },
      'Model does not support images. Please use a model that does.',
    ],
    ['no messages', { messages: undefined }, "'messages' field is required"],
  ])('refuses %s in the plain shape', async (_name, body, words) => {
    const { status, json } = await chat0(await start(), body);
    expect({ status, json }).toEqual({ status: 400, json: { error: words } });
  });

  it('refuses an unknown model in the object shape', async () => {
    const { status, json } = await chat0(await start(), { model: 'nope' });
    expect(status).toBe(404);
    expect(json).toEqual({
      error: {
        message: 'Model "nope" not found. Please specify a valid model.',
        type: 'invalid_request_error',
        param: 'model',
        code: 'model_not_found',
      },
    });
  });

  it('says so if there is no model at all', async () => {
    expect((await chat0(await start({ models: [] }))).text).toContain('No models loaded');
  });

  it('refuses to chat with an embedding model and to embed with a chat model', async () => {
    const simulator = await start();
    expect((await chat0(simulator, { model: 'text-embedding-nomic-embed-text-v1.5' })).status).toBe(400);
    expect((await post(simulator, '/api/v0/embeddings', { model: llm, input: 'x' })).status).toBe(400);
  });

  it('ignores keys that it does not know', async () => {
    expect((await chat0(await start(), { anything: 1 })).status).toBe(200);
  });

  it('refuses a body that is not JSON', async () => {
    const simulator = await start();
    const response = await fetch(`${simulator.url}/api/v0/chat/completions`, { method: 'POST', body: '{' });
    expect(response.status).toBe(400);
  });

  it('ends the stream without a word where the prompt exceeds a gguf context', async () => {
    const simulator = await start({ models: [{ id: llm, type: 'llm', loaded: true, contextLength: 8 }] });
    const messages = [{ role: 'user', content: '很长'.repeat(50) }];
    expect((await stream0(simulator, { messages })).text).toBe('data: [DONE]\n\n');
    expect((await chat0(simulator, { messages })).json).toEqual({ error: 'Context size has been exceeded.' });
  });

  it('complains in the stream where the prompt exceeds an mlx context', async () => {
    const models = [
      { id: llm, type: 'llm' as const, format: 'mlx' as const, loaded: true, contextLength: 8 },
    ];
    const messages = [{ role: 'user', content: '很长'.repeat(50) }];
    const { status, text } = await stream0(await start({ models }), { messages });
    expect(status).toBe(200);
    expect(text).toMatch(/^event: error\ndata: \{"error":\{"message":"Trying to keep the first \d+ tokens/);
  });
});

describe('every wire', () => {
  it('answers what it does not know with a 200 that is an error', async () => {
    const simulator = await start();
    const { status, json } = await post(simulator, '/api/v7/chat', {});
    expect({ status, json }).toEqual({
      status: 200,
      json: { error: 'Unexpected endpoint or method. (POST /api/v7/chat)' },
    });
    expect((await get(simulator, '/api/v0/chat/completions')).text).toContain(
      '(GET /api/v0/chat/completions)',
    );
  });

  it('knows no /api/v1 before 0.4', async () => {
    const simulator = await start({ generation: 'v0' });
    expect((await chat1(simulator)).json).toEqual({
      error: 'Unexpected endpoint or method. (POST /api/v1/chat)',
    });
    expect((await get(simulator, '/api/v1/models')).status).toBe(200);
    expect((await chat0(simulator)).status).toBe(200);
  });

  it('wants the token that it was given', async () => {
    const simulator = await start({ token: 'secret' });
    expect((await chat0(simulator)).status).toBe(401);
    expect((await get(simulator, '/api/v1/models')).status).toBe(401);
    const headers = { authorization: 'Bearer secret' };
    expect((await fetch(`${simulator.url}/api/v1/models`, { headers })).status).toBe(200);
  });

  it('answers with the one loaded model, if it is of that kind', async () => {
    const simulator = await start({
      answersAnyModel: true,
      models: [{ id: llm, type: 'llm', loaded: true }],
    });
    expect((await chat0(simulator, { model: 'other' })).json).toMatchObject({ model: llm });
  });

  it('says the same on v0 and on v1', async () => {
    const simulator = await start();
    const v1 = chatSchema.parse((await chat1(simulator)).json);
    expect(v1.output).toEqual([{ type: 'message', content: reply }]);
    expect(textOf((await stream0(simulator)).text)).toBe(reply);
  });
});

describe('v1 answers', () => {
  it('lists models with instances and capabilities', async () => {
    const { json } = await get(await start(), '/api/v1/models');
    expect(json).toMatchObject({
      models: [
        {
          type: 'llm',
          key: llm,
          loaded_instances: [{ id: llm, config: { context_length: 4096, parallel: 4 } }],
          capabilities: { vision: false, trained_for_tool_use: true },
        },
        {
          key: thinker,
          loaded_instances: [],
          capabilities: { reasoning: { allowed_options: ['off', 'low', 'medium', 'high'], default: 'low' } },
        },
        { key: vision, capabilities: { vision: true } },
        { type: 'embedding' },
      ],
    });
  });

  it('streams load, prompt, reasoning, tool call, message and end in order', async () => {
    const { text } = await stream1(await start({ loadMs: 4 }), {
      model: thinker,
      integrations: ['mcp/playwright'],
      max_output_tokens: 100,
    });
    const order = names(text).filter((name, index, all) => name !== all[index - 1]);
    expect(order).toEqual([
      'chat.start',
      'model_load.start',
      'model_load.progress',
      'model_load.end',
      'prompt_processing.start',
      'prompt_processing.progress',
      'prompt_processing.end',
      'reasoning.start',
      'reasoning.delta',
      'reasoning.end',
      'tool_call.start',
      'tool_call.arguments',
      'tool_call.success',
      'message.start',
      'message.delta',
      'message.end',
      'chat.end',
    ]);
    expect(text.startsWith('event: chat.start\ndata: {"type":"chat.start",')).toBe(true);
    expect(text).not.toContain('[DONE]');
  });

  it('tells a failed tool call and an error, so that all nineteen events occur', async () => {
    const simulator = await start();
    simulator.next({
      output: [
        {
          type: 'invalid_tool_call',
          reason: 'no such tool',
          metadata: { type: 'invalid_name', tool_name: 'x' },
        },
        { type: 'message', content: ['一', '二'] },
      ],
      error: { at: 'before-finish', type: 'mcp_connection_error', message: 'gone' },
    });
    const events = eventsOf((await stream1(simulator)).text);
    expect(events.map((event) => event.type)).toEqual(expect.arrayContaining(['tool_call.failure', 'error']));
    expect(events.at(-1)).toMatchObject({
      type: 'chat.end',
      result: {
        output: [
          { type: 'invalid_tool_call', reason: 'no such tool' },
          { type: 'message', content: '一二' },
        ],
      },
    });
  });

  it('ends a stream with the very answer that it gives unstreamed', async () => {
    const simulator = await start();
    const whole = await chat1(simulator, { store: false });
    const end = eventsOf((await stream1(simulator, { store: false })).text).at(-1);
    expect(end).toEqual({ type: 'chat.end', result: whole.json });
  });

  it('names the integration that each tool call went to', async () => {
    const { json } = await chat1(await start(), {
      integrations: [
        { type: 'plugin', id: 'mcp/a', allowed_tools: ['t'] },
        { type: 'ephemeral_mcp', server_label: 'b', server_url: 'http://127.0.0.1:9/mcp' },
      ],
    });
    expect(json).toMatchObject({
      output: [
        {
          type: 'tool_call',
          tool: 't',
          arguments: { query: '你好' },
          provider_info: { type: 'plugin', plugin_id: 'mcp/a' },
        },
        { type: 'tool_call', provider_info: { type: 'ephemeral_mcp', server_label: 'b' } },
        { type: 'message' },
      ],
    });
  });

  it('stores a chat unless told not to, remembers it, and lets it branch', async () => {
    const simulator = await start();
    expect((await chat1(simulator, { store: false })).json).not.toHaveProperty('response_id');
    const first = chatSchema.parse((await chat1(simulator, { input: '甲' })).json);
    expect(first.response_id).toMatch(/^resp_[0-9a-f]{48}$/);
    const branch = (input: string): Promise<Reply> =>
      chat1(simulator, { input, previous_response_id: first.response_id });
    for (const input of ['乙', '丙']) {
      expect((await branch(input)).text).toContain('这是第2轮,上一轮你说的是「甲」');
    }
  });

  it('thinks unless reasoning is off', async () => {
    const simulator = await start();
    const on = chatSchema.parse((await chat1(simulator, { model: thinker })).json);
    const off = chatSchema.parse((await chat1(simulator, { model: thinker, reasoning: 'off' })).json);
    expect(on.output.map((item) => item.type)).toEqual(['reasoning', 'message']);
    expect(on.stats.reasoning_output_tokens).toBeGreaterThan(0);
    expect(off.output.map((item) => item.type)).toEqual(['message']);
  });

  it('stops at max_output_tokens and only the count tells', async () => {
    const { json } = await chat1(await start(), { max_output_tokens: 2 });
    expect(json).toMatchObject({ output: [{ content: '你好!你' }], stats: { total_output_tokens: 2 } });
  });

  it('tells the load time only if it loaded', async () => {
    const simulator = await start({ loadMs: 5 });
    expect((await chat1(simulator, { model: thinker })).text).toContain('"model_load_time_seconds":0.005');
    expect((await chat1(simulator, { model: thinker })).text).not.toContain('model_load_time_seconds');
  });

  it('loads, lists, and unloads instances', async () => {
    const simulator = await start();
    const loaded = await post(simulator, '/api/v1/models/load', {
      model: llm,
      context_length: 8192,
      echo_load_config: true,
    });
    expect(loaded.json).toMatchObject({
      type: 'llm',
      instance_id: `${llm}:2`,
      status: 'loaded',
      load_config: { context_length: 8192 },
    });
    const unload = (): Promise<Reply> =>
      post(simulator, '/api/v1/models/unload', { instance_id: `${llm}:2` });
    expect((await unload()).json).toEqual({ instance_id: `${llm}:2` });
    expect((await unload()).status).toBe(404);
  });

  it('downloads a model step by step', async () => {
    const simulator = await start();
    const begun = await post(simulator, '/api/v1/models/download', { model: 'qwen/qwen3-4b' });
    const { job_id } = z.looseObject({ job_id: z.string() }).parse(begun.json);
    const look = async (): Promise<unknown> => {
      const { json } = await get(simulator, `/api/v1/models/download/status/${job_id}`);
      return z.looseObject({ status: z.string() }).parse(json).status;
    };
    expect([await look(), await look(), await look()]).toEqual(['downloading', 'downloading', 'completed']);
    const again = await post(simulator, '/api/v1/models/download', { model: 'qwen/qwen3-4b' });
    expect(again.json).toEqual({ status: 'already_downloaded' });
    expect((await get(simulator, '/api/v1/models/download/status/job_x')).status).toBe(404);
  });
});

describe('v1 refusals', () => {
  it.each([
    ['an unknown key', { stop: ['x'] }, 400, "Unrecognized key(s) in object: 'stop'"],
    [
      'a text item of type message',
      { input: [{ type: 'message', content: 'x' }] },
      400,
      "Invalid discriminator value. Expected 'text' | 'image'",
    ],
    [
      'an assistant item',
      { input: [{ role: 'assistant', content: 'x' }] },
      400,
      'Invalid discriminator value',
    ],
    ['an input that is missing', { input: undefined }, 400, '"input" is required'],
    ['a temperature above 1', { temperature: 1.5 }, 400, 'Too big'],
    [
      'an http image',
      { model: vision, input: [{ type: 'image', data_url: 'http://x/y.png' }] },
      400,
      'base64 encoded image',
    ],
    [
      'WebP',
      { model: vision, input: [{ type: 'image', data_url: 'data:image/webp;base64,UklGRg==' }] },
      400,
      'Unsupported image format',
    ],
    [
      'an image without vision',
      { input: [{ type: 'image', data_url: png }] },
      400,
      'does not support images',
    ],
    [
      'a reasoning setting on a model without',
      { reasoning: 'low' },
      400,
      'does not support the reasoning setting',
    ],
    [
      'a reasoning setting that is not among its own',
      { model: thinker, reasoning: 'on' },
      400,
      'not supported',
    ],
    ['an unknown model', { model: 'nope' }, 404, 'not found'],
    ['an unknown chat', { previous_response_id: 'resp_1' }, 400, 'not found'],
    ['an id that is none', { previous_response_id: 'x' }, 400, 'resp_'],
  ])('refuses %s in the object shape', async (_name, body, status, words) => {
    const refused = await chat1(await start(), body);
    expect(refused.status).toBe(status);
    const schema = z.object({ error: z.looseObject({ type: z.string(), message: z.string() }) });
    expect(schema.parse(refused.json).error.message).toContain(words);
  });

  it('fails on a system prompt in a follow-up, unless the model takes it', async () => {
    for (const acceptsRepeatedSystemPrompt of [false, true]) {
      const simulator = await start({ acceptsRepeatedSystemPrompt });
      const first = chatSchema.parse((await chat1(simulator)).json);
      const { status } = await chat1(simulator, {
        previous_response_id: first.response_id,
        system_prompt: 'be brief',
      });
      expect(status).toBe(acceptsRepeatedSystemPrompt ? 200 : 500);
    }
  });

  it('tells in the stream that the context is exceeded', async () => {
    const { text } = await stream1(await start(), { context_length: 2 });
    expect(names(text).slice(-2)).toEqual(['error', 'chat.end']);
  });
});

describe('faults', () => {
  it('closes the socket before the headers', async () => {
    const simulator = await start();
    simulator.next(faults.refuse(), faults.refuse('reset'));
    await expect(chat0(simulator)).rejects.toThrow();
    await expect(chat0(simulator)).rejects.toThrow();
    expect((await chat0(simulator)).status).toBe(200);
    expect(simulator.requests.map((entry) => entry.aborted)).toEqual([false, false, false]);
  });

  it.each([
    ['headers', 0],
    ['before-text', 1],
    ['after-text', 2],
    [4, 4],
    ['before-finish', tokenize(reply).length + 1],
    ['before-last', tokenize(reply).length + 2],
    ['end', tokenize(reply).length + 3],
  ] as const)('cuts the stream at %s', async (at, frames) => {
    const simulator = await start();
    simulator.next(faults.cut(at));
    const { text, broken } = await broken0(simulator);
    expect(broken).toBe(true);
    expect(dataLines(text)).toHaveLength(frames);
  });

  it('resets the connection after what was sent has arrived', async () => {
    const simulator = await start();
    simulator.next(faults.reset(3));
    const { text, broken } = await broken0(simulator);
    expect(broken).toBe(true);
    expect(dataLines(text)).toHaveLength(3);
  });

  it('ends the stream cleanly before it finished', async () => {
    const simulator = await start();
    simulator.next(faults.endsEarly());
    const { text, broken } = await broken0(simulator);
    expect(broken).toBe(false);
    expect(textOf(text)).toBe(reply);
    expect(text).not.toContain('"finish_reason":"stop"');
  });

  it('cuts, or ends early, an answer that is not streamed', async () => {
    const simulator = await start();
    simulator.next(faults.cut(), faults.endsEarly());
    await expect(chat0(simulator)).rejects.toThrow();
    expect((await chat0(simulator)).json).toBeUndefined();
  });

  it('stalls until it is released', async () => {
    const simulator = await start();
    let release: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    simulator.next(faults.stall(3, released));
    const answer = stream0(simulator);
    const recorded = await simulator.waitForRequest();
    await expect.poll(() => recorded.framesSent).toBe(3);
    expect(simulator.running).toBe(1);
    release();
    expect(textOf((await answer).text)).toBe(reply);
  });

  it('stalls for good before the headers, and sees the client leave', async () => {
    const simulator = await start();
    simulator.next(faults.stall('start'));
    const leaving = new AbortController();
    const answer = request(
      simulator,
      '/api/v0/chat/completions',
      { model: llm, messages: hello },
      { signal: leaving.signal },
    );
    const recorded = await simulator.waitForRequest();
    leaving.abort();
    await expect(answer).rejects.toThrow();
    expect(await simulator.waitForAbort()).toBe(recorded);
    await recorded.closed;
    expect(recorded.aborted).toBe(true);
    expect(simulator.running).toBe(0);
  });

  it.each([
    ['byte by byte', faults.splitBytes()],
    ['many frames in one write', faults.manyPerWrite()],
    ['CRLF', faults.crlf()],
    ['with a BOM', faults.bom()],
  ])('sends the same text %s', async (_name, script) => {
    const simulator = await start();
    simulator.next(script);
    const { text } = await stream0(simulator);
    expect(textOf(text.replaceAll('\r\n', '\n').replaceAll('\r', '\n'))).toBe(reply);
  });

  it('begins with a BOM, and ends lines with CRLF, if so scripted', async () => {
    const simulator = await start();
    simulator.next({ ...faults.bom(), ...faults.crlf() });
    const response = await request(simulator, '/api/v0/chat/completions', {
      model: llm,
      messages: hello,
      stream: true,
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    expect(bytes.subarray(0, 3)).toEqual(Buffer.from([0xef, 0xbb, 0xbf]));
    expect(bytes.toString()).toMatch(/\[DONE\]\r\n\r\n$/);
    expect(bytes.toString()).not.toMatch(/[^\r]\n/);
  });

  it('sends nothing but comments until the client leaves', async () => {
    const simulator = await start();
    simulator.next(faults.heartbeatsOnly('after-text', 1));
    const leaving = new AbortController();
    const response = await request(
      simulator,
      '/api/v0/chat/completions',
      { model: llm, messages: hello, stream: true },
      { signal: leaving.signal },
    );
    const reader = response.body?.getReader();
    let text = '';
    while (text.split(': keep-alive\n\n').length < 5) {
      const { value } = (await reader?.read()) ?? {};
      text += Buffer.from(value ?? []).toString();
    }
    leaving.abort();
    await simulator.waitForAbort();
    expect(dataLines(text)).toHaveLength(2);
  });

  it('sends an event that is not JSON', async () => {
    const simulator = await start();
    simulator.next(faults.garbage());
    const lines = dataLines((await stream0(simulator)).text);
    expect(() => JSON.parse(lines[2] ?? '')).toThrow();
    simulator.next(faults.garbage());
    expect((await chat0(simulator)).json).toBeUndefined();
  });

  it.each([200, 502])('answers %i with HTML', async (status) => {
    const simulator = await start();
    simulator.next(faults.html(status));
    const answer = await stream0(simulator);
    expect(answer.status).toBe(status);
    expect(answer.headers.get('content-type')).toBe('text/html');
    expect(answer.text).toContain('<html>');
  });

  it.each([
    [
      'object, named',
      { message: 'x', named: true },
      'event: error\ndata: {"error":{"message":"x"}}\n\ndata: [DONE]\n\n',
    ],
    ['string', { message: 'x', shape: 'string' }, 'data: {"error":"x"}\n\ndata: [DONE]\n\n'],
    ['string without [DONE]', { message: 'x', shape: 'string', closing: false }, 'data: {"error":"x"}\n\n'],
  ] as const)('fails inside a v0 stream: %s', async (_name, error, ending) => {
    const simulator = await start();
    simulator.next(faults.errorFrame(error));
    const { status, text } = await stream0(simulator);
    expect(status).toBe(200);
    expect(dataLines(text)).toHaveLength('closing' in error ? 3 : 4);
    expect(text.endsWith(ending)).toBe(true);
  });

  it('fails before any text', async () => {
    const simulator = await start();
    simulator.next(faults.errorFrame({ at: 'headers' }), faults.errorFrame({ at: 'before-text' }));
    expect((await stream0(simulator)).text).toMatch(/^data: \{"error"/);
    const events = eventsOf((await stream1(simulator)).text);
    expect(events.at(-1)).toMatchObject({ type: 'chat.end', result: { output: [{ content: '' }] } });
  });

  it.each([
    [429, faults.rateLimited('7')],
    [500, faults.status(500)],
    [503, faults.status(503)],
    [401, faults.status(401)],
    [408, faults.status(408)],
  ])('answers with %i', async (status, script) => {
    const simulator = await start();
    simulator.next(script);
    const answer = await chat0(simulator);
    expect(answer.status).toBe(status);
    expect(answer.headers.get('retry-after')).toBe(status === 429 ? '7' : null);
    expect(answer.json).toHaveProperty('error.message');
  });

  it('takes long to load: silence on v0, progress on v1', async () => {
    const simulator = await start();
    simulator.always({ loadMs: 40 });
    const began = performance.now();
    await stream0(simulator);
    expect(performance.now() - began).toBeGreaterThanOrEqual(39);
    const { text } = await stream1(simulator);
    expect(names(text).filter((name) => name === 'model_load.progress')).toHaveLength(4);
  });

  const whole = async (script: LmStudioScript): Promise<z.output<typeof completionSchema>> => {
    const simulator = await start();
    simulator.next(script);
    return completionSchema.parse((await chat0(simulator)).json);
  };
  const streamed = async (script: LmStudioScript): Promise<string> => {
    const simulator = await start();
    simulator.next(script);
    return (await stream0(simulator, { stream_options: { include_usage: true } })).text;
  };

  it('answers empty: without tokens, without deltas, without choices', async () => {
    expect(await whole(faults.emptyAnswer())).toMatchObject({
      choices: [{ message: { content: '' }, finish_reason: 'stop' }],
      usage: { completion_tokens: 0 },
    });
    expect(await streamed(faults.noDelta())).toBe('data: [DONE]\n\n');
    expect((await whole(faults.noChoices())).choices).toEqual([]);
  });

  it('lets another model answer', async () => {
    expect((await whole(faults.anotherModel('other'))).model).toBe('other');
  });

  it('leaves out the usage, or the finish', async () => {
    expect((await whole(faults.noUsage())).usage).toBeUndefined();
    expect(await streamed(faults.noUsage())).not.toContain('"usage"');
    const text = await streamed(faults.noFinish());
    expect(chunks(text).every((chunk) => (chunk.choices[0]?.finish_reason ?? null) === null)).toBe(true);
    expect(text).toContain('[DONE]');
  });

  it.each(['modelUnloaded', 'failed', 'userStopped', 'contextLengthReached'])(
    'stops with %s',
    async (reason) => {
      expect(await whole(faults.stopped(reason))).toMatchObject({
        choices: [{ finish_reason: 'stop' }],
        stats: { stop_reason: reason },
      });
    },
  );

  it('puts text and finish into one delta', async () => {
    const finish = chunks(await streamed(faults.finishWithText())).find(
      (chunk) => chunk.choices[0]?.finish_reason === 'stop',
    );
    expect(finish?.choices[0]?.delta.content).toBe(tokenize(reply).at(-1));
  });

  it('streams giant deltas and thousands of small ones', async () => {
    expect(textOf(await streamed(faults.giantDelta(300_000)))).toHaveLength(300_000);
    const text = textOf(await streamed(faults.chunks(5000)));
    expect(text.startsWith('0 1 2 ')).toBe(true);
    expect(text.endsWith(' 4999 ')).toBe(true);
  });

  it('sends a line without an end', async () => {
    const simulator = await start();
    simulator.next(faults.endlessLine(1_000_000));
    const lines = dataLines((await stream0(simulator)).text);
    expect(lines.at(-1)).toHaveLength(1_000_000);
  });

  it('streams exactly the pieces that were scripted, half characters too', async () => {
    const pieces = ['', '\ud83d', '\ude00', '好'];
    const contents = chunks(await streamed({ text: pieces })).map((chunk) => chunk.choices[0]?.delta.content);
    expect(contents.slice(1, 5)).toEqual(pieces);
  });

  it('sends raw bytes with waits between them', async () => {
    const simulator = await start();
    simulator.next({
      raw: { pieces: [Buffer.from('data: {"a"'), 5, sleep(5), ':1}\n\n'], headers: { 'x-a': 'b' } },
    });
    const { text, headers } = await stream0(simulator);
    expect(text).toBe('data: {"a":1}\n\n');
    expect(headers.get('x-a')).toBe('b');
  });

  it('ends a v1 stream without chat.end', async () => {
    const simulator = await start();
    simulator.next(faults.noFinish());
    expect(names((await stream1(simulator)).text).at(-1)).toBe('message.end');
  });

  it('fails the model list by a script of its own', async () => {
    const simulator = await start();
    simulator.nextControl(faults.status(500));
    expect((await chat0(simulator)).status).toBe(200);
    expect((await get(simulator, '/api/v1/models')).status).toBe(500);
    expect((await get(simulator, '/api/v1/models')).status).toBe(200);
  });
});

describe('what tests can see', () => {
  it('records requests with their bodies and counts generations that run at once', async () => {
    const simulator = await start();
    const both = ['/api/v0/chat/completions', '/api/v1/chat'].map((path) =>
      simulator.waitForRequest((entry) => entry.path === path),
    );
    simulator.always({ hold: Promise.all(both) });
    await Promise.all([chat0(simulator), chat1(simulator), get(simulator, '/api/v1/models')]);
    expect(simulator.maxRunning).toBe(2);
    const recorded = await simulator.waitForRequest((entry) => entry.path === '/api/v1/chat');
    expect(recorded).toMatchObject({ method: 'POST', body: { model: llm, input: '你好' }, aborted: false });
    expect(simulator.requests.filter((entry) => entry.generation)).toHaveLength(2);
  });

  it('counts open connections, and none after it stopped', async () => {
    const simulator = await start();
    await chat0(simulator);
    expect(simulator.openConnections()).toBeGreaterThan(0);
    await simulator.stop();
    await expect.poll(() => simulator.openConnections()).toBe(0);
  });

  it('goes down, and comes up on the same port', async () => {
    const simulator = await start();
    await simulator.stop();
    await expect(chat0(simulator)).rejects.toThrow();
    await simulator.restart();
    expect((await chat0(simulator)).status).toBe(200);
  });

  it('does not call it an abort if the simulator stops', async () => {
    const simulator = await start();
    simulator.next(faults.stall(1));
    const answer = broken0(simulator);
    const recorded = await simulator.waitForRequest();
    await expect.poll(() => recorded.framesSent).toBe(1);
    await simulator.stop();
    expect((await answer).broken).toBe(true);
    await recorded.closed;
    expect(recorded.aborted).toBe(false);
  });

  it('has other models when told', async () => {
    const simulator = await start();
    simulator.setModels([{ id: 'new', type: 'llm' }]);
    expect((await get(simulator, '/api/v1/models')).json).toMatchObject({ models: [{ key: 'new' }] });
  });
});
