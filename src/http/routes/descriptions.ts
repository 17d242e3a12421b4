/** How the unified API's routes are described in the OpenAPI document: answers, errors and worked examples. */
import { z } from 'zod';
import { type ErrorCode, errorTable } from '../../chat/errors.ts';

const usage = z
  .object({ input_tokens: z.int(), output_tokens: z.int(), total_tokens: z.int() })
  .meta({ title: 'Usage' })
  .nullable()
  .describe('null where the upstream reported none');

const finishReason = z.enum(['stop', 'length', 'content_filter', 'tool_calls']);

export const toolCall = z
  .object({
    id: z.string(),
    type: z.literal('function'),
    function: z.object({ name: z.string(), arguments: z.string() }),
  })
  .meta({ title: 'MadeToolCall' });

const answer = z.object({
  content: z.string(),
  finish_reason: finishReason,
  usage,
  reasoning_content: z.string().optional(),
  tool_calls: z.array(toolCall).optional().describe('For the client to run'),
  tool_calls_made: z
    .array(
      z
        .object({
          tool: z.string(),
          arguments: z.unknown().optional(),
          output: z.string().optional(),
          reason: z.string().optional(),
          provider_info: z.record(z.string(), z.unknown()).optional(),
        })
        .meta({ title: 'ServerToolCall' }),
    )
    .optional()
    .describe('Already run by LM Studio'),
  response_id: z.string().optional().describe('Continues a stored chat as `previous_response_id`'),
  stats: z
    .record(z.string(), z.union([z.number(), z.string()]))
    .optional()
    .describe('tokens_per_second, time_to_first_token_seconds, stop_reason, …'),
});

const envelopeOf = (title: string, data: z.ZodType) =>
  z.object({ code: z.literal(200), message: z.literal('success'), data }).meta({ title });

const errorAnswer = z
  .object({
    code: z.int().describe('The HTTP status'),
    message: z.string().describe('For people'),
    data: z.null(),
  })
  .meta({ title: 'ErrorAnswer' });

/** An answer of a route, as the document shows it. */
export interface Answer {
  readonly description: string;
  readonly headers?: Record<string, unknown>;
  readonly content: Record<
    string,
    { schema: z.ZodType; example?: unknown; examples?: Record<string, unknown> }
  >;
}

export const errorHeaders = {
  'x-error-code': { type: 'string', description: 'The machine-readable name of the error' },
  'x-request-id': { type: 'string', description: 'Names this request in the logs' },
};

export const details: Partial<Record<ErrorCode, string>> = {
  INVALID_MESSAGES: '消息格式错误:messages[0].role: role 必须是 system, user, assistant 或 tool',
  INVALID_PARAMS: '参数值超出有效范围:temperature: 数值过大:期望 number <2',
  UPSTREAM_ERROR: 'LM Studio返回错误:连接失败',
  FORBIDDEN: '无权限:Origin 不在 CORS_ORIGINS 之内',
};

/** The error answers of a route, by status, each with an example per error code. */
export function errorAnswers(...codes: readonly ErrorCode[]): Record<number, Answer> {
  const answers: Record<number, Answer> = {};
  for (const code of codes) {
    const { status, message } = errorTable[code];
    const example = { value: { code: status, message: details[code] ?? message, data: null } };
    const known = answers[status]?.content['application/json'];
    answers[status] = {
      description: [answers[status]?.description, code].filter(Boolean).join(', '),
      headers: errorHeaders,
      content: {
        'application/json': {
          schema: errorAnswer,
          examples: { ...known?.examples, [code]: example },
        },
      },
    };
  }
  return answers;
}

export const routeHeaders = {
  'x-gateway-provider': { type: 'string', description: 'The provider that answered' },
  'x-gateway-model': { type: 'string', description: 'The upstream model that answered' },
  'x-gateway-requested-model': { type: 'string', description: 'The title that was asked for' },
  'x-gateway-attempts': { type: 'string', description: 'How many tries the answer took' },
  'x-gateway-ignored': {
    type: 'string',
    description:
      'What the route went without though it was asked for, percent-encoded names with commas between; absent where there is nothing',
  },
  'x-request-id': errorHeaders['x-request-id'],
};

const streamExample = [
  'data: {"content":"你好","finish_reason":null}',
  'data: {"content":"。","finish_reason":null}',
  'data: {"content":"","finish_reason":"stop","usage":{"input_tokens":10,"output_tokens":15,"total_tokens":25}}',
  'data: [DONE]',
  '',
].join('\n\n');

/** Both kinds of a generation's answer. */
const generationAnswers: Record<number, Answer> = {
  200: {
    description:
      'The answer: one JSON document, or with `stream: true` server-sent events. Each event is one `data:` line with ' +
      '`content` and `finish_reason`; exactly one terminal chunk has a `finish_reason` and the `usage`, then comes `[DONE]`. ' +
      'A failure after the headers is a terminal chunk with `finish_reason: "error"` and `error: {code, type, message}`. ' +
      'A chunk with an empty `content` and a null `finish_reason` may stand in between: it keeps the connection alive.',
    headers: routeHeaders,
    content: {
      'application/json': {
        schema: envelopeOf('ChatAnswer', answer.meta({ title: 'ChatResult' })),
        example: {
          code: 200,
          message: 'success',
          data: {
            content: '你好!我是AI助手,很高兴为你服务。',
            finish_reason: 'stop',
            usage: { input_tokens: 10, output_tokens: 15, total_tokens: 25 },
          },
        },
      },
      'text/event-stream': { schema: z.string(), example: streamExample },
    },
  },
};

