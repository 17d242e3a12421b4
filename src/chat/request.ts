/** The canonical request: zod schemas of its parts and the types that adapters see. Knows no provider and no dialect. */
import { z } from 'zod';
import { invalidParameter } from './errors.ts';

/** Deepest nesting of caller-made JSON (tool and answer schemas); deeper input would overflow JSON.stringify later. */
export const deepest = 64;

export function isShallow(value: unknown): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > deepest) return false;
    const next: unknown[] = [];
    for (const item of level) {
      if (typeof item !== 'object' || item === null) continue;
      // Not spread: a list of half a million is more than a call takes as arguments.
      for (const value of Object.values(item)) next.push(value);
    }
    level = next;
  }
  return true;
}

/** JSON that the caller made, such as a schema: an object, not nested beyond all measure. */
export const freeForm = z
  .record(z.string(), z.unknown())
  .refine(isShallow, { error: `嵌套超过 ${deepest} 层`, abort: true });

/** The most that a request may have of each, in whichever dialect. */
export const most = { messages: 100_000, parts: 10_000, tools: 10_000, integrations: 64 } as const;

const textPart = z.strictObject({ type: z.literal('text'), text: z.string() });

const imagePart = z.strictObject({
  type: z.literal('image_url'),
  image_url: z.strictObject({
    url: z.string().min(1).meta({ description: 'data:image/png;base64,… or data:image/jpeg;base64,…' }),
    detail: z.string().nullish().meta({ description: 'A hint, passed on where the upstream takes one.' }),
  }),
});

const contentText = 'Text, or a list of parts';
const contentError = { error: '必须是字符串或非空的内容片段列表' };
const partError = { error: '必须是 text 或 image_url' };

const textContent = z.union([z.string(), z.array(textPart).min(1).max(most.parts)], contentError);

/** An empty list says as much as no content. */
const assistantContent = z.union([z.string(), z.array(textPart)], contentError);

const toolCall = z.strictObject({
  id: z.string().min(1),
  type: z.literal('function'),
  function: z.strictObject({ name: z.string().min(1), arguments: z.string() }),
});

const name = z.string().nullish().describe('Of the speaker');

const systemMessage = z.strictObject({
  role: z.literal('system').describe('Who speaks'),
  content: textContent.describe(contentText),
  name,
});

const userMessage = z.strictObject({
  role: z.literal('user').describe('Who speaks'),
  content: z
    .union(
      [
        z.string(),
        z
          .array(z.discriminatedUnion('type', [textPart, imagePart], partError))
          .min(1)
          .max(most.parts),
      ],
      contentError,
    )
    .describe(contentText),
  name,
});

const assistantMessage = z
  .strictObject({
    role: z.literal('assistant').describe('Who speaks'),
    content: assistantContent.nullish().describe(contentText),
    name,
    tool_calls: z.array(toolCall).nullish().describe('The calls that the model asked for'),
    reasoning_content: z.string().nullish().describe('What the model thought before it answered'),
  })
  .refine(
    (message) =>
      typeof message.content === 'string' ||
      (message.content ?? []).length > 0 ||
      (message.tool_calls ?? []).length > 0 ||
      typeof message.reasoning_content === 'string',
    { error: '缺少 content', path: ['content'] },
  );

const toolMessage = z.strictObject({
  role: z.literal('tool').describe('Who speaks'),
  content: textContent.describe(contentText),
  tool_call_id: z.string().min(1).describe('Of the call that this answers'),
  name,
});

export const message = z.discriminatedUnion(
  'role',
  [
    systemMessage.meta({ title: 'SystemMessage' }),
    userMessage.meta({ title: 'UserMessage' }),
    assistantMessage.meta({ title: 'AssistantMessage' }),
    toolMessage.meta({ title: 'ToolMessage' }),
  ],
  { error: 'role 必须是 system, user, assistant 或 tool' },
);

export const functionTool = z.strictObject({
  type: z.literal('function'),
  function: z.strictObject({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: freeForm.nullish(),
    strict: z.boolean().nullish(),
  }),
});

