/** LM Studio's own chat API through the whole gateway: progress, its tools, stored chats, and what stands in their way. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import { hashKey } from '../../src/gateway/keys.ts';
import { openStore } from '../../src/store/database.ts';
import { insertKey } from '../../src/store/keys.ts';
import { faults } from '../simulators/faults.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { temporaryDirectory } from '../unit/workspace.ts';
import { ask } from './ask.ts';
import { startGateway } from './gateway.ts';
import { chatModel } from './prepare.ts';
import { type Stage, stage, startStage } from './stage.ts';
import { deferred, readEvents } from './wire.ts';

/** Not in memory at first, thinks, and has a reasoning setting. */
const thinkingModel = 'openai/gpt-oss-20b';
const say = (content: unknown) => [{ role: 'user', content }];

const envelope = z.strictObject({
  code: z.int(),
  message: z.string(),
  data: z.looseObject({ content: z.string(), response_id: z.string().optional() }).nullable(),
});

type Body = Readonly<Record<string, unknown>>;

/** POST /api/llm/chat as a client does who waits for all of it. */
async function post(scene: { readonly url: string }, body: Body, headers: Record<string, string> = {}) {
  const response = await fetch(`${scene.url}/api/llm/chat`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: chatModel, messages: say('你好'), ...body }),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** An answer that is no stream. */
async function whole(scene: { readonly url: string }, body: Body, headers?: Record<string, string>) {
  const { text, ...rest } = await post(scene, body, headers);
  return { ...rest, ...envelope.parse(JSON.parse(text)) };
}

async function good(scene: { readonly url: string }, body: Body, headers?: Record<string, string>) {
  const answer = await whole(scene, body, headers);
  if (answer.data === null) throw new Error(`${answer.status} ${answer.message}`);
  return { ...answer, data: answer.data };
}

