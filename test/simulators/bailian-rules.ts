/** What Bailian's compatible mode refuses, in its own words. Knows the platform's rules and nothing of the gateway. */
import { z } from 'zod';

/** A refusal as the platform words it. `code` doubles as the type where the platform does not tell them apart. */
export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly type: string;
  readonly message: string;
}

interface ModelRules {
  readonly pattern: RegExp;
  readonly maxOutput: number;
  readonly maxInput: number;
  readonly thinking: 'none' | 'off' | 'on' | 'only';
  readonly maxThinking?: number;
  readonly effortWords?: boolean;
  readonly plainCalls: 'all' | 'without-thinking' | 'none';
  readonly vision?: boolean;
  readonly maxCompletionTokens?: boolean;
}

/** Written from the platform's documentation, not from the adapter's table: the two check each other. */
const modelRules: readonly ModelRules[] = [
  {
    pattern: /^qwen3\.8-(max|flash)$/,
    maxInput: 991_808,
    maxOutput: 131_072,
    thinking: 'on',
    effortWords: true,
    plainCalls: 'all',
    vision: true,
    maxCompletionTokens: true,
  },
  {
    pattern: /^qwen3\.7-max-preview$/,
    maxInput: 991_808,
    maxOutput: 65_536,
    thinking: 'only',
    maxThinking: 262_144,
    plainCalls: 'all',
    maxCompletionTokens: true,
  },
  {
    pattern: /^qwen3\.7-max$/,
    maxInput: 991_808,
    maxOutput: 65_536,
    thinking: 'on',
    maxThinking: 262_144,
    plainCalls: 'all',
    maxCompletionTokens: true,
  },
  {
    pattern: /^qwen3\.[567]-(plus|flash)$/,
    maxInput: 991_808,
    maxOutput: 65_536,
    thinking: 'on',
    maxThinking: 81_920,
    plainCalls: 'all',
    vision: true,
    maxCompletionTokens: true,
  },
  {
    pattern: /^qwen3-max(-preview|-2026-01-23)?$/,
    maxInput: 258_048,
    maxOutput: 65_536,
    thinking: 'off',
    maxThinking: 81_920,
    plainCalls: 'all',
  },
  {
    pattern: /^qwen3-coder-(plus|flash)$/,
    maxInput: 997_952,
    maxOutput: 65_536,
    thinking: 'none',
    plainCalls: 'all',
  },
  {
    pattern: /^qwen3-vl-(plus|flash)$/,
    maxInput: 258_048,
    maxOutput: 32_768,
    thinking: 'off',
    maxThinking: 81_920,
    plainCalls: 'all',
    vision: true,
  },
  {
    pattern: /^qwen3-235b-a22b-thinking-2507$/,
    maxInput: 126_976,
    maxOutput: 32_768,
    thinking: 'only',
    maxThinking: 81_920,
    plainCalls: 'none',
  },
  {
    pattern: /^qwen3-235b-a22b-instruct-2507$/,
    maxInput: 129_024,
    maxOutput: 32_768,
    thinking: 'none',
    plainCalls: 'all',
  },
  {
    pattern: /^qwen3-235b-a22b$/,
    maxInput: 129_024,
    maxOutput: 16_384,
    thinking: 'on',
    maxThinking: 38_912,
    plainCalls: 'without-thinking',
  },
  {
    pattern: /^qwen-(plus|plus-latest|flash)$/,
    maxInput: 997_952,
    maxOutput: 32_768,
    thinking: 'off',
    maxThinking: 81_920,
    plainCalls: 'without-thinking',
  },
  {
    pattern: /^qwen-turbo$/,
    maxInput: 98_304,
    maxOutput: 16_384,
    thinking: 'off',
    maxThinking: 38_912,
    plainCalls: 'without-thinking',
  },
  { pattern: /^qwen-(max|long)$/, maxInput: 30_720, maxOutput: 8192, thinking: 'none', plainCalls: 'all' },
  {
    pattern: /^qwen-vl-(plus|max)$/,
    maxInput: 129_024,
    maxOutput: 8192,
    thinking: 'none',
    plainCalls: 'all',
    vision: true,
  },
  { pattern: /^qwq-plus$/, maxInput: 98_304, maxOutput: 8192, thinking: 'only', plainCalls: 'none' },
  {
    pattern: /^qvq-max$/,
    maxInput: 106_496,
    maxOutput: 8192,
    thinking: 'only',
    plainCalls: 'none',
    vision: true,
  },
  // In no documentation: what a model looks like that came after the gateway was built.
  { pattern: /^qwen9-stream$/, maxInput: 98_304, maxOutput: 8192, thinking: 'none', plainCalls: 'none' },
];

