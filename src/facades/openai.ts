/**
 * The answers of the OpenAI-compatible dialect: completions, embeddings, models and errors. Knows no provider and no socket.
 * Wire: https://platform.openai.com/docs/api-reference.
 */
import type { EmbeddingResult } from '../chat/adapter.ts';
import type { GatewayError } from '../chat/errors.ts';
import type { ChatResult, Stats, Usage } from '../chat/events.ts';

/** What every chunk of one answer repeats. */
export interface AnswerIdentity {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
}

/** Token counts under OpenAI's names, with what the upstream measured of their parts. Undefined members are none in JSON. */
export function encodeUsage(usage: Usage, stats: Stats | undefined): Record<string, unknown> {
  const { reasoning_tokens, cached_tokens } = stats ?? {};
  return {
    prompt_tokens: usage.input_tokens,
    completion_tokens: usage.output_tokens,
    total_tokens: usage.total_tokens,
    prompt_tokens_details: cached_tokens === undefined ? undefined : { cached_tokens },
    completion_tokens_details: reasoning_tokens === undefined ? undefined : { reasoning_tokens },
  };
}

const usageOf = ({ usage, stats }: ChatResult) => (usage === null ? undefined : encodeUsage(usage, stats));

/** Undefined members are none in JSON. @param model the upstream model that answered */
export function encodeChatCompletion(
  result: ChatResult,
  { id, created }: AnswerIdentity,
  model: string,
): Record<string, unknown> {
  const onlyCalls = result.content === '' && result.toolCalls !== undefined;
  const message = {
    role: 'assistant',
    content: onlyCalls ? null : result.content,
    refusal: null,
    reasoning_content: result.reasoning,
    tool_calls: result.toolCalls,
  };
  return {
    id,
    object: 'chat.completion',
    created,
    model,
    choices: [{ index: 0, message, logprobs: result.logprobs ?? null, finish_reason: result.finish.reason }],
    usage: usageOf(result),
  };
}

export function encodeTextCompletion(
  result: ChatResult,
  { id, created }: AnswerIdentity,
  model: string,
): Record<string, unknown> {
  return {
    id,
    object: 'text_completion',
    created,
    model,
    choices: [{ text: result.content, index: 0, logprobs: null, finish_reason: result.finish.reason }],
    usage: usageOf(result),
  };
}

/** Little-endian 32-bit floats, as OpenAI's own clients read them. */
function toBase64(vector: readonly number[]): string {
  const bytes = Buffer.allocUnsafe(vector.length * 4);
  for (const [index, value] of vector.entries()) bytes.writeFloatLE(value, index * 4);
  return bytes.toString('base64');
}

export function encodeEmbeddings(
  result: EmbeddingResult,
  model: string,
  format: 'float' | 'base64',
): Record<string, unknown> {
  return {
    object: 'list',
    data: result.embeddings.map((vector, index) => ({
      object: 'embedding',
      index,
      embedding: format === 'base64' ? toBase64(vector) : vector,
    })),
    model,
    ...(result.usage === null
      ? {}
      : { usage: { prompt_tokens: result.usage.input_tokens, total_tokens: result.usage.total_tokens } }),
  };
}

/** OpenAI's words for an error, where they have one. */
function kindOf(error: GatewayError): { readonly type: string; readonly code: string | null } {
  const invalid = (code: string | null) => ({ type: 'invalid_request_error', code });
  if (error.reason === 'context_length') return invalid('context_length_exceeded');
  if (error.reason === 'content_filter') return invalid('content_filter');
  switch (error.code) {
    case 'INVALID_MODEL':
      return invalid('model_not_found');
    case 'UNAUTHORIZED':
      return invalid('invalid_api_key');
    case 'NOT_FOUND':
      return invalid(error.param === 'model' ? 'model_not_found' : 'unknown_url');
    case 'INVALID_MESSAGES':
    case 'INVALID_PARAMS':
    case 'FORBIDDEN':
    case 'METHOD_NOT_ALLOWED':
    case 'CONFLICT':
    case 'PAYLOAD_TOO_LARGE':
    case 'UNSUPPORTED_MEDIA_TYPE':
      return invalid(null);
    case 'RATE_LIMITED':
      return error.reason === 'quota'
        ? { type: 'insufficient_quota', code: 'insufficient_quota' }
        : { type: 'rate_limit_error', code: 'rate_limit_exceeded' };
    case 'INTERNAL_ERROR':
    case 'UPSTREAM_ERROR':
    case 'OVERLOADED':
    case 'SHUTTING_DOWN':
    case 'TIMEOUT':
      return { type: 'server_error', code: 'server_error' };
    default:
      return error.code satisfies never;
  }
}

/** The body of an error, and of the event that ends a stream which failed. */
export function openaiError(error: GatewayError) {
  const { type, code } = kindOf(error);
  const { said, reason } = error;
  // Clients look for the codes of these reasons, whatever the upstream calls them.
  const known = reason === 'context_length' || reason === 'content_filter' || reason === 'quota';
  const param = error.param ?? said?.param ?? null;
  return { error: { message: error.message, type, param, code: known ? code : (said?.code ?? code) } };
}

/** What the model list tells of a model beside its name: fields of our own behind OpenAI's four. */
export interface ModelFacts {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly owner: string;
  readonly contextLength: number | null;
  readonly maxOutputTokens: number | null;
  readonly capabilities: readonly string[];
  readonly state: 'loaded' | 'not-loaded' | 'unknown';
}

export function encodeModel(facts: ModelFacts) {
  return {
    id: facts.id,
    object: 'model' as const,
    created: facts.created,
    owned_by: facts.owner,
    context_length: facts.contextLength,
    max_output_tokens: facts.maxOutputTokens,
    capabilities: [...facts.capabilities],
    state: facts.state,
  };
}