/** What may go wrong on every inference route. */
export const inferenceErrorCodes = [
  'INVALID_MODEL',
  'INVALID_PARAMS',
  'UNAUTHORIZED',
  'FORBIDDEN',
  'PAYLOAD_TOO_LARGE',
  'UNSUPPORTED_MEDIA_TYPE',
  'RATE_LIMITED',
  'INTERNAL_ERROR',
  'UPSTREAM_ERROR',
  'OVERLOADED',
  'SHUTTING_DOWN',
  'TIMEOUT',
] as const satisfies readonly ErrorCode[];

const inferenceErrors = errorAnswers(...inferenceErrorCodes);
const generationErrors = errorAnswers('INVALID_MESSAGES', ...inferenceErrorCodes);

export const chatDescription = {
  tags: ['llm'],
  operationId: 'chat',
  summary: 'Chat with a model',
  description:
    'One conversation turn, plain or streamed. A parameter that the chosen upstream cannot honour is refused by name, never ' +
    'dropped.',
  response: { ...generationAnswers, ...generationErrors },
};

export const completionDescription = {
  tags: ['llm'],
  operationId: 'complete',
  summary: 'Continue a text',
  description:
    'A plain continuation of `prompt`, without a chat template, with the answers and chunks of a chat. Not every upstream has ' +
    'it; one that has not refuses `prompt` by name.',
  response: { ...generationAnswers, ...inferenceErrors },
};

export const embeddingDescription = {
  tags: ['llm'],
  operationId: 'embed',
  summary: 'Vectors of texts',
  description:
    'One vector per input, in the order of the inputs. Lists that are longer than what the upstream takes at once are split.',
  response: {
    200: {
      description: 'The vectors',
      headers: routeHeaders,
      content: {
        'application/json': {
          schema: envelopeOf(
            'EmbeddingsAnswer',
            z
              .object({
                embeddings: z.array(
                  z.object({ index: z.int(), embedding: z.array(z.number()) }).meta({ title: 'Embedding' }),
                ),
                usage,
              })
              .meta({ title: 'Embeddings' }),
          ),
          example: {
            code: 200,
            message: 'success',
            data: {
              embeddings: [{ index: 0, embedding: [0.0123, -0.0456, 0.0789] }],
              usage: { input_tokens: 5, output_tokens: 0, total_tokens: 5 },
            },
          },
        },
      },
    },
    ...inferenceErrors,
  },
};

const card = z.object({
  id: z.int(),
  title: z.string().describe('Unique; the name to call'),
  img: z.string(),
  name: z.string(),
  description: z.string(),
  keyword: z.string(),
  time: z.string().describe('2025-01-01'),
  tag1: z.string(),
  tag2: z.string(),
  type: z.int().describe('0 = language model, 1 = embeddings'),
  is_featured: z.boolean(),
  created_at: z.string().describe('2025-01-01T00:00:00, UTC'),
  updated_at: z.string().describe('2025-01-01T00:00:00, UTC'),
});

const cardExample = {
  id: 1000,
  title: 'qwen/qwen3-8b',
  img: '',
  name: 'Qwen3 8B',
  description: '',
  keyword: '文本生成',
  time: '2025-01-01',
  tag1: 'qwen3',
  tag2: 'Q4_K_M',
  type: 0,
  is_featured: false,
  created_at: '2025-01-01T00:00:00',
  updated_at: '2025-01-01T00:00:00',
};

export const modelsDescription = {
  tags: ['llm'],
  operationId: 'listModels',
  summary: 'All available language models',
  description: 'Models with type 0 that can be called now: recommended ones first, then by id.',
  response: {
    200: {
      description: 'The models; an empty list where none is available',
      content: {
        'application/json': {
          schema: envelopeOf('ModelsAnswer', z.array(card.meta({ title: 'Model' }))),
          example: { code: 200, message: 'success', data: [cardExample] },
        },
      },
    },
    ...errorAnswers('UNAUTHORIZED', 'FORBIDDEN'),
  },
};

const modelDetails = card.extend({
  routes: z.array(
    z
      .object({
        provider: z.string(),
        state: z.enum(['loaded', 'not-loaded', 'unknown']),
        context_length: z.int().nullable(),
        max_context_length: z.int().nullable(),
        capabilities: z.array(z.string()),
        healthy: z.boolean(),
      })
      .meta({ title: 'LiveRoute' }),
  ),
});

export const modelDescription = {
  tags: ['llm'],
  operationId: 'getModel',
  summary: 'One model and the live state of its routes',
  description: 'The title may hold `/`, percent-encoded or plain.',
  response: {
    200: {
      description: 'The model',
      content: {
        'application/json': {
          schema: envelopeOf('ModelAnswer', modelDetails.meta({ title: 'ModelDetails' })),
          example: {
            code: 200,
            message: 'success',
            data: {
              ...cardExample,
              routes: [
                {
                  provider: 'lmstudio',
                  state: 'loaded',
                  context_length: 8192,
                  max_context_length: 40960,
                  capabilities: ['tool_use'],
                  healthy: true,
                },
              ],
            },
          },
        },
      },
    },
    ...errorAnswers('UNAUTHORIZED', 'FORBIDDEN', 'NOT_FOUND'),
  },
};
