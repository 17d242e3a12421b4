import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startUpstreams, type Upstreams, upstreamNames } from './upstreams.ts';

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams();
});
afterAll(() => upstreams.close());
beforeEach(() => upstreams.reset());

const provider = () =>
  createOpenAICompatible({
    name: 'gateway',
    baseURL: upstreams.baseUrl,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });

const weather = { id: 'call_1', name: 'get_weather', arguments: '{"city":"北京"}' };

const tools = {
  get_weather: tool({
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `${city}晴`,
  }),
};

describe.each(upstreamNames)('the AI SDK against %s', (name) => {
  it('generates a text', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: '你好,世界', usage: { input: 3, output: 4 } });
    const answer = await generateText({ model: provider()(model), prompt: '你好' });
    expect(answer.text).toBe('你好,世界');
    expect(answer.finishReason).toBe('stop');
    expect(answer.usage).toMatchObject({ inputTokens: 3, outputTokens: 4, totalTokens: 7 });
    expect(answer.response.modelId).toBe(model);
  });

  it('streams a text piece by piece', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: ['你', '好', '!'], usage: { input: 3, output: 4 } });
    const answer = streamText({ model: provider()(model), prompt: '你好' });
    const pieces: string[] = [];
    for await (const piece of answer.textStream) pieces.push(piece);
    expect(pieces).toEqual(['你', '好', '!']);
    expect(await answer.finishReason).toBe('stop');
    expect(await answer.usage).toMatchObject({ inputTokens: 3, outputTokens: 4 });
  });

  it('keeps reasoning apart from the text', async () => {
    const { next } = upstreams.of[name];
    const model = name === 'bailian' ? 'qwq-plus' : upstreams.of[name].model;
    next({ reasoning: ['想', '一想'], text: ['好'] });
    const answer = streamText({ model: provider()(model), prompt: '你好' });
    await answer.consumeStream();
    expect(await answer.reasoningText).toBe('想一想');
    expect(await answer.text).toBe('好');
  });

  it('runs a tool and goes on, whole and streamed', async () => {
    const { model, next } = upstreams.of[name];
    const options = { model: provider()(model), prompt: '天气', tools, stopWhen: stepCountIs(3) };
    next({ text: '', toolCalls: [weather] }, { text: '北京是晴天' });
    const whole = await generateText(options);
    expect(whole.text).toBe('北京是晴天');
    expect(whole.steps[0]?.toolResults[0]).toMatchObject({ input: { city: '北京' }, output: '北京晴' });
    next({ text: '', toolCalls: [weather] }, { text: '北京是晴天' });
    const streamed = streamText(options);
    await streamed.consumeStream();
    expect(await streamed.text).toBe('北京是晴天');
    expect((await streamed.steps)[0]?.toolResults[0]).toMatchObject({ output: '北京晴' });
  });

  it('generates an object of a given structure', async () => {
    const { model, next, server } = upstreams.of[name];
    next({ text: '{"city":"北京","degrees":21}' });
    const { output } = await generateText({
      model: provider()(model),
      prompt: '天气, 用 JSON',
      output: Output.object({ schema: z.object({ city: z.string(), degrees: z.number() }) }),
    });
    expect(output).toEqual({ city: '北京', degrees: 21 });
    expect(server.requests.at(-1)?.body).toMatchObject({ response_format: { type: 'json_schema' } });
  });

  it('embeds several values', async () => {
    const { embeddingModel } = upstreams.of[name];
    const { embeddings, usage } = await embedMany({
      model: provider().textEmbeddingModel(embeddingModel),
      values: ['一', '二', '三'],
    });
    expect(embeddings).toHaveLength(3);
    expect(usage.tokens).toBeGreaterThan(0);
  });

  it('reports an error in the middle of a stream', async () => {
    const { model, next } = upstreams.of[name];
    next({
      text: ['一', '二'],
      error: { at: 'after-text', code: 'internal_error', message: 'the GPU melted' },
    });
    const seen: unknown[] = [];
    const answer = streamText({
      model: provider()(model),
      prompt: '你好',
      onError: ({ error }) => void seen.push(error),
    });
    await answer.consumeStream();
    expect(JSON.stringify(seen)).toContain('the GPU melted');
  });
});

describe('the AI SDK', () => {
  it('reads the message of a refusal and does not repeat it', async () => {
    const answer = generateText({ model: provider()('nobody'), prompt: '你好' });
    await expect(answer).rejects.toSatisfy(
      (error) =>
        APICallError.isInstance(error) &&
        error.statusCode === 400 &&
        error.message.includes('无效的模型名称'),
    );
  });
});
