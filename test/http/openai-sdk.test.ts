import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
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

const messages = [{ role: 'user' as const, content: '你好' }];

function client(options: Partial<ConstructorParameters<typeof OpenAI>[0]> = {}): OpenAI {
  return new OpenAI({ baseURL: upstreams.baseUrl, apiKey: 'unused', maxRetries: 0, ...options });
}

describe.each(upstreamNames)('the official client against %s', (name) => {
  it('gets a whole answer', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: '你好,世界', usage: { input: 3, output: 4 } });
    const answer = await client().chat.completions.create({ model, messages });
    expect(answer.choices[0]?.message.content).toBe('你好,世界');
    expect(answer.choices[0]?.finish_reason).toBe('stop');
    expect(answer.model).toBe(model);
    expect(answer.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 });
  });

  it('streams an answer piece by piece under one id', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: ['你', '好', '!'], usage: { input: 3, output: 4 } });
    const stream = await client().chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: OpenAI.Chat.ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(chunks.flatMap((chunk) => chunk.choices[0]?.delta.content || [])).toEqual(['你', '好', '!']);
    expect(new Set(chunks.map(({ id, created }) => `${id} ${created}`)).size).toBe(1);
    expect(chunks[0]?.choices[0]?.delta.role).toBe('assistant');
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } });
  });

  it('runs tools until the answer is there', async () => {
    const { model, next, server } = upstreams.of[name];
    const call = { id: 'call_1', name: 'get_weather', arguments: ['{"city":', '"北京"}'] };
    next({ text: '', toolCalls: [call] }, { text: '北京晴' });
    const asked: unknown[] = [];
    const runner = client().chat.completions.runTools({
      model,
      messages,
      stream: true,
      tools: [
        {
          type: 'function',
          function: {
            name: 'get_weather',
            description: 'The weather of a city',
            parse: JSON.parse,
            parameters: { type: 'object', properties: { city: { type: 'string' } } },
            function: (input: unknown) => {
              asked.push(input);
              return '晴';
            },
          },
        },
      ],
    });
    expect(await runner.finalContent()).toBe('北京晴');
    expect(asked).toEqual([{ city: '北京' }]);
    const followUp = server.requests.filter((request) => request.generation).at(-1)?.body;
    expect(followUp).toMatchObject({
      messages: [
        { role: 'user' },
        { role: 'assistant', tool_calls: [{ id: 'call_1', function: { arguments: '{"city":"北京"}' } }] },
        { role: 'tool', tool_call_id: 'call_1', content: '晴' },
      ],
    });
  });

  it('parses an answer of a given structure', async () => {
    const { model, next, server } = upstreams.of[name];
    next({ text: '{"city":"北京","degrees":21}' });
    const weather = z.object({ city: z.string(), degrees: z.number() });
    const answer = await client().chat.completions.parse({
      model,
      messages: [{ role: 'user', content: '天气, 用 JSON' }],
      response_format: zodResponseFormat(weather, 'weather'),
    });
    expect(answer.choices[0]?.message.parsed).toEqual({ city: '北京', degrees: 21 });
    expect(server.requests.at(-1)?.body).toMatchObject({
      response_format: { type: 'json_schema', json_schema: { name: 'weather', strict: true } },
    });
  });

  it('gets the same vectors in its base64 default as in numbers', async () => {
    const { embeddingModel: model } = upstreams.of[name];
    const input = ['一', '二'];
    const packed = await client().embeddings.create({ model, input });
    const plain = await client().embeddings.create({ model, input, encoding_format: 'float' });
    expect(plain.data.map(({ index }) => index)).toEqual([0, 1]);
    for (const [index, { embedding }] of packed.data.entries()) {
      expect([...embedding]).toEqual(plain.data[index]?.embedding.map(Math.fround));
    }
    expect(packed.usage.prompt_tokens).toBeGreaterThan(0);
  });

  it('ends the generation when it breaks out of a stream', async () => {
    const { model, next, server } = upstreams.of[name];
    next({ text: ['一', '二'], stall: { at: 'after-text' } });
    const stream = await client().chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    expect((await server.waitForAbort()).aborted).toBe(true);
  });

  it('ends the generation when it aborts a whole answer', async () => {
    const { model, next, server } = upstreams.of[name];
    next({ stall: { at: 'start' } });
    const leaving = new AbortController();
    const answer = client().chat.completions.create({ model, messages }, { signal: leaving.signal });
    answer.catch(() => {});
    await server.waitForRequest();
    leaving.abort();
    await expect(answer).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
    expect((await server.waitForAbort()).aborted).toBe(true);
  });

  it('throws what an upstream says in the middle of a stream', async () => {
    const { model, next } = upstreams.of[name];
    next({
      text: ['一', '二'],
      error: { at: 'after-text', code: 'internal_error', message: 'the GPU melted' },
    });
    const stream = await client().chat.completions.create({ model, messages, stream: true });
    const read = async (): Promise<void> => {
      for await (const _ of stream);
    };
    await expect(read()).rejects.toMatchObject({
      constructor: OpenAI.APIError,
      message: expect.stringContaining('the GPU melted'),
    });
  });

  it('throws when the upstream is cut off in the middle of a stream', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: ['一', '二'], ...faults.cut('after-text') });
    const stream = await client().chat.completions.create({ model, messages, stream: true });
    const read = async (): Promise<void> => {
      for await (const _ of stream);
    };
    await expect(read()).rejects.toMatchObject({
      constructor: OpenAI.APIError,
      type: 'server_error',
      message: expect.stringContaining('连接中断'),
    });
  });
});

