/** POST /api/llm/chat and GET /api/llm/models over sockets: what is refused and how, and what a plain answer is. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { replyTo } from '../simulators/lmstudio-answers.ts';
import { jsonOf, type RunningGateway, startGateway } from './gateway.ts';
import { spawnGateway } from './spawned.ts';

const model = 'qwen2.5-7b-instruct';
const messages = [{ role: 'user', content: '你好' }];
const png = 'data:image/png;base64,iVBORw0KGgo=';

let simulator: LmStudioSimulator;
let gateway: RunningGateway;
beforeAll(async () => {
  simulator = await startLmStudio();
  gateway = await startGateway({ LMSTUDIO_BASE_URL: simulator.url, BODY_LIMIT_BYTES: '100000' });
});
beforeEach(() => simulator.reset());
afterAll(async () => {
  await gateway.close();
  await simulator.close();
});

const chat = (body: unknown) => gateway.post('/api/llm/chat', body);

/** The answer's error code and message, after a look at what every error has. */
async function refusalOf(answer: Response): Promise<[string | null, string]> {
  const body = await jsonOf(answer);
  expect(Object.keys(body)).toEqual(['code', 'message', 'data']);
  expect([body.code, body.data]).toEqual([answer.status, null]);
  expect(answer.headers.get('x-request-id')).toBeTruthy();
  return [answer.headers.get('x-error-code'), body.message];
}

/** The body that the upstream got for a request. */
async function sentFor(body: object): Promise<Record<string, unknown>> {
  const answer = await chat({ model, messages, ...body });
  expect(answer.status, await answer.clone().text()).toBe(200);
  const sent = simulator.requests.filter((one) => one.method === 'POST').at(-1)?.body;
  return sent as Record<string, unknown>;
}

