import { HumanMessage, ToolMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startUpstreams, type Upstreams, upstreamNames } from './upstreams.ts';

let upstreams: Upstreams;
beforeAll(async () => {
  upstreams = await startUpstreams();
});
afterAll(() => upstreams.close());
beforeEach(() => upstreams.reset());

const chat = (model: string): ChatOpenAI =>
  new ChatOpenAI({
    model,
    apiKey: 'unused',
    maxRetries: 0,
    configuration: { baseURL: upstreams.baseUrl },
  });

const weather = tool(async ({ city }) => `${city}晴`, {
  name: 'get_weather',
  description: 'The weather of a city',
  schema: z.object({ city: z.string() }),
});

describe.each(upstreamNames)('LangChain against %s', (name) => {
  it('gets a whole answer', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: '你好,世界', usage: { input: 3, output: 4 } });
    const answer = await chat(model).invoke('你好');
    expect(answer.text).toBe('你好,世界');
    expect(answer.usage_metadata).toMatchObject({ input_tokens: 3, output_tokens: 4, total_tokens: 7 });
  });

  it('streams an answer', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: ['你', '好', '!'], usage: { input: 3, output: 4 } });
    const pieces: string[] = [];
    let outputTokens = 0;
    for await (const chunk of await chat(model).stream('你好')) {
      if (chunk.text !== '') pieces.push(chunk.text);
      outputTokens += chunk.usage_metadata?.output_tokens ?? 0;
    }
    expect(pieces).toEqual(['你', '好', '!']);
    expect(outputTokens).toBe(4);
  });

  it('calls a tool and reads its result', async () => {
    const { model, next } = upstreams.of[name];
    next(
      { text: '', toolCalls: [{ id: 'call_1', name: 'get_weather', arguments: '{"city":"北京"}' }] },
      { text: '北京是晴天' },
    );
    const bound = chat(model).bindTools([weather]);
    const question = new HumanMessage('天气');
    const asking = await bound.invoke([question]);
    expect(asking.tool_calls?.[0]).toMatchObject({ id: 'call_1', args: { city: '北京' } });
    const result = new ToolMessage({ content: '北京晴', tool_call_id: 'call_1' });
    expect((await bound.invoke([question, asking, result])).text).toBe('北京是晴天');
  });

  it('gets an answer of a given structure', async () => {
    const { model, next } = upstreams.of[name];
    next({ text: '{"city":"北京","degrees":21}' });
    const schema = z.object({ city: z.string(), degrees: z.number() });
    const structured = chat(model).withStructuredOutput(schema, { method: 'jsonSchema', name: 'weather' });
    expect(await structured.invoke('天气, 用 JSON')).toEqual({ city: '北京', degrees: 21 });
  });

  it('embeds documents', async () => {
    const embeddings = new OpenAIEmbeddings({
      model: upstreams.of[name].embeddingModel,
      apiKey: 'unused',
      maxRetries: 0,
      configuration: { baseURL: upstreams.baseUrl },
    });
    const [one, two] = await embeddings.embedDocuments(['一1', '二2']);
    expect(one?.length).toBeGreaterThan(1);
    expect(two).not.toEqual(one);
  });
});
