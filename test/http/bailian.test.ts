import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { type BailianSimulator, defaultKey, startBailian } from '../simulators/bailian.ts';
import { bailianFaults } from '../simulators/bailian-faults.ts';
import { jsonOf, type RunningGateway, startGateway } from './gateway.ts';

let platform: BailianSimulator;
let gateway: RunningGateway;

beforeAll(async () => {
  platform = await startBailian();
  gateway = await startGateway({ BAILIAN_BASE_URL: platform.baseUrl, DASHSCOPE_API_KEY: defaultKey });
});
afterEach(() => {
  platform.scripts.clear();
  platform.forget();
});
afterAll(async () => {
  await gateway.close();
  await platform.stop();
});

const messages = [{ role: 'user', content: '你好' }];
const chat = (model: string, more: object = {}): Promise<Response> =>
  gateway.post('/api/llm/chat', { model, messages, ...more });

/** What the platform was asked, without the calls for its model list. */
const asked = () => platform.requests.filter((request) => request.generation);

/** The JSON of every `data:` line, `[DONE]` left out. */
const chunksOf = (text: string): { readonly [key: string]: unknown }[] =>
  text
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => JSON.parse(event.slice('data: '.length)));

describe('Bailian behind the unified API', () => {
  it('answers a plain call of qwen-turbo', async () => {
    const response = await chat('qwen-turbo');
    expect(response.headers.get('x-gateway-provider')).toBe('bailian');
    expect(await response.json()).toEqual({
      code: 200,
      message: 'success',
      data: {
        content: '你好!我是通义千问。',
        finish_reason: 'stop',
        usage: { input_tokens: 12, output_tokens: expect.any(Number), total_tokens: expect.any(Number) },
      },
    });
    expect(asked().map(({ body }) => body)).toEqual([
      { model: 'qwen-turbo', messages, enable_thinking: false, stream: false },
    ]);
  });

  it('streams', async () => {
    platform.scripts.next({ text: ['你好', '。'] });
    const text = await (await chat('qwen-plus', { stream: true })).text();
    expect(chunksOf(text).map((chunk) => [chunk['content'], chunk['finish_reason']])).toEqual([
      ['你好', null],
      ['。', null],
      ['', 'stop'],
    ]);
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  it('answers a plain call of a stream-only model with a streamed one', async () => {
    const response = await chat('qwq-plus');
    expect(await response.json()).toMatchObject({
      data: { content: '你好!我是通义千问。', reasoning_content: '用户在打招呼。', finish_reason: 'stop' },
    });
    expect(asked()).toHaveLength(1);
    expect(asked()[0]?.body).toMatchObject({ stream: true, stream_options: { include_usage: true } });
  });

  it('gives a filtered prompt back as the fault of the request', async () => {
    platform.scripts.next(bailianFaults.filteredAsStream());
    const response = await chat('qwen-plus', { stream: true });
    expect(response.status).toBe(400);
    expect(response.headers.get('x-error-code')).toBe('INVALID_PARAMS');
    expect(await response.json()).toMatchObject({
      message:
        '参数值超出有效范围:百炼平台返回错误:<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.',
    });
  });

  it('ends a stream as filtered where inspection strikes after text', async () => {
    platform.scripts.next({ text: ['一', '二'], ...bailianFaults.filteredAfterText() });
    const chunks = chunksOf(await (await chat('qwen-plus', { stream: true })).text());
    expect(chunks.map((chunk) => chunk['finish_reason'])).toEqual([null, 'content_filter']);
  });

  it('passes debt on as a 502 in the words of the platform, without a second try', async () => {
    platform.scripts.always(bailianFaults.arrearage());
    const response = await chat('qwen-plus');
    expect(response.status).toBe(502);
    expect(await response.json()).toMatchObject({
      message: '百炼平台返回错误:Access denied, please make sure your account is in good standing.',
    });
    expect(asked()).toHaveLength(1);
  });

  it('tries again after a throttle that calls itself a lack of quota', async () => {
    platform.scripts.next(bailianFaults.throttled());
    const response = await chat('qwen-plus');
    expect(response.status).toBe(200);
    expect(response.headers.get('x-gateway-attempts')).toBe('2');
  });

  it('splits what is longer than a batch and puts it together in order', async () => {
    const input = Array.from({ length: 23 }, (_, index) => `text ${index}`);
    const response = await gateway.post('/api/llm/embeddings', {
      model: 'text-embedding-v4',
      input,
      dimensions: 64,
    });
    const { data } = await jsonOf(response);
    expect(data.embeddings.map((row: { embedding: number[] }) => row.embedding[0])).toEqual(
      input.map((_, i) => i),
    );
    expect(data.usage).toMatchObject({ output_tokens: 0 });
    expect(asked().map(({ body }) => body)).toHaveLength(3);
  });
});

describe('Bailian without its key', () => {
  let keyless: RunningGateway;
  beforeAll(async () => {
    keyless = await startGateway({ BAILIAN_BASE_URL: platform.baseUrl });
  });
  afterAll(() => keyless.close());

  it('lists none of its models', async () => {
    expect(await (await keyless.get('/api/llm/models')).json()).toMatchObject({ data: [] });
  });

  it('answers a call by name with the 401 that names it', async () => {
    const response = await keyless.post('/api/llm/chat', { model: 'qwen-turbo', messages });
    expect(response.status).toBe(401);
    expect(await response.json()).toEqual({
      code: 401,
      message: '未授权:API Key缺失或无效(bailian)',
      data: null,
    });
  });
});

describe('Bailian among other routes', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'bailian-'));
  const file = path.join(folder, 'gateway.db');
  let gateway: RunningGateway;

  beforeAll(async () => {
    const store = await openStore(file);
    store.raw.exec(`
      INSERT INTO providers (key, kind, base_url, origin) VALUES ('lmstudio', 'lmstudio', 'http://127.0.0.1:9', 'environment');
      INSERT INTO models (title, origin) VALUES ('ours', 'admin'), ('of-tomorrow', 'admin');
      INSERT INTO routes (model_id, provider_id, upstream_model, priority, origin)
        SELECT models.id, providers.id, 'qwen-local', 0, 'admin' FROM models, providers WHERE title = 'ours' AND key = 'lmstudio';
      INSERT INTO routes (model_id, provider_id, upstream_model, priority, origin)
        SELECT models.id, providers.id, 'qwen-plus', 1, 'admin' FROM models, providers WHERE title = 'ours' AND key = 'bailian';
      INSERT INTO routes (model_id, provider_id, upstream_model, origin)
        SELECT models.id, providers.id, 'qwen9-stream', 'admin' FROM models, providers WHERE title = 'of-tomorrow' AND key = 'bailian';
    `);
    await store.close();
    gateway = await startGateway({
      DATABASE_URL: `sqlite:${file}`,
      BAILIAN_BASE_URL: platform.baseUrl,
      DASHSCOPE_API_KEY: defaultKey,
    });
  });
  afterAll(async () => {
    await gateway.close();
    rmSync(folder, { recursive: true });
  });

  it('streams for a model that says it only streams, and asks it plainly just once', async () => {
    const ask = (): Promise<Response> => gateway.post('/api/llm/chat', { model: 'of-tomorrow', messages });
    expect(await (await ask()).json()).toMatchObject({ data: { content: '你好!我是通义千问。' } });
    expect(await (await ask()).json()).toMatchObject({ data: { content: '你好!我是通义千问。' } });
    expect(asked().map(({ body }) => body)).toMatchObject([
      { stream: false },
      { stream: true },
      { stream: true },
    ]);
  });

  it('answers where LM Studio is off, and the usage is its own', async () => {
    const response = await gateway.post('/api/llm/chat', { model: 'ours', messages });
    expect(response.status).toBe(200);
    expect(response.headers.get('x-gateway-provider')).toBe('bailian');
    expect(response.headers.get('x-gateway-model')).toBe('qwen-plus');
    const requestId = response.headers.get('x-request-id') ?? '';
    const store = await openStore(file);
    const find = store.raw.prepare('SELECT provider, input_tokens FROM usage WHERE request_id = ?');
    await expect.poll(() => find.all(requestId)).toEqual([{ provider: 'bailian', input_tokens: 12 }]);
    await store.close();
  });
});
