/** The unified API's dialect: its request schema, its answers and its event stream. Knows no provider and no socket. */
import { z } from 'zod';
import type { EmbeddingResult } from '../chat/adapter.ts';
import type { GatewayError } from '../chat/errors.ts';
import type { ChatEvent, ChatResult, FinishReason, ServerToolCall, Stats, Usage } from '../chat/events.ts';
import {
  type ChatRequest,
  type CompletionRequest,
  checkToolChoice,
  type EmbeddingRequest,
  effectiveParameters,
  message,
  most,
  parameterFields,
} from '../chat/request.ts';
import { embeddingFields, readEmbeddingRequest } from './embedding-input.ts';
import type { AnswerRoute, StreamEncoder } from './encoder.ts';
import { type ExtraFields, extraReader } from './extra-fields.ts';

/** What the parameters mean to a caller. */
const meanings: Readonly<Record<keyof typeof parameterFields, string>> = {
  temperature: '[0, 2): how freely words are chosen.',
  top_p:
    '(0, 1]: only the likeliest words that together have this probability. Meant as an alternative to temperature.',
  max_tokens: 'The most tokens that may be generated.',
  stop: 'Texts at which the answer ends; they are not part of it.',
  seed: 'The same seed gives the same answer, as far as the model can.',
  presence_penalty: '-2 to 2: keeps words away that were used at all.',
  frequency_penalty: '-2 to 2: keeps words away by how often they were used.',
  top_k: 'Only the likeliest so many words.',
  min_p: '[0, 1]: only words with this share of the probability of the likeliest.',
  repeat_penalty: 'Above 0; above 1 keeps repetitions away.',
  logit_bias: 'By token number, -100 to 100: what is added to its likelihood.',
  tools: 'Functions that the model may ask the client to call.',
  tool_choice: 'Whether it has to call one, and which.',
  parallel_tool_calls: 'false: at most one call in an answer.',
  response_format: 'json_schema: the answer is JSON of that schema.',
  reasoning: 'How much the model thinks before it answers, where it can.',
  context_length: 'Tokens with which LM Studio loads the model, if it is not loaded.',
  integrations: 'MCP servers and plugins whose tools LM Studio itself calls.',
  store: 'true: LM Studio keeps the conversation, and the answer has a `response_id`.',
  previous_response_id: 'The `response_id` of the stored conversation that this one continues.',
  ttl: 'Seconds without a call after which LM Studio unloads the model.',
  draft_model: "LM Studio's smaller model for speculative decoding.",
};

const optional = Object.fromEntries(
  Object.entries(parameterFields).map(([name, schema]) => [
    name,
    schema.nullish().meta({ description: meanings[name as keyof typeof parameterFields] }),
  ]),
) as { [K in keyof typeof parameterFields]: z.ZodOptional<z.ZodNullable<(typeof parameterFields)[K]>> };

const streamOptions = z
  .looseObject({ include_progress: z.boolean().nullish().meta({ description: 'Default false.' }) })
  .meta({
    description: '`include_progress` asks for progress chunks. A preference, never a reason to refuse.',
  });

/** What a value may be that other APIs send by default and that changes nothing here. */
const withoutEffect = {
  n: z.literal(1).nullish().meta({ description: 'Only 1, which changes nothing.' }),
  logprobs: z.literal(false).nullish().meta({ description: 'Only false, which changes nothing.' }),
  verbosity: z.literal('medium').nullish().meta({ description: 'Only medium, which changes nothing.' }),
};

/** Everything that every generation endpoint of the unified API takes beside its input. */
const commonFields = {
  ...optional,
  ...withoutEffect,
  stream: z.boolean().nullish().meta({ description: 'true: answer as server-sent events. Default false.' }),
  stream_options: streamOptions.nullish(),
  user: z.string().nullish().meta({ description: 'Opaque; for the usage log only.' }),
};

const model = z.string().min(1).meta({ description: 'The `title` of a model with type 0.' });

/** The body of POST /api/llm/chat. What it does not name is refused, unless a provider of the model is passed it. */
export const chatBody = z
  .looseObject({
    model,
    messages: z
      .array(message)
      .min(1)
      .max(most.messages)
      .meta({ description: 'The conversation so far, oldest first.' }),
    ...commonFields,
  })
  .meta({
    title: 'ChatRequest',
    examples: [
      {
        model: 'qwen2.5-7b-instruct',
        messages: [{ role: 'user', content: '你好' }],
        stream: false,
        temperature: 0.7,
      },
      { model: 'qwen2.5-7b-instruct', messages: [{ role: 'user', content: '你好' }], stream: true },
    ],
  });

/** The body of POST /api/llm/completions. What makes no sense without a chat is refused by the route that would have to honour it. */
export const completionBody = z
  .looseObject({
    model,
    prompt: z.string().meta({ description: 'The text to continue, without any chat template.' }),
    ...commonFields,
  })
  .meta({
    title: 'CompletionRequest',
    examples: [{ model: 'qwen2.5-7b-instruct', prompt: '从前有座山', max_tokens: 50 }],
  });

/** The body of POST /api/llm/embeddings. */
export const embeddingBody = z.looseObject(embeddingFields).meta({
  title: 'EmbeddingRequest',
  examples: [{ model: 'text-embedding-v4', input: ['一段文字', '另一段文字'] }],
});

type CommonBody = Pick<z.output<typeof chatBody>, keyof typeof commonFields>;

