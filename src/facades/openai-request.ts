/**
 * The requests of the OpenAI-compatible dialect: what it takes, what it refuses by name, and the canonical requests that come of it.
 * Wire: https://platform.openai.com/docs/api-reference/chat/create, /completions/create and /embeddings/create.
 */
import { z } from 'zod';
import { GatewayError, invalidParameter } from '../chat/errors.ts';
import {
  type ChatRequest,
  type CompletionRequest,
  checkToolChoice,
  type EmbeddingRequest,
  effectiveParameters,
  type GivenParameters,
  most,
  type ParameterName,
  type Parameters,
  parameterFields,
  type Reasoning,
} from '../chat/request.ts';
import { embeddingFields, listOfTexts, readEmbeddingRequest } from './embedding-input.ts';
import { asWishes, type ExtraFields, extraReader } from './extra-fields.ts';
import {
  openaiMessage,
  openaiResponseFormat,
  openaiTool,
  openaiToolChoice,
  toMessage,
  unsupportedField,
} from './openai-messages.ts';

/** What clients send for their own or OpenAI's bookkeeping, and what changes no answer. */
const withoutEffect = z.unknown().optional().meta({ description: 'Accepted without effect.' });

const tokenLimit = z
  .int()
  .refine((limit) => limit === -1 || limit >= 1, { error: '必须是 >= 1 的整数' })
  .nullish()
  .meta({ description: '1 or more; -1 counts as absent.' });

const onlyOne = z
  .literal(1, { error: '仅支持 1' })
  .nullish()
  .meta({ description: 'Only 1, which changes nothing.' });

const aboutExtensions = 'As on /api/llm; refused by name where the upstream cannot honour it.';
const extension = <T extends z.ZodType>(field: T) => field.nullish().meta({ description: aboutExtensions });

/** What the unified API has and OpenAI does not. */
const extensions = {
  top_k: extension(parameterFields.top_k),
  min_p: extension(parameterFields.min_p),
  repeat_penalty: extension(parameterFields.repeat_penalty),
  context_length: extension(parameterFields.context_length),
  integrations: extension(parameterFields.integrations),
  previous_response_id: extension(parameterFields.previous_response_id),
  ttl: extension(parameterFields.ttl),
  draft_model: extension(parameterFields.draft_model),
} satisfies Partial<Record<ParameterName, z.ZodType>>;

/** The fields that chat and text completions share. */
const commonFields = {
  model: z.string().min(1).meta({ description: 'The `title` of a model with type 0.' }),
  stream: z.boolean().nullish(),
  stream_options: z
    .object({
      include_usage: z.boolean().nullish(),
      include_obfuscation: z.literal(false, { error: '不支持此参数' }).nullish(),
    })
    .nullish()
    .meta({ description: '`include_usage` asks for one more chunk with the usage and without choices.' }),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  max_tokens: tokenLimit,
  n: onlyOne,
  stop: parameterFields.stop.nullish(),
  seed: parameterFields.seed.nullish(),
  presence_penalty: parameterFields.presence_penalty.nullish(),
  frequency_penalty: parameterFields.frequency_penalty.nullish(),
  logit_bias: parameterFields.logit_bias.nullish(),
  user: z.string().nullish().meta({ description: 'For the usage log only.' }),
  ...extensions,
};

const efforts = {
  none: 'off',
  minimal: 'low',
  low: 'low',
  medium: 'medium',
  high: 'high',
  xhigh: 'high',
  max: 'high',
} as const satisfies Record<string, Reasoning>;

const chatExample = { model: 'qwen-plus', messages: [{ role: 'user', content: '你好' }] };