describe('a plain answer', () => {
  it('is the envelope with content, finish_reason and usage', async () => {
    const answer = await chat({ model, messages, stream: false, temperature: 0.7 });
    const body = await jsonOf(answer);
    expect(answer.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(Object.keys(body)).toEqual(['code', 'message', 'data']);
    expect([body.code, body.message]).toEqual([200, 'success']);
    expect(Object.keys(body.data).slice(0, 3)).toEqual(['content', 'finish_reason', 'usage']);
    expect(Object.keys(body.data.usage)).toEqual(['input_tokens', 'output_tokens', 'total_tokens']);
    expect(body.data.finish_reason).toBe('stop');
    expect(body.data.content).toBe(replyTo([{ role: 'user', text: '你好' }]));
  });

  it('names in its headers who answered', async () => {
    const { headers } = await chat({ model, messages });
    const names = [
      'x-gateway-provider',
      'x-gateway-model',
      'x-gateway-requested-model',
      'x-gateway-attempts',
    ];
    expect(names.map((name) => headers.get(name))).toEqual(['lmstudio', model, model, '1']);
  });

  it('asks the upstream without streaming too', async () => {
    expect((await sentFor({}))['stream']).toBe(false);
  });

  it('carries tool calls for the client to run', async () => {
    const tools = [{ type: 'function', function: { name: 'get_weather', parameters: { type: 'object' } } }];
    const body = await jsonOf(await chat({ model, messages, tools, tool_choice: 'required' }));
    expect(body.data.finish_reason).toBe('tool_calls');
    expect(body.data.tool_calls[0]).toMatchObject({ type: 'function', function: { name: 'get_weather' } });
    expect(body.data.content).toBe('');
  });
});

describe('the model', () => {
  it.each([undefined, null, '', 5, 'no-such-model', 'text-embedding-nomic-embed-text-v1.5'])(
    '%j is INVALID_MODEL',
    async (wrong) => {
      const answer = await chat({ model: wrong, messages });
      expect(answer.status).toBe(400);
      expect(await refusalOf(answer)).toEqual(['INVALID_MODEL', '无效的模型名称或模型类型不匹配']);
    },
  );
});

describe('messages', () => {
  it.each([undefined, null, []])('%j is an empty list', async (wrong) => {
    expect(await refusalOf(await chat({ model, messages: wrong }))).toEqual([
      'INVALID_MESSAGES',
      '消息列表不能为空',
    ]);
  });

  it.each<[unknown, string]>([
    ['x', 'messages'],
    [{}, 'messages'],
    [[5], 'messages[0]'],
    [[{ role: 'robot', content: '' }], 'messages[0].role'],
    [[{ content: '' }], 'messages[0].role'],
    [[{ role: 'user' }], 'messages[0].content'],
    [[{ role: 'user', content: null }], 'messages[0].content'],
    [[{ role: 'user', content: 5 }], 'messages[0].content'],
    [[{ role: 'user', content: [] }], 'messages[0].content'],
    [[{ role: 'user', content: [{ type: 'audio' }] }], 'messages[0].content[0]'],
    [[{ role: 'user', content: [{ type: 'text' }] }], 'messages[0].content[0].text'],
    [[...messages, { role: 'user', content: '', extra: 1 }], 'messages[1]'],
    [[{ role: 'assistant' }], 'messages[0].content'],
    [[{ role: 'tool', content: '' }], 'messages[0].tool_call_id'],
    [[{ role: 'user', content: '', tool_calls: [] }], 'messages[0]'],
    [
      [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://x.example/a.png' } }] }],
      'messages[0].content[0]',
    ],
    [
      [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/webp;base64,AAAA' } }] }],
      'messages[0].content[0]',
    ],
  ])('%j are refused where they are wrong: %s', async (wrong, where) => {
    const [code, message] = await refusalOf(await chat({ model, messages: wrong }));
    expect(code).toBe('INVALID_MESSAGES');
    expect(message).toMatch(/^消息格式错误:/);
    expect(message).toContain(where);
    expect(message).not.toContain('：');
  });

  it('may be empty texts', async () => {
    expect((await chat({ model, messages: [{ role: 'user', content: '' }] })).status).toBe(200);
  });

  it('reach the upstream as they were sent', async () => {
    const all = [
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hi', name: 'ann' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
      },
      { role: 'tool', content: 'done', tool_call_id: 'c1' },
    ];
    const sent = await sentFor({ messages: all });
    expect(sent['messages']).toMatchObject([all[0], all[1], { role: 'assistant' }, all[3]]);
  });

  it('may hold pictures for a model that sees', async () => {
    const content = [
      { type: 'text', text: 'what is this?' },
      { type: 'image_url', image_url: { url: png } },
    ];
    const answer = await chat({ model: 'qwen2-vl-7b-instruct', messages: [{ role: 'user', content }] });
    expect(answer.status).toBe(200);
  });
});

describe('parameters', () => {
  it.each<[string, unknown]>([
    ['temperature', 2],
    ['temperature', -0.1],
    ['temperature', '1'],
    ['top_p', 0],
    ['top_p', 1.01],
    ['max_tokens', 0],
    ['max_tokens', 1.5],
    ['max_tokens', -1],
    ['stream', 'yes'],
    ['stop', Array.from({ length: 65 }, String)],
    ['stop', 5],
    ['seed', 1.5],
    ['presence_penalty', 2.1],
    ['frequency_penalty', -2.1],
    ['min_p', 1.1],
    ['repeat_penalty', 0],
    ['logit_bias', { a: 'b' }],
    ['tools', [{ type: 'function' }]],
    ['tool_choice', 'maybe'],
    ['tool_choice', 'required'],
    ['verbosity', 'low'],
    ['response_format', { type: 'xml' }],
    ['reasoning', 'much'],
    ['stream_options', { include_progress: 'yes' }],
    ['n', 2],
    ['logprobs', true],
    ['user', 5],
    ['integrations', [{ type: 'other' }]],
  ])('%s = %j is INVALID_PARAMS that names it', async (name, value) => {
    const [code, message] = await refusalOf(await chat({ model, messages, [name]: value }));
    expect(code).toBe('INVALID_PARAMS');
    expect(message).toMatch(/^参数值超出有效范围:/);
    expect(message).toContain(name);
  });

  it.each<[string, unknown]>([
    ['temperature', 0],
    ['temperature', 1.99],
    ['top_p', 1],
    ['max_tokens', 1],
    ['stop', ['x']],
    ['stop', Array.from({ length: 64 }, String)],
    ['seed', 7],
    ['presence_penalty', -2],
    ['frequency_penalty', 2],
    ['top_k', 40],
    ['repeat_penalty', 1.1],
    ['logit_bias', { '5': -100 }],
    ['ttl', 60],
  ])('%s = %j reaches the upstream', async (name, value) => {
    expect((await sentFor({ [name]: value }))[name]).toEqual(value);
  });

  it.each<[string, unknown]>([
    ['n', 1],
    ['presence_penalty', 0],
    ['frequency_penalty', 0],
    ['logit_bias', {}],
    ['logprobs', false],
    ['tools', []],
    ['response_format', { type: 'text' }],
    ['tool_choice', 'auto'],
    ['tool_choice', 'none'],
    ['parallel_tool_calls', true],
    ['parallel_tool_calls', false],
    ['verbosity', 'medium'],
    ['store', false],
    ['temperature', null],
    ['stop', null],
    ['stream', null],
    ['tools', null],
    ['user', null],
    ['stream_options', { include_progress: true }],
  ])('%s = %j changes nothing and is not sent', async (name, value) => {
    const sent = await sentFor({ [name]: value });
    expect(Object.keys(sent).sort()).toEqual(Object.keys(await sentFor({})).sort());
  });

  it('accept temperature and top_p together', async () => {
    expect(await sentFor({ temperature: 0.5, top_p: 0.5 })).toMatchObject({ temperature: 0.5, top_p: 0.5 });
  });

  it('turn json_object into a schema, which LM Studio takes', async () => {
    const sent = await sentFor({ response_format: { type: 'json_object' } });
    expect(sent['response_format']).toMatchObject({
      type: 'json_schema',
      json_schema: { schema: { type: 'object' } },
    });
  });

  it('that this API does not know are named', async () => {
    const [code, message] = await refusalOf(await chat({ model, messages, best_of: 2, temprature: 1 }));
    expect(code).toBe('INVALID_PARAMS');
    expect(message).toContain('best_of');
    expect(message).toContain('temprature');
  });

  it('that only different wires of one provider can carry are refused together', async () => {
    const [code, message] = await refusalOf(await chat({ model, messages, stop: 'x', min_p: 0.1 }));
    expect(code).toBe('INVALID_PARAMS');
    expect(message).toMatch(/stop.*min_p|min_p.*stop/);
    expect(message).toContain('lmstudio');
  });

  it('nested deeper than JSON tools survive are refused', async () => {
    const deep = JSON.parse(`${'{"a":'.repeat(500)}1${'}'.repeat(500)}`);
    const tools = [{ type: 'function', function: { name: 'f', parameters: deep } }];
    expect((await refusalOf(await chat({ model, messages, tools })))[0]).toBe('INVALID_PARAMS');
  });
});

describe('the order of checks', () => {
  it('is model, messages, parameters, unknown fields', async () => {
    const all = { messages: [], temperature: 9, unknown: 1 };
    expect((await refusalOf(await chat(all)))[0]).toBe('INVALID_MODEL');
    expect((await refusalOf(await chat({ ...all, model: 'nobody' })))[0]).toBe('INVALID_MESSAGES');
    expect((await refusalOf(await chat({ ...all, model: 'nobody', messages })))[1]).toContain('temperature');
    expect((await refusalOf(await chat({ model: 'nobody', messages, unknown: 1 })))[1]).toContain('unknown');
    expect((await refusalOf(await chat({ model: 'nobody', messages })))[0]).toBe('INVALID_MODEL');
  });
});

describe('a body', () => {
  it.each([
    '',
    'no json',
    '{',
    '[]',
    '"x"',
    'null',
    '5',
    '{"__proto__":{"a":1}}',
    '{"a":{"constructor":{"prototype":{}}}}',
  ])('%j is INVALID_PARAMS', async (body) => {
    const answer = await chat(body);
    expect(answer.status).toBe(400);
    expect((await refusalOf(answer))[0]).toBe('INVALID_PARAMS');
  });

  it('beyond the limit is a 413', async () => {
    const answer = await chat({ model, messages: [{ role: 'user', content: 'x'.repeat(100_001) }] });
    expect([answer.status, ...(await refusalOf(answer))]).toEqual([413, 'PAYLOAD_TOO_LARGE', '请求体过大']);
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'application/xml'])(
    'of type %s is a 415',
    async (type) => {
      const answer = await gateway.post('/api/llm/chat', JSON.stringify({ model, messages }), {
        'content-type': type,
      });
      expect([answer.status, ...(await refusalOf(answer))]).toEqual([
        415,
        'UNSUPPORTED_MEDIA_TYPE',
        expect.stringMatching(/^不支持的媒体类型:请求体须为 application\/json, content-encoding 可用 gzip, /),
      ]);
    },
  );
});

describe('methods and paths', () => {
  it('that exist under another method are a 405 that names it', async () => {
    const answer = await gateway.get('/api/llm/chat');
    expect(answer.headers.get('allow')).toBe('POST');
    expect([answer.status, ...(await refusalOf(answer))]).toEqual([
      405,
      'METHOD_NOT_ALLOWED',
      '请求方法不被允许',
    ]);
  });

  it.each([
    ['HEAD', '/api/llm/chat', 'POST'],
    ['OPTIONS', '/api/llm/chat', 'POST'],
    ['POST', '/docs', 'GET, HEAD'],
    ['DELETE', '/redoc', 'GET, HEAD'],
    ['PUT', '/', 'GET, HEAD'],
  ])('%s %s is a 405, too', async (method, path, allow) => {
    const answer = await fetch(`${gateway.url}${path}`, { method });
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, allow]);
  });

  it('that do not exist are a 404', async () => {
    expect(await refusalOf(await gateway.get('/api/llm/nothing'))).toEqual(['NOT_FOUND', '资源不存在']);
    expect((await refusalOf(await gateway.get('/api/%zz')))[0]).toBe('NOT_FOUND');
  });
});

