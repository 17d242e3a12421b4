/** Messages, tools and answer formats as OpenAI's clients write them, lenient where they add keys of their own. */
import { z } from 'zod';
import { type FunctionTool, freeForm, type Message, most, type ResponseFormat } from '../chat/request.ts';

/** A part of the request that this gateway has no way to honour: absent or null, or it is refused by name. */
export const unsupportedField = z
  .null({ error: '不支持此参数' })
  .optional()
  .meta({ description: 'Not supported: refused by name.' });

const textPart = z.object({ type: z.literal('text'), text: z.string() });
const refusalPart = z.object({ type: z.literal('refusal'), refusal: z.string() });
const imagePart = z.object({
  type: z.literal('image_url'),
  image_url: z.object({
    url: z.string().min(1),
    detail: z.string().nullish().meta({ description: 'A hint, passed on where the upstream takes one.' }),
  }),
});

const contentError = { error: '必须是字符串或非空的内容片段列表' };
const textContent = z.union([z.string(), z.array(textPart).min(1).max(most.parts)], contentError);
const userContent = z.union(
  [
    z.string(),
    z
      .array(z.discriminatedUnion('type', [textPart, imagePart], { error: '必须是 text 或 image_url' }))
      .min(1)
      .max(most.parts),
  ],
  contentError,
);
const assistantContent = z.union(
  [
    z.string(),
    z.array(z.discriminatedUnion('type', [textPart, refusalPart], { error: '必须是 text 或 refusal' })),
  ],
  contentError,
);

const toolCall = z.object({
  id: z.string().min(1),
  type: z.literal('function', { error: '仅支持 function' }).default('function'),
  function: z.object({ name: z.string().min(1), arguments: z.string() }),
});

const name = z.string().nullish();

const assistantMessage = z
  .object({
    role: z.literal('assistant'),
    content: assistantContent.nullish(),
    name,
    refusal: z.string().nullish(),
    tool_calls: z.array(toolCall).nullish(),
    reasoning_content: z.string().nullish(),
    reasoning: z.string().nullish().catch(undefined),
    audio: unsupportedField,
    function_call: unsupportedField,
  })
  .refine(
    ({ content, refusal, tool_calls, reasoning_content }) =>
      typeof content === 'string' ||
      (content ?? []).length > 0 ||
      (refusal ?? reasoning_content ?? undefined) !== undefined ||
      (tool_calls ?? []).length > 0,
    { error: '缺少 content', path: ['content'] },
  );

/** A message of POST /v1/chat/completions. Keys that it does not name are ignored: clients send whole answers back. */
export const openaiMessage = z.discriminatedUnion(
  'role',
  [
    z.object({ role: z.literal('developer'), content: textContent, name }),
    z.object({ role: z.literal('system'), content: textContent, name }),
    z.object({ role: z.literal('user'), content: userContent, name }),
    assistantMessage,
    z.object({ role: z.literal('tool'), content: textContent, tool_call_id: z.string().min(1), name }),
  ],
  { error: 'role 必须是 developer, system, user, assistant 或 tool' },
);

type OpenAIMessage = z.output<typeof openaiMessage>;

const nameOf = (message: OpenAIMessage) => (typeof message.name === 'string' ? { name: message.name } : {});

/** The message in the canonical form. One becomes one, so that places in error messages stay right. */
export function toMessage(message: OpenAIMessage): Message {
  switch (message.role) {
    case 'developer':
    case 'system':
      return { role: 'system', content: message.content, ...nameOf(message) };
    case 'user':
      return {
        role: 'user',
        content: message.content,
        ...nameOf(message),
      };
    case 'assistant':
      return toAssistantMessage(message);
    case 'tool':
      return {
        role: 'tool',
        content: message.content,
        tool_call_id: message.tool_call_id,
        ...nameOf(message),
      };
    default:
      return message satisfies never;
  }
}

function toAssistantMessage(message: Extract<OpenAIMessage, { role: 'assistant' }>): Message {
  const { refusal, tool_calls } = message;
  const said = message.content;
  const content =
    typeof said === 'object' && said !== null && said.length > 0
      ? said.map((part) => (part.type === 'text' ? part : { type: 'text' as const, text: part.refusal }))
      : typeof said === 'string'
        ? said
        : refusal;
  const reasoning = message.reasoning_content ?? message.reasoning;
  return {
    role: 'assistant',
    ...(content === null || content === undefined ? {} : { content }),
    ...(tool_calls && tool_calls.length > 0 ? { tool_calls } : {}),
    ...(reasoning ? { reasoning_content: reasoning } : {}),
    ...nameOf(message),
  };
}

export const openaiTool = z.object({
  type: z.literal('function', { error: '仅支持 function' }),
  function: z.object({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: freeForm.nullish(),
    strict: z.boolean().nullish(),
  }),
}) satisfies z.ZodType<FunctionTool>;

export const openaiToolChoice = z.union(
  [
    z.enum(['none', 'auto', 'required']),
    z.object({ type: z.literal('function'), function: z.object({ name: z.string().min(1) }) }),
  ],
  { error: '必须是 none, auto, required 或一个函数' },
);

export const openaiResponseFormat = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.literal('text') }),
    z.object({ type: z.literal('json_object') }),
    z.object({
      type: z.literal('json_schema'),
      json_schema: z.object({
        name: z.string().min(1),
        description: z.string().nullish(),
        schema: freeForm.nullish(),
        strict: z.boolean().nullish(),
      }),
    }),
  ],
  { error: '必须是 text, json_object 或 json_schema' },
) satisfies z.ZodType<ResponseFormat>;
