/** Every reader that is popular with clients, over upstreams that begin late and fall silent in between. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatOpenAI } from '@langchain/openai';
import { streamText } from 'ai';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import OpenAI from 'openai';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { readmeReader } from './readme-reader.ts';
import { late, lateText, scaledTimes } from './silence.ts';
import { startUpstreams, type Upstreams, wireNames } from './upstreams.ts';

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams(scaledTimes);
});
afterAll(() => upstreams.close());

/** All that the clients were sent. */
let received = '';
beforeEach(() => {
  upstreams.reset();
  received = '';
});

const overhearingFetch: typeof fetch = async (input, init) => {
  const answer = await fetch(input, init);
  const decoder = new TextDecoder();
  const body = answer.body?.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(bytes, controller) {
        received += decoder.decode(bytes, { stream: true });
        controller.enqueue(bytes);
      },
    }),
  );
  return new Response(body, answer);
};

const ask = (path: string, model: string): Promise<Response> =>
  overhearingFetch(upstreams.gateway.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: '你好' }] }),
  });

const bodyOf = (answer: Response): ReadableStream<Uint8Array> => {
  if (answer.body === null) throw new Error('no body');
  return answer.body;
};

const unifiedChunk = z.object({ content: z.string(), finish_reason: z.string().nullable() });
const openaiChunk = z.object({
  choices: z.array(z.object({ delta: z.object({ content: z.string().nullish() }) })),
});
const contentOf = (chunk: unknown): string => openaiChunk.parse(chunk).choices[0]?.delta.content ?? '';

describe.each(wireNames)('over a late first token and a silent gap of %s', (name) => {
  afterEach(() => {
    const prompts = upstreams.of[name].server.requests.filter(({ generation }) => generation);
    expect(prompts).toHaveLength(1);
    // Both silences were bridged, or the tests would show nothing.
    const [before = '', after = ''] = received.split('你好');
    for (const part of [before, after]) expect(part).toMatch(/"content":""(,"finish_reason":null)?\}/);
  });

  it('the official client of OpenAI gets the whole answer', async () => {
    const { model, next } = upstreams.of[name];
    next(late);
    const client = new OpenAI({ baseURL: upstreams.baseUrl, apiKey: 'unused', fetch: overhearingFetch });
    const stream = client.chat.completions.stream({ model, messages: [{ role: 'user', content: '你好' }] });
    expect(await stream.finalContent()).toBe(lateText);
  });

  it('the AI SDK gets the whole answer', async () => {
    const { model, next } = upstreams.of[name];
    next(late);
    const provider = createOpenAICompatible({
      name: 'gateway',
      baseURL: upstreams.baseUrl,
      fetch: overhearingFetch,
    });
    const answer = streamText({ model: provider(model), prompt: '你好' });
    const pieces: string[] = [];
    for await (const piece of answer.textStream) pieces.push(piece);
    expect(pieces).toEqual(['你好', ',', '世界']);
    expect(await answer.finishReason).toBe('stop');
  });

  it('LangChain gets the whole answer', async () => {
    const { model, next } = upstreams.of[name];
    next(late);
    const chat = new ChatOpenAI({
      model,
      apiKey: 'unused',
      maxRetries: 0,
      configuration: { baseURL: upstreams.baseUrl, fetch: overhearingFetch },
    });
    let text = '';
    for await (const chunk of await chat.stream('你好')) text += chunk.text;
    expect(text).toBe(lateText);
  });

  it.each(['/api/llm/chat', '/v1/chat/completions'])('eventsource-parser reads %s', async (path) => {
    const { model, next } = upstreams.of[name];
    next(late);
    const events = bodyOf(await ask(path, model))
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream({ onError: 'terminate' }));
    let text = '';
    for await (const { data } of events) {
      if (data === '[DONE]') break;
      const chunk: unknown = JSON.parse(data);
      text += path.startsWith('/v1') ? contentOf(chunk) : unifiedChunk.parse(chunk).content;
    }
    expect(text).toBe(lateText);
  });

  it("the README's reader gets the whole answer", async () => {
    const { model, next } = upstreams.of[name];
    next(late);
    const contents: string[] = [];
    const page = { body: { append: (content: string) => contents.push(content) } };
    const code = `return (async () => { ${readmeReader(upstreams.gateway.url, model)} })()`;
    await new Function('fetch', 'document', code)(overhearingFetch, page);
    expect(contents.join('')).toBe(lateText);
  });

  // https://github.com/openai/openai-node/issues/18 and its README of version 3: each network read is split by lines.
  it.each(['/api/llm/chat', '/v1/chat/completions'])(
    'the reader that openai@3 taught reads %s',
    async (path) => {
      const { model, next } = upstreams.of[name];
      next(late);
      let text = '';
      let done = false;
      for await (const data of bodyOf(await ask(path, model))) {
        const lines = Buffer.from(data)
          .toString()
          .split('\n')
          .filter((line) => line.trim() !== '');
        for (const line of lines) {
          const message = line.replace(/^data: /, '');
          if (message === '[DONE]') {
            done = true;
            break;
          }
          const chunk: unknown = JSON.parse(message);
          text += path.startsWith('/v1') ? contentOf(chunk) : unifiedChunk.parse(chunk).content;
        }
      }
      expect({ text, done }).toEqual({ text: lateText, done: true });
    },
  );
});