const toolChoice = z.union(
  [
    z.enum(['none', 'auto', 'required']),
    z.strictObject({
      type: z.literal('function'),
      function: z.strictObject({ name: z.string().min(1) }),
    }),
  ],
  { error: '必须是 none, auto, required 或一个函数' },
);

export const responseFormat = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    json_schema: z.strictObject({
      name: z.string().min(1),
      description: z.string().nullish(),
      schema: freeForm.nullish(),
      strict: z.boolean().nullish(),
    }),
  }),
]);

/** MCP servers that LM Studio itself calls: an installed plugin, or a server named for this one request. */
export const integration = z.union([
  z.string().min(1),
  z.discriminatedUnion('type', [
    z.strictObject({
      type: z.literal('plugin'),
      id: z.string().min(1),
      allowed_tools: z.array(z.string()).nullish(),
    }),
    z.strictObject({
      type: z.literal('ephemeral_mcp'),
      server_label: z.string().min(1),
      server_url: z.string().min(1),
      allowed_tools: z.array(z.string()).nullish(),
      headers: z.record(z.string(), z.string()).nullish(),
    }),
  ]),
]);

/** Most texts that end an answer; an upstream that takes fewer refuses them in its own words. */
const mostStops = 64;

const penalty = z.number().min(-2).max(2);

/**
 * Every parameter that a request may carry beside its messages, under the unified API's names. Optional here means:
 * absent where the caller did not set it (or set what changes nothing). Facades derive their schemas from these.
 */
export const parameterFields = {
  temperature: z.number().min(0).lt(2),
  top_p: z.number().gt(0).max(1),
  max_tokens: z.int().min(1),
  stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(mostStops)], {
    error: `必须是字符串或最多 ${mostStops} 个字符串的列表`,
  }),
  seed: z.int(),
  presence_penalty: penalty,
  frequency_penalty: penalty,
  top_k: z.int().min(0),
  min_p: z.number().min(0).max(1),
  repeat_penalty: z.number().gt(0),
  logit_bias: z.record(z.string(), z.number().min(-100).max(100)),
  tools: z.array(functionTool.meta({ title: 'FunctionTool' })).max(most.tools),
  tool_choice: toolChoice.meta({ title: 'ToolChoice' }),
  parallel_tool_calls: z.boolean(),
  response_format: responseFormat.meta({ title: 'ResponseFormat' }),
  reasoning: z.enum(['off', 'low', 'medium', 'high', 'on']),
  context_length: z.int().min(1),
  integrations: z.array(integration.meta({ title: 'Integration' })).max(most.integrations),
  store: z.boolean(),
  previous_response_id: z.string().min(1),
  ttl: z.int().min(1),
  draft_model: z.string().min(1),
} as const;

type Fields = { [K in keyof typeof parameterFields]: z.output<(typeof parameterFields)[K]> };

/** The parameters that a caller set, and only those that have an effect. */
export type Parameters = Readonly<
  Partial<
    Omit<Fields, 'stop'> & {
      stop: readonly string[];
      logprobs: true;
      /** 0 to 20; only with logprobs */
      top_logprobs: number;
    }
  >
>;

export type ParameterName = keyof Parameters;

export type Message = Readonly<z.output<typeof message>>;
export type ContentPart = Exclude<NonNullable<Message['content']>, string>[number];
export type Integration = z.output<typeof integration>;
export type ResponseFormat = z.output<typeof responseFormat>;
export type FunctionTool = z.output<typeof functionTool>;
export type Reasoning = z.output<typeof parameterFields.reasoning>;

interface RequestBase {
  /** The catalog title that was asked for. */
  readonly model: string;
  readonly stream: boolean;
  /** The caller wants to see queueing, model loading, prompt processing and tool calls. A wish, never a condition. */
  readonly includeProgress: boolean;
  readonly parameters: Parameters;
  /** Opaque; for the usage log only. */
  readonly user?: string;
  /** Fields that no API of the gateway has, for providers that are passed them. */
  readonly extra?: Readonly<Record<string, unknown>>;
  /**
   * What a route that cannot honour it goes without, by its name here: a parameter or one of `extra`. The value is the name that the
   * caller knows it by.
   */
  readonly wishes?: ReadonlyMap<string, string>;
}