describe('GET /api/llm/models', () => {
  it('lists the language models with exactly the contract’s keys', async () => {
    const { code, data } = await jsonOf(await gateway.get('/api/llm/models'));
    expect(code).toBe(200);
    expect(data.map((row: { title: string }) => row.title)).toEqual([
      model,
      'openai/gpt-oss-20b',
      'qwen2-vl-7b-instruct',
    ]);
    for (const row of data) {
      expect(Object.keys(row)).toEqual(
        'id title img name description keyword time tag1 tag2 type is_featured created_at updated_at'.split(
          ' ',
        ),
      );
      expect(row.id).toBeGreaterThanOrEqual(1000);
      expect([row.type, row.is_featured]).toEqual([0, false]);
      expect(row.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/);
      expect(row.time).toMatch(/^\d{4}-\d\d-\d\d$/);
    }
  });

  it.each(['openai/gpt-oss-20b', 'openai%2Fgpt-oss-20b'])(
    'shows %s with its routes and no address',
    async (title) => {
      const answer = await gateway.get(`/api/llm/models/${title}`);
      const text = await answer.text();
      expect(text).not.toContain('127.0.0.1');
      const { data } = JSON.parse(text);
      expect(data.title).toBe('openai/gpt-oss-20b');
      expect(Object.keys(data.routes[0])).toEqual(
        'provider state context_length max_context_length capabilities healthy'.split(' '),
      );
      expect(data.routes[0]).toMatchObject({ provider: 'lmstudio', healthy: true });
    },
  );

  it('answers 404 for a title that is not there', async () => {
    expect((await gateway.get('/api/llm/models/nobody')).status).toBe(404);
  });
});