/** What the common fields of a body come to. @throws GatewayError for combinations that make no sense */
function commonRequest(body: CommonBody, extra: ExtraFields | undefined) {
  const { stream, stream_options, user } = body;
  const parameters = effectiveParameters(body);
  checkToolChoice(parameters);
  return {
    stream: stream === true,
    includeProgress: stream === true && stream_options?.include_progress === true,
    parameters,
    ...(typeof user === 'string' ? { user } : {}),
    ...(extra === undefined ? {} : { extra }),
  };
}

const extraOfChat = extraReader(chatBody);
const extraOfCompletion = extraReader(completionBody);
const extraOfEmbedding = extraReader(embeddingBody);

/** @throws GatewayError */
export function readChatRequest(body: z.output<typeof chatBody>): ChatRequest {
  return {
    kind: 'chat',
    model: body.model,
    messages: body.messages,
    ...commonRequest(body, extraOfChat(body)),
  };
}

/** @throws GatewayError */
export function readCompletionRequest(body: z.output<typeof completionBody>): CompletionRequest {
  return {
    kind: 'completion',
    model: body.model,
    prompt: body.prompt,
    ...commonRequest(body, extraOfCompletion(body)),
  };
}

export function readEmbeddings(body: z.output<typeof embeddingBody>): EmbeddingRequest {
  const extra = extraOfEmbedding(body);
  return { ...readEmbeddingRequest(body), ...(extra === undefined ? {} : { extra }) };
}

/** Undefined where nothing was told. */
function presentStats(stats: Stats | undefined): Stats | undefined {
  if (stats === undefined) return undefined;
  // JSON leaves out what is undefined by itself; only an object of nothing else would show.
  for (const name of Object.keys(stats)) if (stats[name] !== undefined) return stats;
  return undefined;
}

/** The `data` of a plain answer: three keys always, the others only where there is something to say. */
export function encodeResult(result: ChatResult): Record<string, unknown> {
  const data: Record<string, unknown> = {
    content: result.content,
    finish_reason: result.finish.reason,
    usage: result.usage,
  };
  const stats = presentStats(result.stats);
  if (result.reasoning !== undefined) data['reasoning_content'] = result.reasoning;
  if (result.toolCalls !== undefined) data['tool_calls'] = result.toolCalls;
  if (result.serverToolCalls !== undefined) data['tool_calls_made'] = result.serverToolCalls;
  if (result.responseId !== undefined) data['response_id'] = result.responseId;
  if (stats !== undefined) data['stats'] = stats;
  return data;
}

/** The `data` of an embeddings answer. */
export function encodeEmbeddingResult({ embeddings, usage }: EmbeddingResult): Record<string, unknown> {
  return { embeddings: embeddings.map((embedding, index) => ({ index, embedding })), usage };
}

const done = 'data: [DONE]\n\n';

const heartbeat = 'data: {"content":"","finish_reason":null}\n\n';

/** The unified event stream. One per answer: it holds what only the terminal chunk may say. */
export class UnifiedEncoder implements StreamEncoder {
  readonly #route: () => AnswerRoute | undefined;
  #usage: Usage | null = null;
  #stats: Stats | undefined;
  #serverToolCalls: ServerToolCall[] = [];

  /** @param route the route that answered, where the headers left too early to name it */
  constructor(route: () => AnswerRoute | undefined) {
    this.#route = route;
  }

  encode(events: readonly ChatEvent[]): string {
    let bytes = '';
    for (const event of events) bytes += this.#encode(event);
    return bytes;
  }

  heartbeat(): string {
    return heartbeat;
  }

  #encode(event: ChatEvent): string {
    switch (event.type) {
      case 'text':
        // By hand: this line is written for every token.
        return `data: {"content":${JSON.stringify(event.text)},"finish_reason":null}\n\n`;
      case 'reasoning':
        return `data: {"content":"","finish_reason":null,"reasoning_content":${JSON.stringify(event.text)}}\n\n`;
      case 'tool-calls':
        return `data: {"content":"","finish_reason":null,"tool_calls":${JSON.stringify(event.deltas)}}\n\n`;
      case 'progress':
        return `data: {"content":"","finish_reason":null,"progress":${JSON.stringify(event.progress)}}\n\n`;
      case 'server-tool':
        this.#serverToolCalls.push(event.call);
        return '';
      case 'usage':
        this.#usage = event.usage;
        return '';
      case 'stats':
        this.#stats = { ...this.#stats, ...event.stats };
        return '';
      case 'finish':
        return this.#terminal(event.reason, event.responseId);
      case 'start':
      case 'error':
        return '';
      default:
        return event satisfies never;
    }
  }

  #terminal(reason: FinishReason, responseId: string | undefined): string {
    const stats = presentStats(this.#stats);
    const route = this.#route();
    const chunk = {
      content: '',
      finish_reason: reason,
      usage: this.#usage,
      ...(this.#serverToolCalls.length === 0 ? {} : { tool_calls_made: this.#serverToolCalls }),
      ...(responseId === undefined ? {} : { response_id: responseId }),
      ...(stats === undefined ? {} : { stats }),
      ...(route === undefined ? {} : { route }),
    };
    return `data: ${JSON.stringify(chunk)}\n\n${done}`;
  }

  fail(error: GatewayError): string {
    const route = this.#route();
    const chunk = {
      content: '',
      finish_reason: 'error',
      error: { code: error.status, type: error.code, message: error.message },
      ...(route === undefined ? {} : { route }),
    };
    return `data: ${JSON.stringify(chunk)}\n\n${done}`;
  }
}

/** The envelope of every JSON answer under /api. */
export const envelope = <T>(data: T) => ({ code: 200, message: 'success', data }) as const;

export const errorEnvelope = (error: GatewayError) => ({
  code: error.status,
  message: error.message,
  data: null,
});