export interface ChatRequest extends RequestBase {
  readonly kind: 'chat';
  readonly messages: readonly Message[];
}

/** Plain continuation of a text, without a chat template. */
export interface CompletionRequest extends RequestBase {
  readonly kind: 'completion';
  readonly prompt: string;
}

/** What a model can be asked to generate. Both kinds answer with the same events. */
export type GenerationRequest = ChatRequest | CompletionRequest;

export interface EmbeddingRequest {
  readonly kind: 'embedding';
  readonly model: string;
  readonly input: readonly string[];
  readonly dimensions?: number;
  readonly user?: string;
  /** As of a `GenerationRequest`. */
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly wishes?: ReadonlyMap<string, string>;
}

/** What a caller may have written for each parameter: `null` means absent, some values change nothing. */
export type GivenParameters = {
  readonly [K in Exclude<keyof Fields, 'temperature'>]?: Fields[K] | null | undefined;
} & {
  readonly temperature?: number | null | undefined;
  readonly logprobs?: boolean | null | undefined;
  readonly top_logprobs?: number | null | undefined;
};

/** How much of a caller's own word an error repeats. */
const longestNameShown = 100;

/** Parameters whose worth depends on their form or on each other. */
const judgedApart: readonly string[] = [
  'stop',
  'tools',
  'tool_choice',
  'parallel_tool_calls',
] satisfies (keyof GivenParameters)[];

const judgedAlone: ReadonlySet<string> = new Set(
  Object.keys(parameterFields).filter((name) => !judgedApart.includes(name)),
);

/** Whether a parameter that is given asks for what happens anyway. */
function changesNothing(name: string, given: GivenParameters): boolean {
  switch (name) {
    case 'presence_penalty':
      return given.presence_penalty === 0;
    case 'frequency_penalty':
      return given.frequency_penalty === 0;
    case 'logit_bias':
      return Object.keys(given.logit_bias ?? {}).length === 0;
    case 'integrations':
      return given.integrations?.length === 0;
    case 'response_format':
      return given.response_format?.type === 'text';
    case 'store':
      return given.store === false;
    default:
      return false;
  }
}

/**
 * For what `effectiveParameters` has left.
 * @throws GatewayError for a choice among tools that are not there
 */
export function checkToolChoice({ tools, tool_choice }: Parameters): void {
  if (tool_choice === undefined) return;
  if (tools === undefined) throw invalidParameter('tool_choice', '需要 tools');
  if (typeof tool_choice === 'string') return;
  const { name } = tool_choice.function;
  if (tools.some((tool) => tool.function.name === name)) return;
  throw invalidParameter('tool_choice', `tools 中没有 ${name.slice(0, longestNameShown)}`);
}

/**
 * Drops what is null and what changes nothing, so that what is left is what an upstream must honour.
 * @param given may have other members, such as the rest of a body: they are not looked at
 */
export function effectiveParameters(given: GivenParameters): Parameters {
  const { stop, tools, tool_choice, parallel_tool_calls, logprobs, top_logprobs } = given;
  const kept: Record<string, unknown> = {};
  // Most facades name all parameters, and most calls give none.
  for (const name of Object.keys(given) as (keyof GivenParameters)[]) {
    const value = judgedAlone.has(name) ? given[name] : undefined;
    if (value === null || value === undefined) continue;
    if (!changesNothing(name, given)) kept[name] = value;
  }
  const stops = typeof stop === 'string' ? [stop] : (stop ?? []);
  if (stops.length > 0) kept['stop'] = stops;
  const hasTools = tools !== null && tools !== undefined && tools.length > 0;
  if (hasTools) kept['tools'] = tools;
  if (tool_choice !== null && tool_choice !== undefined) {
    if (hasTools || (tool_choice !== 'auto' && tool_choice !== 'none')) kept['tool_choice'] = tool_choice;
  }
  if (hasTools && typeof parallel_tool_calls === 'boolean') kept['parallel_tool_calls'] = parallel_tool_calls;
  if (logprobs === true) {
    kept['logprobs'] = true;
    if (typeof top_logprobs === 'number') kept['top_logprobs'] = top_logprobs;
  }
  return kept as Parameters;
}