describe('another model than was asked for', () => {
  it('is named in x-gateway-model, percent-encoded outside ASCII', async () => {
    simulator.next(faults.anotherModel('别的/模型-7b'));
    const { headers } = await chat({ model, messages });
    expect(headers.get('x-gateway-requested-model')).toBe(model);
    expect(headers.get('x-gateway-model')).toBe('%E5%88%AB%E7%9A%84/%E6%A8%A1%E5%9E%8B-7b');
  });

  it('is warned of once for each name, in whatever order they answer', async () => {
    const spawned = await spawnGateway({
      DATABASE_URL: 'sqlite::memory:',
      LMSTUDIO_BASE_URL: simulator.url,
    });
    const answering = ['alias-7b', 'alias-7b', model, 'alias-7b', 'other-7b', 'alias-7b', 'other-7b'];
    for (const name of answering) {
      simulator.next(faults.anotherModel(name));
      const answer = await fetch(`${spawned.url}/api/llm/chat`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model, messages }),
      });
      expect(answer.status, await answer.text()).toBe(200);
    }
    await spawned.end('SIGTERM');
    const warned = spawned.log.filter(({ level, answered }) => level === 'warn' && answered !== undefined);
    expect(warned.map(({ asked, answered }) => [asked, answered])).toEqual([
      [model, 'alias-7b'],
      [model, 'other-7b'],
    ]);
    const calls = spawned.log.filter(({ msg }) => msg === 'call');
    expect(calls.map(({ upstreamModel }) => upstreamModel)).toEqual(answering);
  });
});

it('a word for the end that nobody knows is stop, and warned of once', async () => {
  const spawned = await spawnGateway({
    DATABASE_URL: 'sqlite::memory:',
    LMSTUDIO_BASE_URL: simulator.url,
  });
  const words = ['because', 'stop', 'because', 'MAX_TOKENS', 'so_there', 'because', 'eos'];
  const reasons: unknown[] = [];
  for (const [index, finishReason] of words.entries()) {
    simulator.next({ finishReason });
    const answer = await fetch(`${spawned.url}/api/llm/chat`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model, messages, stream: index % 2 === 0 }),
    });
    reasons.push(/"finish_reason":"(\w+)"/.exec(await answer.text())?.[1]);
  }
  await spawned.end('SIGTERM');
  expect(reasons).toEqual(['stop', 'stop', 'stop', 'length', 'stop', 'stop', 'stop']);
  const warned = spawned.log.filter(({ level, word }) => level === 'warn' && word !== undefined);
  expect(warned.map(({ provider, word }) => [provider, word])).toEqual([
    ['lmstudio', 'because'],
    ['lmstudio', 'so_there'],
  ]);
});
