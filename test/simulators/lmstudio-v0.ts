/** LM Studio's v0 wire: chat and text completions, with what it refuses and how it puts its answers. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import {
  continuationOf,
  countPromptTokens,
  countTokens,
  type Draft,
  type Generation,
  generate,
  replyTo,
  sampleOf,
  type Turn,
  thoughtsOn,
  tokenize,
} from './lmstudio-answers.ts';
import {
  type House,
  imageFault,
  type LmStudioScript,
  type Outcome,
  occupy,
  refuse,
  refuseInWords,
  resolveModel,
  type TakeScript,
} from './lmstudio-house.ts';
import { type Instance, modelInfoOnV0, type SimulatedModel } from './lmstudio-models.ts';
import { modelNotFound, wordsFor } from './lmstudio-v0-refusals.ts';
import { type Answer, errorBody, type Frame, type ScriptedToolCall } from './script.ts';

const part = z.union([
  z.object({ type: z.literal('text'), text: z.string() }),
  z.object({ type: z.literal('image_url'), image_url: z.object({ url: z.string() }) }),
]);
const message = z.object({
  role: z.enum(['system', 'user', 'assistant', 'tool']),
  content: z.union([z.string(), z.array(part)]).nullish(),
});
const tool = z.object({
  type: z.literal('function'),
  function: z.object({ name: z.string(), parameters: z.unknown().optional() }),
});

/** Lenient as the server is: keys that it does not know have no effect. */
const samplingFields = {
  model: z.string().default(''),
  stream: z.boolean().optional(),
  stream_options: z.object({ include_usage: z.boolean().optional() }).nullish(),
  max_tokens: z.int().min(-1).optional(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  temperature: z.number().min(0).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().optional(),
  seed: z.int().optional(),
  presence_penalty: z.number().optional(),
  frequency_penalty: z.number().optional(),
  repeat_penalty: z.number().optional(),
  logit_bias: z.record(z.string(), z.number()).optional(),
  ttl: z.int().min(1).optional(),
  draft_model: z.string().optional(),
};
const chatBody = z.object({
  ...samplingFields,
  messages: z.array(message).min(1),
  tools: z.array(tool).optional(),
  tool_choice: z.enum(['none', 'auto', 'required']).optional(),
  response_format: z
    .discriminatedUnion('type', [
      z.object({ type: z.literal('text') }),
      z.object({ type: z.literal('json_schema'), json_schema: z.object({ schema: z.unknown().optional() }) }),
    ])
    .optional(),
});
const completionBody = z.object({ ...samplingFields, prompt: z.string() });
type ChatBody = z.output<typeof chatBody>;
type Sampling = z.output<typeof completionBody> | ChatBody;

/** @param native whether the answer carries what OpenAI's wire lacks: `stats`, `model_info`, `runtime` */
export function chatOnV0(body: unknown, house: House, take: TakeScript, native = true): Outcome {
  const parsed = chatBody.safeParse(body);
  if (!parsed.success) return refuseInWords(400, wordsFor(parsed.error, body));
  const request = parsed.data;
  const turns = turnsOf(request);
  const urls = request.messages.flatMap((entry) => imagesOf(entry.content));
  for (const url of urls) {
    const fault = imageFault(url);
    if (fault !== undefined) return refuseInWords(400, fault);
  }
  const model = findGenerator(house, request.model);
  if ('answer' in model) return model;
  if (urls.length > 0 && model.type !== 'vlm') {
    return refuseInWords(400, 'Model does not support images. Please use a model that does.');
  }
  const draft: Draft = {
    ...(model.reasoning === undefined ? {} : { reasoning: thoughtsOn(turns) }),
    ...wordsOn(request, turns),
    inputTokens: countPromptTokens(request.messages.map((entry) => textOf(entry.content))),
  };
  return answerOnV0({ kind: 'chat', request, draft, model, native }, house, take());
}

export function completionOnV0(body: unknown, house: House, take: TakeScript, native = true): Outcome {
  const parsed = completionBody.safeParse(body);
  if (!parsed.success) return refuseInWords(400, wordsFor(parsed.error, body));
  const request = parsed.data;
  const model = findGenerator(house, request.model);
  if ('answer' in model) return model;
  const draft = { text: continuationOf(request.prompt), inputTokens: countTokens(request.prompt) };
  return answerOnV0({ kind: 'completion', request, draft, model, native }, house, take());
}

function findGenerator(house: House, name: string): SimulatedModel | Outcome {
  const model = resolveModel(house, name);
  if (model === undefined) return modelNotFound(house, name);
  if (model.type === 'embeddings') return refuse(400, `Model "${model.id}" is an embedding model.`);
  return model;
}

type Content = z.output<typeof message>['content'];

const imagesOf = (content: Content): readonly string[] =>
  Array.isArray(content)
    ? content.flatMap((item) => (item.type === 'image_url' ? [item.image_url.url] : []))
    : [];

const textOf = (content: Content): string =>
  Array.isArray(content)
    ? content.flatMap((item) => (item.type === 'text' ? [item.text] : [])).join('')
    : (content ?? '');

function turnsOf(request: ChatBody): readonly Turn[] {
  return request.messages.flatMap(({ role, content }) =>
    role === 'system' ? [] : [{ role, text: textOf(content), images: imagesOf(content).length }],
  );
}

/** A tool is called where one must be, or where the user names it. */
function wordsOn(request: ChatBody, turns: readonly Turn[]): Pick<Draft, 'text' | 'toolCalls'> {
  const format = request.response_format;
  if (format?.type === 'json_schema') return { text: JSON.stringify(sampleOf(format.json_schema.schema)) };
  const tools = request.tool_choice === 'none' ? [] : (request.tools ?? []);
  const last = turns.at(-1);
  const named = tools.filter((entry) => last?.role === 'user' && last.text.includes(entry.function.name));
  const wanted = named.length > 0 || request.tool_choice !== 'required' ? named : tools.slice(0, 1);
  if (wanted.length === 0) return { text: replyTo(turns) };
  const toolCalls = wanted.map((entry) => ({
    name: entry.function.name,
    arguments: JSON.stringify(sampleOf(entry.function.parameters)),
  }));
  return { text: '', toolCalls };
}

interface Job {
  readonly kind: 'chat' | 'completion';
  readonly request: Sampling;
  readonly draft: Draft;
  readonly model: SimulatedModel;
  readonly native: boolean;
}

function answerOnV0(job: Job, house: House, script: LmStudioScript): Outcome {
  const { request, draft, model } = job;
  const { instance, loadMs } = occupy(house, model, script);
  if (draft.inputTokens > instance.config.context_length) return overflow(job, instance, script);
  const maxTokens = request.max_tokens === -1 ? undefined : request.max_tokens;
  const stop = typeof request.stop === 'string' ? [request.stop] : request.stop;
  const generation = generate(draft, { maxTokens, stop }, script);
  const waitMs = (loadMs ?? 0) + house.promptMs;
  const shape = shapeOf(job, generation, instance, script);
  if (request.stream === true) {
    const frames = framesOf(job, generation, shape, script, house.tokenMs);
    return { script, answer: { kind: 'stream', frames, waitMs, failure: failOnV0 } };
  }
  const speaking = (generation.usage?.output ?? 0) * house.tokenMs;
  const body = bodyOf(job, generation, shape, script);
  return { script, answer: { kind: 'json', status: 200, body, waitMs: waitMs + speaking } };
}

/** llama.cpp ends the stream without a word, MLX complains in it; both refuse what is not streamed. */
function overflow(job: Job, instance: Instance, script: LmStudioScript): Outcome {
  const words =
    job.model.format === 'mlx'
      ? `Trying to keep the first ${job.draft.inputTokens} tokens when context the overflows. However, the model is loaded with context length of only ${instance.config.context_length} tokens, which is not enough.`
      : 'Context size has been exceeded.';
  if (job.request.stream !== true) return { ...refuseInWords(400, words), script };
  const error: Frame = {
    kind: 'content',
    event: 'error',
    data: JSON.stringify({ error: { message: words } }),
  };
  const frames = job.model.format === 'mlx' ? [error] : [];
  return { script, answer: { kind: 'stream', frames: [...frames, closing], failure: failOnV0 } };
}

const closing: Frame = { kind: 'closing', data: '[DONE]' };

const failOnV0: Extract<Answer, { kind: 'stream' }>['failure'] = (error) => {
  const data = JSON.stringify(errorBody(error));
  const frame: Frame =
    error.named === true ? { kind: 'lifecycle', event: 'error', data } : { kind: 'lifecycle', data };
  return error.closing === false ? [frame] : [frame, closing];
};

interface Shape {
  /** `id`, `created`, `model`: the same in every chunk. */
  readonly head: Readonly<Record<string, unknown>>;
  readonly usage: Readonly<Record<string, number>> | undefined;
  /** `stats`, `model_info`, `runtime` */
  readonly extras: Readonly<Record<string, unknown>>;
}

function shapeOf(job: Job, generation: Generation, instance: Instance, script: LmStudioScript): Shape {
  const { usage } = generation;
  const prefix = job.kind === 'chat' ? 'chatcmpl' : 'cmpl';
  const output = usage?.output ?? 0;
  const draft = job.request.draft_model;
  return {
    head: {
      id: `${prefix}-${randomBytes(10).toString('hex')}`,
      created: Math.floor(Date.now() / 1000),
      model: script.model ?? instance.id,
    },
    usage:
      usage === undefined
        ? undefined
        : {
            prompt_tokens: usage.input,
            completion_tokens: usage.output,
            total_tokens: usage.input + usage.output,
          },
    extras: job.native
      ? {
          stats: {
            tokens_per_second: 50,
            time_to_first_token: 0.1,
            generation_time: output / 50,
            stop_reason: generation.stopReason,
            ...(draft === undefined
              ? {}
              : {
                  draft_model: draft,
                  total_draft_tokens_count: output,
                  accepted_draft_tokens_count: output,
                  rejected_draft_tokens_count: 0,
                  ignored_draft_tokens_count: 0,
                }),
          },
          model_info: modelInfoOnV0(job.model, instance),
          runtime: { name: 'llama.cpp-simulated', version: '1.3.0', supported_formats: ['gguf'] },
        }
      : {},
  };
}

const callId = (call: ScriptedToolCall, index: number): string => call.id ?? String(365_174_485 + index);
const joined = (pieces: string | readonly string[]): string =>
  typeof pieces === 'string' ? pieces : pieces.join('');

function bodyOf(job: Job, generation: Generation, shape: Shape, script: LmStudioScript): unknown {
  const { reasoning, text, toolCalls, finish } = generation;
  const thoughts = reasoning.join('');
  const field = script.reasoningIn ?? 'reasoning_content';
  const inline = field === 'think' && thoughts !== '' ? `<think>${thoughts}</think>` : '';
  const content = inline + text.join('');
  const base = { index: 0, logprobs: null, finish_reason: finish };
  const choice =
    job.kind === 'completion'
      ? { ...base, text: content }
      : {
          ...base,
          message: {
            role: 'assistant',
            content,
            ...(field === 'think' || thoughts === '' ? {} : { [field]: thoughts }),
            ...(toolCalls.length === 0
              ? {}
              : {
                  tool_calls: toolCalls.map((call, index) => ({
                    type: 'function',
                    id: callId(call, index),
                    function: { name: call.name, arguments: joined(call.arguments) },
                  })),
                }),
          },
        };
  return {
    ...shape.head,
    object: job.kind === 'chat' ? 'chat.completion' : 'text_completion',
    choices: script.empty === 'no-choices' ? [] : [choice],
    ...(shape.usage === undefined ? {} : { usage: shape.usage }),
    ...shape.extras,
  };
}

function framesOf(
  job: Job,
  generation: Generation,
  shape: Shape,
  script: LmStudioScript,
  tokenMs: number,
): readonly Frame[] {
  if (script.empty === 'no-delta') return [closing];
  const chunk = (kind: Frame['kind'], choices: unknown, rest: object = {}): Frame => ({
    kind,
    data: JSON.stringify({
      ...shape.head,
      object: job.kind === 'chat' ? 'chat.completion.chunk' : 'text_completion',
      choices,
      ...rest,
    }),
    ...(kind === 'content' ? { waitMs: tokenMs } : {}),
  });
  if (script.empty === 'no-choices') return [chunk('lifecycle', []), closing];
  const choice = (part: object, finish: string | null = null): unknown => [
    { index: 0, logprobs: null, finish_reason: finish, ...part },
  ];
  const deltas = deltasOf(job, generation, script);
  const ends = generation.finish !== null;
  const last = ends && script.finishWithText === true ? deltas.at(-1) : undefined;
  const streamed = last === undefined ? deltas : deltas.slice(0, -1);
  const frames = streamed.map((delta) => chunk('content', choice(delta)));
  if (job.kind === 'chat') frames.unshift(chunk('lifecycle', choice({ delta: { role: 'assistant' } })));
  if (ends) {
    const silent = job.kind === 'chat' ? { delta: {} } : { text: '' };
    frames.push(chunk('finish', choice(last ?? silent, generation.finish), shape.extras));
  }
  if (shape.usage !== undefined && job.request.stream_options?.include_usage === true) {
    frames.push(chunk('lifecycle', [], { usage: shape.usage }));
  }
  return [...frames, closing];
}

/** The choices' `delta` (of a chat) or `text` (of a completion), piece by piece. */
function deltasOf(job: Job, generation: Generation, script: LmStudioScript): readonly object[] {
  const { reasoning, text, toolCalls } = generation;
  const field = script.reasoningIn ?? 'reasoning_content';
  const inline = field === 'think' && reasoning.length > 0;
  const words = inline ? ['<think>', ...reasoning, '</think>', ...text] : text;
  if (job.kind === 'completion') return words.map((piece) => ({ text: piece }));
  const thoughts = inline ? [] : reasoning.map((piece) => ({ delta: { [field]: piece } }));
  const calls = toolCalls.flatMap((call, index) => {
    const pieces = typeof call.arguments === 'string' ? tokenize(call.arguments) : call.arguments;
    const delta = (entry: object): object => ({ delta: { tool_calls: [{ index, ...entry }] } });
    return [
      delta({
        id: callId(call, index),
        type: 'function',
        function: { name: call.name, arguments: '' },
      }),
      ...pieces.map((piece) => delta({ function: { arguments: piece } })),
    ];
  });
  return [...thoughts, ...words.map((piece) => ({ delta: { content: piece } })), ...calls];
}