async function streamed(scene: { readonly url: string }, body: Body) {
  const answer = await post(scene, { ...body, stream: true });
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`);
  return { ...answer, ...readEvents(answer.text) };
}

const refused = (answer: { status: number; headers: Headers; message: string }) => ({
  status: answer.status,
  code: answer.headers.get('x-error-code'),
  message: answer.message,
});

/** Raw events, for what the simulator would not do by itself. */
const event = (type: string, rest: Body = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;
const end = (output: readonly object[] = [{ type: 'message', content: '好' }]): string =>
  event('chat.end', {
    result: {
      model_instance_id: chatModel,
      output,
      stats: { input_tokens: 3, total_output_tokens: 1 },
    },
  });
const answerOf = (text: string): string =>
  event('message.start') + event('message.delta', { content: text }) + event('message.end') + end();

const weather = { type: 'plugin', plugin_id: 'mcp/weather' } as const;
const toolScript: LmStudioScript = {
  output: [
    { type: 'message', content: '我先查天气。' },
    {
      type: 'tool_call',
      tool: 'get_weather',
      arguments: { city: '北京' },
      output: '[{"type":"text","text":"晴"}]',
      provider_info: weather,
    },
    { type: 'message', content: ['再查', '风。'] },
    {
      type: 'invalid_tool_call',
      reason: 'Cannot find tool with name get_wind.',
      metadata: {
        type: 'invalid_name',
        tool_name: 'get_wind',
        arguments: { city: '北京' },
        provider_info: weather,
      },
    },
    { type: 'message', content: '今天晴。' },
  ],
};
const toolsMade = [
  {
    tool: 'get_weather',
    arguments: { city: '北京' },
    output: '[{"type":"text","text":"晴"}]',
    provider_info: weather,
  },
  {
    tool: 'get_wind',
    arguments: { city: '北京' },
    reason: 'Cannot find tool with name get_wind.',
    provider_info: weather,
  },
];

describe('a request that only v1 can carry', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({ studios: [{ promptMs: 4 }] });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  it('goes to /api/v1/chat, keeps no chat there, and tells no response_id', async () => {
    const { data } = await good(scene, { context_length: 2048 });
    const request = await scene.studio.waitForRequest();
    expect(request).toMatchObject({
      path: '/api/v1/chat',
      body: { context_length: 2048, store: false, stream: false, input: [{ type: 'text', content: '你好' }] },
    });
    expect(data).not.toHaveProperty('response_id');
  });

  it.each([false, true])('says the same as v0 with the same keys (stream %s)', async (stream) => {
    const onV1 = { min_p: 0.1, stream };
    const answers = await Promise.all(
      [{ stream }, onV1].map(async (body) => {
        if (!stream) return (await good(scene, body)).data;
        const { text, terminal } = await streamed(scene, body);
        return { ...terminal, content: text };
      }),
    );
    expect(
      scene.studio.requests
        .filter((one) => one.generation)
        .map((one) => one.path)
        .sort(),
    ).toEqual(['/api/v0/chat/completions', '/api/v1/chat']);
    const [v0, v1] = answers.map(({ content, finish_reason, usage }) => ({ content, finish_reason, usage }));
    expect(v1).toEqual(v0);
    expect(v0).toMatchObject({ finish_reason: 'stop', usage: { total_tokens: expect.any(Number) } });
    for (const answer of answers) {
      expect(Object.keys(z.record(z.string(), z.unknown()).parse(answer['usage'])).sort()).toEqual([
        'input_tokens',
        'output_tokens',
        'total_tokens',
      ]);
    }
  });

  it.each([false, true])(
    'is length where it used all the tokens it was given (stream %s)',
    async (stream) => {
      const body = { min_p: 0.1, max_tokens: 3 };
      const reason = stream
        ? (await streamed(scene, body)).terminal?.finish_reason
        : (await good(scene, body)).data['finish_reason'];
      expect(reason).toBe('length');
      expect((await scene.studio.waitForRequest()).body).toMatchObject({ max_output_tokens: 3 });
    },
  );

  it('joins system messages by a blank line into system_prompt, and sends user messages as items in order', async () => {
    const messages = [
      { role: 'system', content: '你是助手。' },
      { role: 'user', content: '一' },
      { role: 'system', content: '简短。' },
      { role: 'user', content: [{ type: 'text', text: '二' }] },
    ];
    await good(scene, { messages, min_p: 0.1 });
    expect((await scene.studio.waitForRequest()).body).toMatchObject({
      system_prompt: '你是助手。\n\n简短。',
      input: [
        { type: 'text', content: '一' },
        { type: 'text', content: '二' },
      ],
    });
  });

  it.each([false, true])(
    'joins the messages between tool calls, and tells the calls with output or reason (stream %s)',
    async (stream) => {
      scene.studio.next(toolScript);
      const body = { integrations: ['mcp/weather'] };
      if (stream) {
        const { text, terminal, chunks } = await streamed(scene, body);
        expect(text).toBe('我先查天气。再查风。今天晴。');
        expect(terminal).toMatchObject({ finish_reason: 'stop', tool_calls_made: toolsMade });
        expect(chunks.filter((chunk) => 'tool_calls_made' in chunk)).toHaveLength(1);
      } else {
        const { data } = await good(scene, body);
        expect(data).toMatchObject({ content: '我先查天气。再查风。今天晴。', tool_calls_made: toolsMade });
      }
    },
  );

  it.each(['onset', 'after-text'] as const)('is an error where the stream says so: %s', async (place) => {
    scene.studio.next({
      ...faults.errorFrame({
        at: place === 'onset' ? 'before-text' : 'after-text',
        type: 'internal_error',
        message: 'The model has crashed.',
      }),
    });
    const answer = await post(scene, { min_p: 0.1, stream: true });
    const message = 'LM Studio返回错误:The model has crashed.';
    if (place === 'onset') {
      expect(answer.status).toBe(502);
      expect(envelope.parse(JSON.parse(answer.text))).toEqual({ code: 502, message, data: null });
      return;
    }
    const { text, terminal, done } = readEvents(answer.text);
    expect(text).not.toBe('');
    expect(terminal).toEqual({
      content: '',
      finish_reason: 'error',
      error: { code: 502, type: 'UPSTREAM_ERROR', message },
    });
    expect(done).toBe(true);
  });

  it('does not call tools a second time after a failure', async () => {
    scene.studio.next(faults.cut('before-text'));
    const answer = await whole(scene, { integrations: ['mcp/weather'] });
    expect(refused(answer)).toEqual({
      status: 502,
      code: 'UPSTREAM_ERROR',
      message: 'LM Studio返回错误:连接中断',
    });
    expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(1);
  });

  it.each([
    ['temperature', { temperature: 1.5, min_p: 0.1 }, ['min_p']],
    ['seed', { seed: 7, store: true }, ['store']],
    [
      'messages[1]',
      {
        model: thinkingModel,
        messages: [...say('一'), { role: 'assistant', content: '二' }, ...say('三')],
        reasoning: 'off',
      },
      ['reasoning'],
    ],
  ])('is refused beside what only v0 can: %s', async (param, body, others) => {
    const answer = await whole(scene, body);
    expect(refused(answer)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
    for (const name of [param, 'lmstudio', ...others]) expect(answer.message).toContain(name);
    expect(scene.studio.requests.filter((one) => one.generation)).toEqual([]);
  });

  it('of reasoning is refused by name where the model has no such setting, or not this one', async () => {
    const without = await whole(scene, { reasoning: 'low' });
    expect(refused(without)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
    expect(without.message).toMatch(/reasoning.*LM Studio\(lmstudio\).*qwen2\.5-7b-instruct/);
    const other = await whole(scene, { model: thinkingModel, reasoning: 'on' });
    expect(other.message).toMatch(/reasoning.*off, low, medium, high/);
    expect(scene.studio.requests.filter((one) => one.generation)).toEqual([]);
  });

  it('with a picture is an INVALID_MESSAGES that names the part where the model cannot see', async () => {
    const picture = { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } };
    const messages = say([{ type: 'text', text: '这是什么?' }, picture]);
    const answer = await whole(scene, { messages, min_p: 0.1 });
    expect(refused(answer)).toMatchObject({ status: 400, code: 'INVALID_MESSAGES' });
    expect(answer.message).toContain('messages[0].content[1]');
    const seen = await good(scene, { model: 'qwen2-vl-7b-instruct', messages, min_p: 0.1 });
    expect(seen.data.content).toContain('1张图片');
  });
});

describe('progress', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({ environment: { STREAM_COMMIT_MS: '40', HEARTBEAT_MS: '30' } });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  const full = {
    model: thinkingModel,
    stream_options: { include_progress: true },
    integrations: [{ type: 'plugin', id: 'mcp/weather', allowed_tools: ['get_weather'] }],
  };

  it('shows loading, prompt and tools in order before the text, when asked for', async () => {
    scene.studio.next({ loadMs: 40 });
    const { chunks, terminal } = await streamed(scene, full);
    const progress = chunks.flatMap((chunk) => (chunk['progress'] === undefined ? [] : [chunk['progress']]));
    const load = [0, 0.25, 0.5, 0.75, 1, 1].map((value) => ({ stage: 'model_load', value }));
    const prompt = [0, 0.5, 1, 1].map((value) => ({ stage: 'prompt_processing', value }));
    const tool = (['start', 'arguments', 'success'] as const).map((status) => ({
      stage: 'tool_call',
      tool: 'get_weather',
      status,
    }));
    expect(progress).toEqual([...load, ...prompt, ...tool]);
    for (const chunk of chunks.filter((one) => 'progress' in one)) {
      expect(Object.keys(chunk)).toEqual(['content', 'finish_reason', 'progress']);
    }
    const kinds = chunks.map((chunk) =>
      'progress' in chunk
        ? 'progress'
        : 'reasoning_content' in chunk
          ? 'reasoning'
          : chunk.content === ''
            ? 'end'
            : 'text',
    );
    expect(kinds.join(' ')).toMatch(/^(?:progress )+(?:reasoning )+(?:progress )+(?:text )+end$/);
    expect(terminal).toMatchObject({ finish_reason: 'stop', route: { provider: 'lmstudio', attempts: 1 } });
  });

  it('arrives while the model loads, and not with the text', async () => {
    const loaded = deferred();
    scene.studio.next({
      raw: {
        pieces: [
          event('chat.start') + event('model_load.start') + event('model_load.progress', { progress: 0.65 }),
          loaded.promise,
          event('model_load.end', { load_time_seconds: 3 }) + answerOf('好'),
        ],
      },
    });
    const answer = scene.chat({ stream: true, stream_options: { include_progress: true } });
    await answer.until((body) => body.includes('"progress":{"stage":"model_load","value":0.65}'));
    expect(answer.body).not.toContain('好');
    loaded.resolve();
    expect(await answer.done).toBe('complete');
    expect(readEvents(answer.body).text).toBe('好');
  });

  it('alone makes a plain request go to v1, and costs nothing where v1 cannot carry it', async () => {
    const wish = { stream_options: { include_progress: true } };
    await streamed(scene, wish);
    const { text } = await streamed(scene, { ...wish, temperature: 1.5, seed: 1, stop: 'x' });
    expect(text).not.toBe('');
    expect(scene.studio.requests.filter((one) => one.generation).map((one) => one.path)).toEqual([
      '/api/v1/chat',
      '/api/v0/chat/completions',
    ]);
  });

  it('is nothing but heartbeats where nobody asked for it', async () => {
    scene.studio.next({ loadMs: 200 });
    const { chunks, heartbeats, text } = await streamed(scene, { ...full, stream_options: {} });
    expect(chunks.filter((chunk) => 'progress' in chunk)).toEqual([]);
    expect(text).not.toBe('');
    expect(heartbeats).toBeGreaterThanOrEqual(3);
  });

  it('is no reason to send headers where nobody asked for it: a failure after loading is a plain error', async () => {
    const raw = {
      pieces: [
        event('chat.start') +
          event('model_load.start') +
          event('model_load.end') +
          event('prompt_processing.start'),
        event('error', { error: { type: 'invalid_request', message: 'no such template' } }),
      ],
    };
    scene.studio.next({ raw });
    const answer = await post(scene, { min_p: 0.1, stream: true });
    expect(answer.headers.get('content-type')).toContain('application/json');
    expect(answer.status).toBe(400);
  });

  it('that nobody asked for sends no headers either where LM Studio ran a tool', async () => {
    const pieces = [
      event('chat.start') +
        event('tool_call.start', { tool: 'f' }) +
        event('tool_call.success', { tool: 'f', output: '1' }),
      5,
      event('error', { error: { type: 'invalid_request', message: 'the tool broke it' } }),
    ];
    scene.studio.next({ raw: { pieces } });
    const answer = await post(scene, { integrations: ['mcp/x'], stream: true });
    expect(answer.status).toBe(400);
    expect(answer.text).toContain('the tool broke it');
  });
});

describe('the limits of a model that loads', () => {
  it('do not count the loading, however silent, and neither does idleness', async () => {
    const scene = await stage({
      environment: { UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '120', UPSTREAM_IDLE_TIMEOUT_MS: '80' },
    });
    scene.studio.next({
      raw: {
        pieces: [
          event('chat.start') + event('model_load.start'),
          400,
          event('model_load.progress', { progress: 0.5 }),
          200,
          event('model_load.end', { load_time_seconds: 0.6 }),
          40,
          answerOf('好'),
        ],
      },
    });
    const { text, terminal } = await streamed(scene, { min_p: 0.1 });
    expect(text).toBe('好');
    expect(terminal).toMatchObject({ finish_reason: 'stop' });
  });

  it('begin when it is loaded: the first text is then waited for no longer than the limit', async () => {
    const scene = await stage({
      environment: { UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '100', UPSTREAM_MAX_RETRIES: '0' },
    });
    let loadedAt = 0;
    const loaded = new Promise<void>((resolve) =>
      setTimeout(() => {
        loadedAt = performance.now();
        resolve();
      }, 250),
    );
    const pieces = [event('chat.start') + event('model_load.start'), loaded, event('model_load.end')];
    scene.studio.next({ raw: { pieces, ending: 'hang' } });
    const answer = await whole(scene, { min_p: 0.1, stream: true });
    expect(refused(answer)).toEqual({ status: 504, code: 'TIMEOUT', message: '请求超时' });
    const waited = performance.now() - loadedAt;
    expect(waited).toBeGreaterThan(80);
    expect(waited).toBeLessThan(1000);
  });

  it('are not put off by progress of the prompt: it is no text', async () => {
    const scene = await stage({
      environment: { UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '150', UPSTREAM_MAX_RETRIES: '0' },
    });
    const pieces = Array.from({ length: 40 }, (_, index) => [
      event('prompt_processing.progress', { progress: index / 40 }),
      20,
    ]).flat();
    scene.studio.next({ raw: { pieces, ending: 'hang' } });
    const answer = await whole(scene, { min_p: 0.1, stream: true });
    expect(refused(answer)).toMatchObject({ status: 504, code: 'TIMEOUT' });
  });
});

describe('a stored chat', () => {
  let scene: Stage;
  const keys = { one: 'sk-gw-one', other: 'sk-gw-other' };
  const as = (key: keyof typeof keys) => ({ authorization: `Bearer ${keys[key]}` });

  beforeAll(async () => {
    scene = await startStage({
      environment: { AUTH: 'on', ADMIN_API_KEY: 'an-administrator-of-this-test', MCP_ALLOWED_PLUGINS: '*' },
      studios: [{}, {}],
      routes: [
        { studio: 0 },
        { studio: 1 },
        { studio: 0, model: 'alias' },
        { studio: 0, model: 'vl', upstream: 'qwen2-vl-7b-instruct' },
      ],
    });
    const store = await openStore(scene.file);
    for (const [name, key] of Object.entries(keys)) {
      await insertKey(store.db, { name, prefix: key.slice(0, 12), hash: hashKey(key), scope: 'inference' });
    }
    await store.close();
    await vi.waitFor(async () => expect((await whole(scene, {}, as('other'))).status).toBe(200), 5000);
  });
  afterAll(() => scene.close());
  beforeEach(() => {
    for (const studio of scene.studios) studio.reset();
  });

  const asked = () =>
    scene.studios.map((studio) => studio.requests.filter((one) => one.path === '/api/v1/chat').length);

  it('gives a response_id, streamed and not, whose follow-up knows what was said', async () => {
    const first = await good(scene, { messages: say('我叫小明'), store: true }, as('one'));
    const id = first.data.response_id;
    expect(id).toMatch(/^resp_/);
    const answer = ask(scene.port, '/api/llm/chat', {
      body: {
        model: chatModel,
        messages: say('我叫什么?'),
        store: true,
        previous_response_id: id,
        stream: true,
      },
      headers: as('one'),
    });
    await answer.done;
    const { text, terminal } = readEvents(answer.body);
    expect(text).toContain('上一轮你说的是「我叫小明」');
    const second = terminal?.['response_id'];
    expect(second).toMatch(/^resp_/);
    expect(second).not.toBe(id);
    const third = await good(scene, { messages: say('谢谢'), previous_response_id: second }, as('one'));
    expect(third.data.content).toContain('这是第3轮,上一轮你说的是「我叫什么?」');
    expect(third.data).not.toHaveProperty('response_id');
  });

  it('can be continued from the same point twice', async () => {
    const { data } = await good(scene, { messages: say('从前'), store: true }, as('one'));
    const branch = (words: string) =>
      good(scene, { messages: say(words), previous_response_id: data.response_id }, as('one'));
    for (const answer of [await branch('甲'), await branch('乙')]) {
      expect(answer.data.content).toContain('这是第2轮,上一轮你说的是「从前」');
    }
  });

  it('gets the system message of its first turn only', async () => {
    const messages = [{ role: 'system', content: '你是助手' }, ...say('你好')];
    const { data } = await good(scene, { messages, store: true }, as('one'));
    await good(scene, { messages, previous_response_id: data.response_id }, as('one'));
    const bodies = scene.studios.flatMap((studio) =>
      studio.requests.filter((one) => one.generation).map((one) => one.body),
    );
    expect(bodies).toHaveLength(2);
    expect(bodies[0]).toHaveProperty('system_prompt', '你是助手');
    expect(bodies[1]).not.toHaveProperty('system_prompt');
  });

  it('is continued, tools and all, at the one of two LM Studios that holds it', async () => {
    const conversations = Array.from({ length: 6 }, async (_, index) => {
      const turn = (words: string, previous?: string) =>
        good(
          scene,
          {
            messages: say(words),
            store: true,
            integrations: ['mcp/weather'],
            ...(previous === undefined ? {} : { previous_response_id: previous }),
          },
          as('one'),
        );
      const providers: (string | null)[] = [];
      let previous: string | undefined;
      for (const words of [`第${index}个问题`, '然后呢?', '还有呢?']) {
        const { data, headers } = await turn(words, previous);
        expect(data['tool_calls_made']).toMatchObject([{ tool: 'search', arguments: { query: words } }]);
        providers.push(headers.get('x-gateway-provider'));
        previous = data.response_id;
      }
      expect(new Set(providers).size).toBe(1);
      return providers[0];
    });
    // Six that begin at once share the two.
    expect(new Set(await Promise.all(conversations))).toEqual(new Set(['lmstudio', 'lmstudio-2']));
  });

  it('is nobody else’s: for another key it is as unknown as one that never was', async () => {
    const { data } = await good(scene, { store: true }, as('one'));
    for (const studio of scene.studios) studio.reset();
    const follow = (previous_response_id: string | undefined, key: keyof typeof keys) =>
      whole(scene, { previous_response_id }, as(key));
    for (const answer of [await follow(data.response_id, 'other'), await follow('resp_made_up', 'one')]) {
      expect(refused(answer)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
      expect(answer.message).toMatch(/^参数值超出有效范围:previous_response_id: .*resp_/);
    }
    expect(asked()).toEqual([0, 0]);
  });

  it('is refused by name under a model that has no route there, and goes on under a second name', async () => {
    const { data } = await good(scene, { model: 'alias', store: true }, as('one'));
    const answer = await whole(scene, { model: 'vl', previous_response_id: data.response_id }, as('one'));
    expect(refused(answer)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
    expect(answer.message).toContain('previous_response_id');
    const named = await good(scene, { previous_response_id: data.response_id }, as('one'));
    expect(named.headers.get('x-gateway-provider')).toBe('lmstudio');
  });

  it('is not looked for elsewhere when its LM Studio is down', async () => {
    const { data, headers } = await good(scene, { store: true }, as('one'));
    const holder = headers.get('x-gateway-provider') === 'lmstudio' ? 0 : 1;
    for (const studio of scene.studios) studio.reset();
    const studio = scene.studios[holder];
    await studio?.stop();
    const answer = await whole(scene, { previous_response_id: data.response_id }, as('one'));
    await studio?.restart();
    expect(refused(answer)).toEqual({
      status: 502,
      code: 'UPSTREAM_ERROR',
      message: 'LM Studio返回错误:连接失败',
    });
    expect(asked()).toEqual([0, 0]);
  });
});

it('remembers a stored chat across a restart of the gateway', async () => {
  const studio = await startLmStudio();
  onTestFinished(() => studio.close());
  const environment = {
    DATABASE_URL: `sqlite:${path.join(temporaryDirectory(), 'gateway.db')}`,
    LMSTUDIO_BASE_URL: studio.url,
  };
  const first = await startGateway(environment);
  const { data } = await good(first, { messages: say('记住我'), store: true });
  await first.close();
  const second = await startGateway(environment);
  onTestFinished(() => second.close());
  const answer = await good(second, { messages: say('还记得吗?'), previous_response_id: data.response_id });
  expect(answer.data.content).toContain('上一轮你说的是「记住我」');
});

describe('integrations', () => {
  const label = 'tools';
  const mcp = (server_url: string, headers: Record<string, string> = {}) => ({
    type: 'ephemeral_mcp',
    server_label: label,
    server_url,
    headers,
  });

  it('are all allowed without keys on loopback, and reach LM Studio whole', async () => {
    const scene = await stage();
    const integrations = ['mcp/a', mcp('https://mcp.example.com/sse', { authorization: 'Bearer t' })];
    const { data } = await good(scene, { integrations });
    expect(data['tool_calls_made']).toMatchObject([
      { provider_info: { type: 'plugin', plugin_id: 'mcp/a' } },
      { provider_info: { type: 'ephemeral_mcp', server_label: label } },
    ]);
    expect((await scene.studio.waitForRequest()).body).toMatchObject({ integrations });
  });

  it('are a 403 that names the setting where it does not allow them, before anything is sent', async () => {
    const scene = await stage({
      environment: { MCP_ALLOWED_HOSTS: '*.example.com', MCP_ALLOWED_PLUGINS: 'mcp/a' },
    });
    expect((await good(scene, { integrations: ['mcp/a', mcp('https://x.example.com')] })).status).toBe(200);
    scene.studio.reset();
    for (const [integration, setting] of [
      ['mcp/b', 'MCP_ALLOWED_PLUGINS'],
      [mcp('https://example.com'), 'MCP_ALLOWED_HOSTS'],
    ] as const) {
      for (const stream of [false, true]) {
        const answer = await whole(scene, { integrations: [integration], stream });
        expect(refused(answer)).toMatchObject({ status: 403, code: 'FORBIDDEN' });
        expect(answer.message).toContain(setting);
      }
    }
    const bad = await whole(scene, { integrations: [mcp('file:///etc/passwd')] });
    expect(refused(bad)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
    expect(scene.studio.requests.filter((one) => one.generation)).toEqual([]);
  });

  it('are all refused with keys as long as nothing allows them', async () => {
    const key = 'an-administrator-of-this-test';
    const scene = await stage({ environment: { AUTH: 'on', ADMIN_API_KEY: key } });
    const answer = await whole(scene, { integrations: ['mcp/a'] }, { 'x-api-key': key });
    expect(refused(answer)).toMatchObject({ status: 403, code: 'FORBIDDEN' });
    expect(answer.message).toContain('MCP_ALLOWED_PLUGINS');
  });

  it('have headers that are never logged, at any level and in no failure', async () => {
    const studio = await startLmStudio();
    onTestFinished(() => studio.close());
    const secret = 'mcp-secret-4711';
    // An upstream that repeats what it was sent.
    const echo = { type: 'mcp_connection_error', message: `401 for Authorization: Bearer ${secret}` };
    studio.next({}, { answer: { status: 500, body: { error: echo } } }, faults.cut('after-text'));
    const child = spawn(
      process.execPath,
      ['--import', import.meta.resolve('tsx'), fileURLToPath(new URL('../../src/main.ts', import.meta.url))],
      {
        cwd: temporaryDirectory(),
        env: {
          PATH: process.env['PATH'],
          PORT: '0',
          LOG_LEVEL: 'trace',
          DATABASE_URL: 'sqlite::memory:',
          LMSTUDIO_BASE_URL: studio.url,
        },
      },
    );
    onTestFinished(() => void child.kill('SIGKILL'));
    let log = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (log += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
    const url = await vi.waitFor(
      () => /"address":"(http[^"]+)"/.exec(log)?.[1] ?? Promise.reject(new Error(`not up yet: ${log}`)),
      { timeout: 15_000, interval: 50 },
    );
    const integrations = [mcp('https://mcp.example.com/sse', { authorization: `Bearer ${secret}` })];
    const answers = [
      await post({ url }, { integrations }),
      await post({ url }, { integrations }),
      await post({ url }, { integrations, stream: true }),
      await post({ url }, { integrations: [{ ...integrations[0], headers: { authorization: [secret] } }] }),
      await post(
        { url },
        { integrations: [{ ...integrations[0], server_url: `https://u:${secret}@x.test` }] },
      ),
    ];
    expect(answers.map((answer) => answer.status)).toEqual([200, 502, 502, 400, 400]);
    child.kill('SIGTERM');
    await new Promise((resolve) => child.once('close', resolve));
    expect(log).toContain('"endpoint":"/api/llm/chat"');
    expect(log).not.toContain(secret);
    for (const answer of answers) expect(answer.text).not.toContain(secret);
  });
});