describe('the official client', () => {
  it('lists models and finds one whose name holds a slash', async () => {
    const ids: string[] = [];
    for await (const model of client().models.list()) ids.push(model.id);
    expect(ids).toEqual(
      expect.arrayContaining(['qwen-max', 'local-chat', 'local-embed', 'openai/gpt-oss-20b']),
    );
    expect((await client().models.retrieve('openai/gpt-oss-20b')).id).toBe('openai/gpt-oss-20b');
  });

  it('throws BadRequestError for a model that does not exist', async () => {
    const answer = client().chat.completions.create({ model: 'nobody', messages });
    await expect(answer).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      code: 'model_not_found',
      type: 'invalid_request_error',
      param: 'model',
      requestID: expect.stringMatching(/.+/),
    });
  });

  it('throws NotFoundError for a model that cannot be retrieved', async () => {
    await expect(client().models.retrieve('nobody')).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      code: 'model_not_found',
    });
  });

  it('is pointed to chat completions when it asks for responses', async () => {
    await expect(client().responses.create({ model: 'local-chat', input: '你好' })).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      message: expect.stringContaining('/v1/chat/completions'),
    });
  });

  it('throws AuthenticationError where a key is wanted', async () => {
    const gateway = await startGateway({ AUTH: 'on', ADMIN_API_KEY: 'an-administrator-key-of-the-tests' });
    onTestFinished(() => gateway.close());
    const stranger = client({ baseURL: `${gateway.url}/v1` });
    await expect(stranger.models.list()).rejects.toMatchObject({
      constructor: OpenAI.AuthenticationError,
      code: 'invalid_api_key',
    });
  });

  it('throws RateLimitError for a 429 of the upstream', async () => {
    upstreams.of.openai.next(faults.rateLimited('30'));
    const answer = client().chat.completions.create({ model: 'local-chat', messages });
    await expect(answer).rejects.toMatchObject({
      constructor: OpenAI.RateLimitError,
      code: 'rate_limit_exceeded',
    });
  });

  it('throws BadRequestError with its own code for a prompt that does not fit', async () => {
    const content = '长'.repeat(20_000);
    const answer = client().chat.completions.create({
      model: 'qwen2.5-7b-instruct',
      messages: [{ role: 'user', content }],
    });
    await expect(answer).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      code: 'context_length_exceeded',
    });
  });

  it('does not repeat what the gateway has repeated already', async () => {
    let sent = 0;
    const counting = client({
      maxRetries: 2,
      fetch: (url, init) => {
        sent += 1;
        return fetch(url, init);
      },
    });
    const failure = faults.status(503);
    upstreams.of.openai.next(failure, failure, failure, failure);
    const answer = counting.chat.completions.create({ model: 'local-chat', messages });
    await expect(answer).rejects.toBeInstanceOf(OpenAI.InternalServerError);
    expect(sent).toBe(1);
    expect(upstreams.of.openai.server.requests).toHaveLength(3);
  });

  it('repeats by itself what never reached an upstream, when the gateway says so', async () => {
    const busy = await startUpstreams({}, { max_concurrency: 1, max_queue: 0 });
    onTestFinished(() => busy.close());
    let open = (): void => {};
    const hold = new Promise<void>((resolve) => {
      open = resolve;
    });
    busy.of.openai.next({ hold });
    const statuses: number[] = [];
    const impatient = client({
      baseURL: busy.baseUrl,
      maxRetries: 1,
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        statuses.push(response.status);
        open();
        return response;
      },
    });
    const first = busy.gateway.post('/v1/chat/completions', { model: 'local-chat', messages });
    await busy.of.openai.server.waitForRequest();
    const answer = await impatient.chat.completions.create({ model: 'local-chat', messages });
    expect(answer.choices[0]?.finish_reason).toBe('stop');
    expect(statuses).toEqual([429, 200]);
    expect((await first).status).toBe(200);
  });
});