/** The body of POST /v1/chat/completions. Fields that it does not name are wishes: for providers that are passed them. */
export const chatCompletionBody = z
  .looseObject({
    ...commonFields,
    messages: z.array(openaiMessage).min(1).max(most.messages),
    max_completion_tokens: tokenLimit,
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(20).nullish(),
    tools: z.array(openaiTool).max(most.tools).nullish(),
    tool_choice: openaiToolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    response_format: openaiResponseFormat.nullish(),
    reasoning_effort: z
      .enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'])
      .nullish()
      .meta({
        description:
          'A preference: none is off, minimal is low, xhigh and max are high, and the nearest that the model has is taken. ' +
          'Where the route cannot have it together with the rest, `x-gateway-ignored` names it.',
      }),
    reasoning: z
      .union([parameterFields.reasoning, z.record(z.string(), z.unknown())], {
        error: '必须是 off, low, medium, high 或 on',
      })
      .nullish()
      .meta({ description: 'As on /api/llm. An object, as other gateways have it, is a wish.' }),
    modalities: z
      .array(z.string())
      .refine((list) => list.every((modality) => modality === 'text'), { error: '仅支持 text' })
      .nullish(),
    functions: z.array(z.unknown()).max(0, { error: '不支持此参数, 请使用 tools' }).nullish(),
    function_call: z.enum(['auto', 'none'], { error: '不支持此参数, 请使用 tool_choice' }).nullish(),
    audio: unsupportedField,
    moderation: unsupportedField,
    prompt_cache_options: unsupportedField,
    verbosity: z
      .literal('medium', { error: '仅支持 medium' })
      .nullish()
      .meta({ description: 'Only medium, which changes nothing.' }),
    web_search_options: unsupportedField,
    metadata: withoutEffect,
    prediction: withoutEffect,
    prompt_cache_key: withoutEffect,
    prompt_cache_retention: withoutEffect,
    safety_identifier: withoutEffect,
    service_tier: withoutEffect,
    store: withoutEffect,
  })
  .meta({
    title: 'ChatCompletionRequest',
    examples: [chatExample, { ...chatExample, stream: true, stream_options: { include_usage: true } }],
  });

const promptError = '必须是一个字符串, 不支持多个提示或 token 数组';

/** The body of POST /v1/completions. */
export const completionBody = z
  .looseObject({
    ...commonFields,
    prompt: z.union(
      [z.string(), listOfTexts(promptError).refine((list) => list.length === 1, { error: promptError })],
      { error: promptError },
    ),
    best_of: onlyOne,
    echo: z.literal(false, { error: '不支持此参数' }).nullish(),
    logprobs: z.literal(false, { error: '不支持此参数' }).nullish(),
    suffix: z.literal('', { error: '不支持此参数' }).nullish(),
  })
  .meta({
    title: 'TextCompletionRequest',
    examples: [{ model: 'qwen2.5-7b-instruct', prompt: '从前有座山', max_tokens: 50 }],
  });

/** The body of POST /v1/embeddings. */
export const embeddingBody = z
  .looseObject({
    ...embeddingFields,
    encoding_format: z.enum(['float', 'base64']).nullish(),
  })
  .meta({
    title: 'OpenAIEmbeddingRequest',
    examples: [{ model: 'text-embedding-v4', input: ['一段文字', '另一段文字'] }],
  });

type CommonBody = Pick<z.output<typeof completionBody>, keyof typeof commonFields>;

const isAbsent = (value: unknown): value is null | undefined => value === null || value === undefined;

/** A field of the canonical request to the name under which this caller set it. */
export type FieldNames = ReadonlyMap<string, string>;

const sameNames: FieldNames = new Map();
const newNames: FieldNames = new Map([['max_tokens', 'max_completion_tokens']]);

/** A canonical request, and what the answer needs to know of the caller's own. */
export interface Incoming<Request> {
  readonly request: Request;
  readonly includeUsage: boolean;
  readonly fieldNames: FieldNames;
}

function readCommon(body: CommonBody, parameters: Parameters) {
  const common = { model: body.model, stream: body.stream === true, includeProgress: false, parameters };
  return typeof body.user === 'string' ? { ...common, user: body.user } : common;
}

const extraOfChat = extraReader(chatCompletionBody);
const extraOfCompletion = extraReader(completionBody);
const extraOfEmbedding = extraReader(embeddingBody);

const effortAlone: ReadonlyMap<string, string> = new Map([['reasoning', 'reasoning_effort']]);

/** What routes may go without: agents and chat pages send both with everything. */
function readWishes(extra: ExtraFields | undefined, effort: unknown): Pick<ChatRequest, 'extra' | 'wishes'> {
  const hasEffort = !isAbsent(effort);
  if (extra === undefined) return hasEffort ? { wishes: effortAlone } : {};
  const wishes = asWishes(extra);
  return { extra, wishes: hasEffort ? new Map([...wishes, ...effortAlone]) : wishes };
}

const wantsUsage = (body: CommonBody): boolean => body.stream_options?.include_usage === true;

const withoutMinusOne = (limit: number | null | undefined): number | undefined =>
  limit === null || limit === -1 ? undefined : limit;

type ChatBody = z.output<typeof chatCompletionBody>;