/** What GET /models lists. */
export const listedModels: readonly string[] = [
  'qwen-turbo',
  'qwen-plus',
  'qwen-max',
  'qwen3-max',
  'qwen3.8-max',
  'qwq-plus',
  'text-embedding-v4',
];

const chatBody = z.looseObject({
  model: z.string().optional(),
  messages: z
    .array(
      z.looseObject({
        role: z.string(),
        content: z.unknown().optional(),
        tool_calls: z.unknown().optional(),
      }),
    )
    .optional(),
  stream: z.boolean().optional(),
  stream_options: z.looseObject({ include_usage: z.boolean().optional() }).optional(),
  temperature: z.number().optional(),
  top_p: z.number().optional(),
  top_k: z.number().nullish(),
  repetition_penalty: z.number().optional(),
  presence_penalty: z.number().optional(),
  max_tokens: z.int().optional(),
  max_completion_tokens: z.int().optional(),
  seed: z.number().optional(),
  n: z.int().optional(),
  tools: z.array(z.looseObject({ function: z.looseObject({ name: z.string() }) })).optional(),
  tool_choice: z.unknown().optional(),
  response_format: z.looseObject({ type: z.string() }).optional(),
  enable_thinking: z.boolean().optional(),
  thinking_budget: z.int().optional(),
  reasoning_effort: z.string().optional(),
});

export type ChatBody = z.output<typeof chatBody>;

/** The documented parameters. Whether the platform rejects others is not known; this stand-in does. */
const known = new Set(
  `model messages stream stream_options temperature top_p top_k repetition_penalty presence_penalty max_tokens
   max_completion_tokens stop seed n logprobs top_logprobs response_format tools tool_choice parallel_tool_calls
   tool_stream enable_thinking thinking_budget reasoning_effort preserve_thinking enable_search search_options
   vl_high_resolution_images modalities audio max_input_tokens`.split(/\s+/),
);

const knownOfMessages = new Set([
  'role',
  'content',
  'name',
  'tool_calls',
  'tool_call_id',
  'reasoning_content',
  'partial',
]);

export const badRequest = (message: string, code = 'invalid_parameter_error'): Refusal => ({
  status: 400,
  code,
  type: 'invalid_request_error',
  message: `<400> InternalError.Algo.InvalidParameter: ${message}`,
});

const modelNotFound = (model: string): Refusal => ({
  status: 404,
  code: 'model_not_found',
  type: 'invalid_request_error',
  message: `The model \`${model}\` does not exist or you do not have access to it.`,
});

/** Whether a model thinks on this call: what the caller said, else the model's own default. */
export function thinks(body: ChatBody): boolean {
  const rules = modelRules.find((row) => row.pattern.test(body.model ?? ''));
  if (rules === undefined || rules.thinking === 'none') return false;
  if (rules.thinking === 'only') return true;
  if (body.reasoning_effort === 'none') return false;
  return body.enable_thinking ?? rules.thinking === 'on';
}

