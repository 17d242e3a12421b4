/** The bytes that the benchmark's upstream sends, built once per script: LM Studio's v0 shapes, which OpenAI clients take too. */
import { models, nameOf, type Script, scriptOf } from './script.ts';

/** One script's answer. A stream is `first`, then `middle` again and again, then `last`. */
export interface Answer {
  readonly script: Script;
  readonly first: Buffer;
  readonly middle: Buffer;
  readonly last: Buffer;
}

const created = 1_731_990_317;
const stats = {
  tokens_per_second: 51.4,
  time_to_first_token: 0.111,
  generation_time: 0.954,
  stop_reason: 'eosFound',
};
const modelInfo = { arch: 'bench', quant: 'Q4_K_M', format: 'gguf', context_length: 4096 };
const runtime = { name: 'bench', version: '1.0.0', supported_formats: ['gguf'] };

function jsonResponse(body: unknown, status = '200 OK'): Buffer {
  const text = JSON.stringify(body);
  return Buffer.from(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  );
}

const streamHead =
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n';

/** An event as an HTTP chunk of its own. */
function eventChunk(data: string): string {
  const event = `data: ${data}\n\n`;
  return `${Buffer.byteLength(event).toString(16)}\r\n${event}\r\n`;
}

function completion(model: string, promptTokens: number, completionTokens: number, text: string): unknown {
  return {
    id: 'chatcmpl-bench',
    object: 'chat.completion',
    created,
    model,
    choices: [
      { index: 0, logprobs: null, finish_reason: 'stop', message: { role: 'assistant', content: text } },
    ],
    usage: usageOf(promptTokens, completionTokens),
    stats,
    model_info: modelInfo,
    runtime,
  };
}

function usageOf(prompt: number, completed: number): unknown {
  return { prompt_tokens: prompt, completion_tokens: completed, total_tokens: prompt + completed };
}

function buildAnswer(script: Script): Answer {
  const model = nameOf(script);
  const nothing = Buffer.alloc(0);
  if (script.chunks === 0) {
    const text = 'The quick brown fox jumps over the lazy dog. '.repeat(4);
    return { script, first: jsonResponse(completion(model, 10, 40, text)), middle: nothing, last: nothing };
  }
  const frame = (members: object): string =>
    eventChunk(
      JSON.stringify({
        id: 'chatcmpl-bench',
        object: 'chat.completion.chunk',
        created,
        model,
        system_fingerprint: model,
        ...members,
      }),
    );
  const choice = (delta: object, finish: string | null): object => ({
    choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
  });
  const text = frame(choice({ role: 'assistant', content: 'lorem ip' }, null)).repeat(script.eventsPerWrite);
  const finish = frame({ ...choice({}, 'stop'), stats, model_info: modelInfo, runtime });
  const usage = frame({ choices: [], usage: usageOf(10, script.chunks) });
  return {
    script,
    first: Buffer.from(streamHead + text),
    middle: Buffer.from(text),
    last: Buffer.from(`${finish}${usage}${eventChunk('[DONE]')}0\r\n\r\n`),
  };
}

export const answers: ReadonlyMap<string, Answer> = new Map(
  models.flatMap((name) => {
    const script = scriptOf(name);
    return script === undefined ? [] : [[name, buildAnswer(script)] as const];
  }),
);

/** GET /api/v0/models, as LM Studio tells it. */
export const modelList = jsonResponse({
  object: 'list',
  data: models.map((id) => ({
    id,
    object: 'model',
    type: 'llm',
    publisher: 'bench',
    arch: 'bench',
    compatibility_type: 'gguf',
    quantization: 'Q4_K_M',
    state: 'loaded',
    max_context_length: 131_072,
    loaded_context_length: 4096,
  })),
});

export const unknownPath = jsonResponse({ error: 'Unexpected endpoint or method.' }, '404 Not Found');
export const unknownModel = jsonResponse({ error: 'no such script' }, '400 Bad Request');