/** The limit under its old or its new name. @throws GatewayError where they differ */
function tokenLimitOf({ max_tokens, max_completion_tokens }: ChatBody): number | undefined {
  const limit = withoutMinusOne(max_tokens);
  const newLimit = withoutMinusOne(max_completion_tokens);
  if (limit !== undefined && newLimit !== undefined && limit !== newLimit) {
    throw invalidParameter('max_tokens', '不能与 max_completion_tokens 同时使用');
  }
  return newLimit ?? limit;
}

/** The body with all parameters under the unified API's names, of which it shares most. */
function givenIn(body: ChatBody): GivenParameters {
  const { reasoning_effort: effort, reasoning } = body;
  const max_tokens = tokenLimitOf(body);
  // `store` means something else there. Most bodies are taken as they are: a copy costs a microsecond.
  if (max_tokens === body.max_tokens && isAbsent(effort) && isAbsent(reasoning) && isAbsent(body.store)) {
    return body as ChatBody & { store?: null | undefined; reasoning?: null | undefined };
  }
  const said = typeof reasoning === 'string' ? reasoning : undefined;
  if (said !== undefined && !isAbsent(effort)) {
    throw invalidParameter('reasoning', '不能与 reasoning_effort 同时使用');
  }
  return {
    ...body,
    max_tokens,
    reasoning: isAbsent(effort) ? said : efforts[effort],
    store: undefined,
  };
}

/** With another gateway's form of `reasoning`, which is an object. */
function extraFieldsOf(body: ChatBody): ExtraFields | undefined {
  const extra = extraOfChat(body);
  const { reasoning, reasoning_effort: effort } = body;
  if (typeof reasoning !== 'object' || reasoning === null || !isAbsent(effort)) return extra;
  return { ...extra, reasoning };
}

/** @throws GatewayError for combinations that make no sense */
export function readChatCompletion(body: ChatBody): Incoming<ChatRequest> {
  const given = givenIn(body);
  if (body.top_logprobs && body.logprobs !== true) throw invalidParameter('top_logprobs', '需要 logprobs');
  const common = readCommon(body, effectiveParameters(given));
  checkToolChoice(common.parameters);
  return {
    request: {
      kind: 'chat',
      ...common,
      messages: body.messages.map(toMessage),
      ...readWishes(extraFieldsOf(body), body.reasoning_effort),
    },
    includeUsage: wantsUsage(body),
    fieldNames: withoutMinusOne(body.max_completion_tokens) === undefined ? sameNames : newNames,
  };
}

export function readCompletion(body: z.output<typeof completionBody>): Incoming<CompletionRequest> {
  const { temperature, top_p, stop, seed, presence_penalty, frequency_penalty, logit_bias } = body;
  const { top_k, min_p, repeat_penalty, context_length, integrations, previous_response_id } = body;
  const { ttl, draft_model } = body;
  const max_tokens = withoutMinusOne(body.max_tokens);
  const given = {
    temperature,
    top_p,
    stop,
    seed,
    presence_penalty,
    frequency_penalty,
    logit_bias,
    max_tokens,
    top_k,
    min_p,
    repeat_penalty,
    context_length,
    integrations,
    previous_response_id,
    ttl,
    draft_model,
  };
  const common = readCommon(body, effectiveParameters(given));
  const prompt = typeof body.prompt === 'string' ? body.prompt : body.prompt.join('');
  return {
    request: {
      kind: 'completion',
      ...common,
      prompt,
      ...readWishes(extraOfCompletion(body), undefined),
    },
    includeUsage: wantsUsage(body),
    fieldNames: sameNames,
  };
}

export function readEmbeddings(body: z.output<typeof embeddingBody>): EmbeddingRequest {
  return { ...readEmbeddingRequest(body), ...readWishes(extraOfEmbedding(body), undefined) };
}

/** A refusal of the gateway's own, with the field names that this caller used. Upstreams' words stay as they are. */
export function inCallersWords(error: GatewayError, fieldNames: FieldNames): GatewayError {
  const { code, param, upstreamStatus } = error;
  if (code !== 'INVALID_PARAMS' || param === undefined || upstreamStatus !== undefined) return error;
  const message = error.message.replace(
    /(?<![\w.])[a-z_]+(?![\w.])/g,
    (word) => fieldNames.get(word) ?? word,
  );
  return message === error.message
    ? error
    : new GatewayError(code, { message, param: fieldNames.get(param) ?? param });
}