function refuseSampling(body: ChatBody, rules: ModelRules): Refusal | undefined {
  const { temperature, top_p, top_k, presence_penalty, repetition_penalty, seed, n } = body;
  if (temperature !== undefined && !(temperature >= 0 && temperature < 2)) {
    return badRequest('Temperature should be in [0.0, 2.0)');
  }
  if (top_p !== undefined && !(top_p > 0 && top_p <= 1))
    return badRequest('Range of top_p should be (0.0, 1.0]');
  if (typeof top_k === 'number' && top_k < 0)
    return badRequest('Parameter top_k be greater than or equal to 0');
  if (presence_penalty !== undefined && Math.abs(presence_penalty) > 2) {
    return badRequest('Presence_penalty should be in [-2.0, 2.0]');
  }
  if (repetition_penalty !== undefined && repetition_penalty <= 0) {
    return badRequest('Repetition_penalty should be greater than 0.0');
  }
  if (seed !== undefined && !(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31)) {
    return badRequest(`Range of seed should be [0, ${2 ** 31 - 1}]`, 'invalid_value');
  }
  if (n !== undefined && !(n >= 1 && n <= 4)) return badRequest('Range of n should be [1, 4]');
  if (body.max_completion_tokens !== undefined && !rules.maxCompletionTokens) {
    return badRequest('Unsupported parameter: max_completion_tokens');
  }
  for (const limit of [body.max_tokens, body.max_completion_tokens]) {
    if (limit !== undefined && !(limit >= 1 && limit <= rules.maxOutput)) {
      return badRequest(`Range of max_tokens should be [1, ${rules.maxOutput}]`);
    }
  }
  return undefined;
}

function refuseThinking(body: ChatBody, rules: ModelRules): Refusal | undefined {
  const { enable_thinking, thinking_budget, reasoning_effort } = body;
  if (rules.thinking === 'none' && enable_thinking !== undefined) {
    return badRequest(`The model ${body.model} does not support enable_thinking.`);
  }
  if (rules.thinking === 'only' && enable_thinking === false) {
    return badRequest('The value of the enable_thinking parameter is restricted to True.');
  }
  if (thinking_budget !== undefined) {
    if (reasoning_effort !== undefined) {
      return badRequest('thinking_budget and reasoning_effort are mutually exclusive');
    }
    const most = rules.maxThinking ?? 0;
    if (thinking_budget < 1 || thinking_budget > most) {
      return badRequest(
        `The thinking_budget parameter must be a positive integer and not greater than ${most}`,
      );
    }
  }
  if (reasoning_effort !== undefined) {
    if (!rules.effortWords) return badRequest('Unsupported parameter: reasoning_effort');
    if (!['xhigh', 'medium', 'low', 'max', 'high', 'minimal', 'none'].includes(reasoning_effort)) {
      return badRequest(`Invalid reasoning_effort: ${reasoning_effort}`);
    }
  }
  if (body.stream !== true) {
    if (rules.plainCalls === 'none') {
      return badRequest(
        'This model only support stream mode, please enable the stream parameter to access the model. ',
      );
    }
    if (rules.plainCalls === 'without-thinking' && thinks(body)) {
      return badRequest('parameter.enable_thinking must be set to false for non-streaming calls');
    }
  }
  return undefined;
}

function refuseTools(body: ChatBody): Refusal | undefined {
  if (body.tools?.length === 0) return badRequest("[] is too short - 'tools'");
  for (const tool of body.tools ?? []) {
    if (tool.function.name === 'search') return badRequest('Tool names are not allowed to be [search]');
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(tool.function.name)) return badRequest('Invalid tool name');
  }
  const choice = body.tool_choice;
  if (typeof choice === 'string' && choice !== 'auto' && choice !== 'none') {
    return badRequest('tool_choice is one of the strings that should be ["none", "auto"]');
  }
  if (typeof choice === 'object' && choice !== null && thinks(body)) {
    return badRequest(
      'The tool_choice parameter does not support being set to required or object in thinking mode',
    );
  }
  return undefined;
}

function refuseFormat(body: ChatBody): Refusal | undefined {
  if (body.response_format?.type !== 'json_object') return undefined;
  if (thinks(body)) {
    return badRequest('Json mode response is not supported when enable_thinking is true');
  }
  if (!JSON.stringify(body.messages).toLowerCase().includes('json')) {
    return badRequest(
      "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
    );
  }
  return undefined;
}