describe('a server older than 0.4', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({ studios: [{ generation: 'v0' }] });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  it.each([
    ['integrations', { integrations: ['mcp/a'] }],
    ['store', { store: true }],
    ['previous_response_id', { previous_response_id: 'resp_1' }],
    ['reasoning', { reasoning: 'low' }],
    ['context_length', { context_length: 2048 }],
    ['min_p', { min_p: 0.1 }],
  ])('makes %s an INVALID_PARAMS that names it and the provider, streamed and not', async (name, body) => {
    for (const stream of [false, true]) {
      const answer = await whole(scene, { ...body, stream });
      expect(refused(answer)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
      expect(answer.message).toMatch(
        new RegExp(`^参数值超出有效范围:${name}: LM Studio\\(lmstudio\\).*0\\.4\\.0`),
      );
    }
    expect(scene.studio.requests.filter((one) => one.generation)).toEqual([]);
  });

  it('answers those who wish for progress without any', async () => {
    const { text, chunks } = await streamed(scene, { stream_options: { include_progress: true } });
    expect(text).not.toBe('');
    expect(chunks.filter((chunk) => 'progress' in chunk)).toEqual([]);
  });

  it('is the same clear refusal where only its 200 about an unexpected endpoint tells', async () => {
    const modern = await stage();
    const body = { error: 'Unexpected endpoint or method. (POST /api/v1/chat)' };
    modern.studio.always({ answer: { status: 200, body } });
    for (const stream of [false, true]) {
      const answer = await whole(modern, { min_p: 0.1, stream });
      expect(refused(answer)).toMatchObject({ status: 400, code: 'INVALID_PARAMS' });
      expect(answer.message).toMatch(/min_p.*0\.4\.0/);
    }
  });
});

it('is a 401 that names the provider where the server wants a token that the gateway lacks', async () => {
  const studio = await startLmStudio({ token: 'lm-token' });
  onTestFinished(() => studio.close());
  const environment = {
    DATABASE_URL: `sqlite:${path.join(temporaryDirectory(), 'gateway.db')}`,
    LMSTUDIO_BASE_URL: studio.url,
  };
  const trusted = await startGateway({ ...environment, LMSTUDIO_API_KEY: 'lm-token' });
  expect((await good(trusted, { min_p: 0.1 })).status).toBe(200);
  await trusted.close();
  const keyless = await startGateway(environment);
  onTestFinished(() => keyless.close());
  for (const body of [{}, { min_p: 0.1 }, { stream: true }, { min_p: 0.1, stream: true }]) {
    const answer = await whole(keyless, body);
    expect(refused(answer)).toEqual({
      status: 401,
      code: 'UNAUTHORIZED',
      message: '未授权:API Key缺失或无效(lmstudio)',
    });
  }
});
