/** How the OpenAI-compatible routes are described in the OpenAPI document: answers, errors and worked examples. */
import { z } from 'zod';
import { type ErrorCode, errorTable, GatewayError } from '../../chat/errors.ts';
import { openaiError } from '../../facades/openai.ts';
import {
  type Answer,
  details,
  errorHeaders,
  inferenceErrorCodes,
  routeHeaders,
  toolCall,
} from './descriptions.ts';

const errorBody = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

/** The error answers of a route, by status, each with an example per error code. */
function errorAnswers(...codes: readonly ErrorCode[]): Record<number, Answer> {
  const answers: Record<number, Answer> = {};
  for (const code of codes) {
    const { status, message } = errorTable[code];
    const value = openaiError(new GatewayError(code, { message: details[code] ?? message }));
    const known = answers[status];
    answers[status] = {
      description: [known?.description, code].filter(Boolean).join(', '),
      headers: errorHeaders,
      content: {
        'application/json': {
          schema: errorBody.meta({ title: 'OpenAIError' }),
          examples: { ...known?.content['application/json']?.examples, [code]: { value } },
        },
      },
    };
  }
  return answers;
}

const inferenceErrors = errorAnswers(...inferenceErrorCodes);
const chatErrors = errorAnswers('INVALID_MESSAGES', ...inferenceErrorCodes);

const usage = z
  .object({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }).optional(),
    completion_tokens_details: z.object({ reasoning_tokens: z.int() }).optional(),
  })
  .meta({ title: 'CompletionUsage' })
  .optional()
  .describe('Absent where the upstream reported none');

const finishReason = z.enum(['stop', 'length', 'content_filter', 'tool_calls']);

const identity = {
  id: z.string(),
  created: z.int().describe('Seconds since 1970'),
  model: z.string().describe('The upstream model that answered'),
};

const chatCompletion = z.object({
  ...identity,
  object: z.literal('chat.completion'),
  choices: z.array(
    z.object({
      index: z.literal(0),
      message: z.object({
        role: z.literal('assistant'),
        content: z.string().nullable(),
        refusal: z.null(),
        reasoning_content: z.string().optional(),
        tool_calls: z.array(toolCall).optional(),
      }),
      logprobs: z.record(z.string(), z.unknown()).nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage,
});

const textCompletion = z.object({
  ...identity,
  object: z.literal('text_completion'),
  choices: z.array(
    z.object({
      text: z.string(),
      index: z.literal(0),
      logprobs: z.null(),
      finish_reason: finishReason,
    }),
  ),
  usage,
});

const shown = { created: 1_735_689_600, model: 'qwen/qwen3-8b' };
const usageExample = { prompt_tokens: 10, completion_tokens: 15, total_tokens: 25 };

const chunkExample = (delta: object, finish_reason: string | null): string =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    ...shown,
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
  })}\n\n`;

const streaming =
  'With `stream: true` server-sent events that end with `[DONE]`; `stream_options.include_usage` asks for one more chunk with ' +
  'the usage and without choices. A failure after the headers is an event with `error`, after which the stream ends without `[DONE]`.';

const refusals =
  'Fields that OpenAI does not have are ignored. A field of OpenAI that the chosen upstream cannot honour is refused by name.';

export const chatCompletionDescription = {
  tags: ['openai'],
  operationId: 'createChatCompletion',
  summary: 'Chat with a model, as OpenAI has it',
  description: `For every client of OpenAI's chat completions: set its base URL to \`/v1\` at this address. ${refusals}`,
  response: {
    200: {
      description: `The answer. ${streaming}`,
      headers: routeHeaders,
      content: {
        'application/json': {
          schema: chatCompletion.meta({ title: 'ChatCompletion' }),
          example: {
            id: 'chatcmpl-1',
            object: 'chat.completion',
            ...shown,
            choices: [
              {
                index: 0,
                message: { role: 'assistant', content: '你好!有什么可以帮你?', refusal: null },
                logprobs: null,
                finish_reason: 'stop',
              },
            ],
            usage: usageExample,
          },
        },
        'text/event-stream': {
          schema: z.string(),
          example: `${chunkExample({ role: 'assistant', content: '你好' }, null)}${chunkExample({}, 'stop')}data: [DONE]\n\n`,
        },
      },
    },
    ...chatErrors,
  },
};