function refuseMessages(body: ChatBody, rules: ModelRules): Refusal | undefined {
  const messages = body.messages ?? [];
  if (messages.length === 0) return badRequest("[] is too short - 'messages'");
  let callsOpen = false;
  for (const message of messages) {
    for (const key of Object.keys(message)) {
      if (!knownOfMessages.has(key)) return badRequest(`Unknown message field: ${key}`);
    }
    if (!['system', 'user', 'assistant', 'tool'].includes(message.role)) {
      return badRequest(`${message.role} is not one of ['system', 'assistant', 'user', 'tool', 'function']`);
    }
    if (Array.isArray(message.content) && !rules.vision) return badRequest('input content must be a string.');
    if (message.role === 'tool' && !callsOpen) {
      return badRequest(
        'messages with role "tool" must be a response to a preceeding message with "tool_calls".',
      );
    }
    callsOpen = Array.isArray(message.tool_calls) || (callsOpen && message.role === 'tool');
  }
  if (!messages.some((message) => message.role === 'user')) {
    return badRequest('At least one user message is required.');
  }
  const size = JSON.stringify(messages).length;
  return size > rules.maxInput
    ? badRequest(`Range of input length should be [1, ${rules.maxInput}]`)
    : undefined;
}

/** The platform's refusal of a chat call, or the call as it understood it. */
export function checkChat(json: unknown): { readonly refusal: Refusal } | { readonly body: ChatBody } {
  const parsed = chatBody.safeParse(json);
  if (!parsed.success) return { refusal: badRequest(z.prettifyError(parsed.error).split('\n')[0] ?? '') };
  const body = parsed.data;
  if (body.model === undefined) return { refusal: badRequest('you must provide a model parameter.') };
  const rules = modelRules.find((row) => row.pattern.test(body.model ?? ''));
  if (rules === undefined) return { refusal: modelNotFound(body.model) };
  const stranger = Object.keys(body).find((key) => !known.has(key));
  const refusal =
    (stranger === undefined ? undefined : badRequest(`Unknown parameter: ${stranger}`)) ??
    refuseMessages(body, rules) ??
    refuseSampling(body, rules) ??
    refuseThinking(body, rules) ??
    refuseTools(body) ??
    refuseFormat(body);
  return refusal === undefined ? { body } : { refusal };
}

const embeddingBody = z.strictObject({
  model: z.string(),
  input: z.union([z.string(), z.array(z.string()).min(1)]),
  dimensions: z.int().optional(),
  encoding_format: z.string().optional(),
});

const embeddingModels = new Map([
  ['text-embedding-v4', { batch: 10, dimensions: [2048, 1536, 1024, 768, 512, 256, 128, 64] }],
  ['text-embedding-v3', { batch: 10, dimensions: [1024, 768, 512, 256, 128, 64] }],
]);

/** The platform's refusal of an embeddings call, or its inputs and the size of their vectors. */
export function checkEmbeddings(
  json: unknown,
):
  | { readonly refusal: Refusal }
  | { readonly model: string; readonly inputs: readonly string[]; readonly dimensions: number } {
  const parsed = embeddingBody.safeParse(json);
  if (!parsed.success) return { refusal: badRequest(z.prettifyError(parsed.error).split('\n')[0] ?? '') };
  const { model, input, dimensions = 1024, encoding_format = 'float' } = parsed.data;
  const limits = embeddingModels.get(model);
  if (limits === undefined) return { refusal: modelNotFound(model) };
  if (encoding_format !== 'float') return { refusal: badRequest('encoding_format should be float') };
  if (!limits.dimensions.includes(dimensions)) return { refusal: badRequest('Invalid dimensions') };
  const inputs = typeof input === 'string' ? [input] : input;
  if (inputs.length > limits.batch) {
    return {
      refusal: badRequest(
        `Value error, batch size is invalid, it should not be larger than ${limits.batch}.: input.contents`,
      ),
    };
  }
  return { model, inputs, dimensions };
}