export const openaiCompletionDescription = {
  tags: ['openai'],
  operationId: 'createCompletion',
  summary: 'Continue a text, as OpenAI has it',
  description: `A plain continuation of \`prompt\`, without a chat template. ${refusals}`,
  response: {
    200: {
      description: `The answer. ${streaming}`,
      headers: routeHeaders,
      content: {
        'application/json': {
          schema: textCompletion.meta({ title: 'TextCompletion' }),
          example: {
            id: 'cmpl-1',
            object: 'text_completion',
            ...shown,
            choices: [{ text: '有一座山。', index: 0, logprobs: null, finish_reason: 'stop' }],
            usage: usageExample,
          },
        },
        'text/event-stream': { schema: z.string() },
      },
    },
    ...inferenceErrors,
  },
};

export const openaiEmbeddingDescription = {
  tags: ['openai'],
  operationId: 'createEmbedding',
  summary: 'Vectors of texts, as OpenAI has it',
  description:
    'One vector per input, in the order of the inputs: numbers, or with `encoding_format: base64` little-endian 32-bit floats.',
  response: {
    200: {
      description: 'The vectors',
      headers: routeHeaders,
      content: {
        'application/json': {
          schema: z
            .object({
              object: z.literal('list'),
              data: z.array(
                z
                  .object({
                    object: z.literal('embedding'),
                    index: z.int(),
                    embedding: z.union([z.array(z.number()), z.string()]),
                  })
                  .meta({ title: 'OpenAIEmbedding' }),
              ),
              model: identity.model,
              usage: z
                .object({ prompt_tokens: z.int(), total_tokens: z.int() })
                .optional()
                .describe('Absent where the upstream reported none'),
            })
            .meta({ title: 'OpenAIEmbeddingList' }),
          example: {
            object: 'list',
            data: [{ object: 'embedding', index: 0, embedding: [0.0123, -0.0456, 0.0789] }],
            model: 'text-embedding-nomic-embed-text-v1.5',
            usage: { prompt_tokens: 5, total_tokens: 5 },
          },
        },
      },
    },
    ...inferenceErrors,
  },
};

const model = z.object({
  id: z.string().describe('The name to call'),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.string().describe('The provider'),
  context_length: z.int().nullable().describe('Tokens; of the loaded model where one is loaded'),
  max_output_tokens: z.int().nullable(),
  capabilities: z.array(z.string()),
  state: z.enum(['loaded', 'not-loaded', 'unknown']),
});

const modelExample = {
  id: 'qwen/qwen3-8b',
  object: 'model',
  created: shown.created,
  owned_by: 'lmstudio',
  context_length: 8192,
  max_output_tokens: null,
  capabilities: ['tool_use'],
  state: 'loaded',
};

export const openaiModelsDescription = {
  tags: ['openai'],
  operationId: 'listOpenAIModels',
  summary: 'All available models, as OpenAI has it',
  description:
    'Language and embedding models that can be called now, with what is known of them beside OpenAI’s own fields.',
  response: {
    200: {
      description: 'The models',
      content: {
        'application/json': {
          schema: z
            .object({ object: z.literal('list'), data: z.array(model.meta({ title: 'OpenAIModel' })) })
            .meta({ title: 'OpenAIModelList' }),
          example: { object: 'list', data: [modelExample] },
        },
      },
    },
    ...errorAnswers('UNAUTHORIZED', 'FORBIDDEN'),
  },
};

export const openaiModelDescription = {
  tags: ['openai'],
  operationId: 'getOpenAIModel',
  summary: 'One model, as OpenAI has it',
  description: 'The id may hold `/`, percent-encoded or plain.',
  response: {
    200: {
      description: 'The model',
      content: {
        'application/json': { schema: model.meta({ title: 'OpenAIModel' }), example: modelExample },
      },
    },
    ...errorAnswers('UNAUTHORIZED', 'FORBIDDEN', 'NOT_FOUND'),
  },
};
