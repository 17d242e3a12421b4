/** LM Studio's v1 chat: what it refuses, stored chats, MCP tool calls, and its nineteen events. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import {
  countPromptTokens,
  type Generation,
  generate,
  replyTo,
  type Turn,
  thoughtsOn,
} from './lmstudio-answers.ts';
import {
  type House,
  imageFault,
  type LmStudioScript,
  missingModelMessage,
  type Outcome,
  type OutputItem,
  occupy,
  type ProviderInfo,
  refuse,
  resolveModel,
  type StoredChat,
  type TakeScript,
} from './lmstudio-house.ts';
import type { SimulatedModel } from './lmstudio-models.ts';
import {
  type Event,
  failOnV1,
  itemEvents,
  openingEvents,
  piecesOf,
  type Result,
  statsOf,
  toFrame,
  wholeItem,
} from './lmstudio-v1-events.ts';

const integration = z.union([
  z.string(),
  z.discriminatedUnion('type', [
    z.strictObject({
      type: z.literal('plugin'),
      id: z.string(),
      allowed_tools: z.array(z.string()).optional(),
    }),
    z.strictObject({
      type: z.literal('ephemeral_mcp'),
      server_label: z.string(),
      server_url: z.url(),
      allowed_tools: z.array(z.string()).optional(),
      headers: z.record(z.string(), z.string()).optional(),
    }),
  ]),
]);

const inputItem = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text'), content: z.string() }),
  z.strictObject({ type: z.literal('image'), data_url: z.string() }),
]);

const chatBody = z.strictObject({
  model: z.string(),
  /** A string or items, read apart: the error of a union would hide which item is wrong, and the real server names it. */
  input: z.unknown().optional(),
  system_prompt: z.string().optional(),
  integrations: z.array(integration).optional(),
  stream: z.boolean().optional(),
  temperature: z.number().min(0).max(1).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(0).optional(),
  min_p: z.number().min(0).max(1).optional(),
  repeat_penalty: z.number().min(0).optional(),
  max_output_tokens: z.int().min(1).optional(),
  reasoning: z.enum(['off', 'low', 'medium', 'high', 'on']).optional(),
  context_length: z.int().min(1).optional(),
  store: z.boolean().optional(),
  previous_response_id: z.string().startsWith('resp_').optional(),
});
const inputItems = z.array(inputItem).min(1);

type ChatBody = z.output<typeof chatBody>;
type Integration = z.output<typeof integration>;
interface Input {
  readonly text: string;
  readonly images: readonly string[];
}

export const invalid = (message: string, param?: string, code = 'invalid_value'): Outcome =>
  refuse(400, message, { type: 'invalid_request', code, ...(param === undefined ? {} : { param }) });

const missing = (param: string): Outcome =>
  invalid(`"${param}" is required`, param, 'missing_required_parameter');

/** A zod error in the words of the real server. */
export function invalidBody(error: z.ZodError, prefix = ''): Outcome {
  const issue = error.issues[0];
  if (issue?.code === 'unrecognized_keys') {
    const keys = issue.keys.map((key) => `'${key}'`).join(', ');
    return invalid(`Unrecognized key(s) in object: ${keys}`, issue.keys[0], 'unrecognized_keys');
  }
  const path = [prefix, ...(issue?.path ?? [])].filter((step) => step !== '').join('.');
  if (path !== '' && issue?.message.endsWith('received undefined')) return missing(path);
  if (issue?.code === 'invalid_union' && path.startsWith('input')) {
    return invalid(
      "Invalid discriminator value. Expected 'text' | 'image'",
      path,
      'invalid_union_discriminator',
    );
  }
  return invalid(issue?.message ?? 'Invalid request body', path === '' ? undefined : path, issue?.code);
}

export const unknownModel = (house: House, name: string): Outcome =>
  refuse(404, missingModelMessage(house, name), {
    type: 'model_not_found',
    code: 'model_not_found',
    param: 'model',
  });

export function chatOnV1(body: unknown, house: House, take: TakeScript): Outcome {
  const parsed = chatBody.safeParse(body);
  if (!parsed.success) return invalidBody(parsed.error);
  const request = parsed.data;
  const input = readInput(request.input);
  if ('answer' in input) return input;
  const model = resolveModel(house, request.model);
  if (model === undefined) return unknownModel(house, request.model);
  const refusal = refuseFor(model, request, input);
  if (refusal !== undefined) return refusal;
  const previous = readPrevious(request, house);
  if (previous !== undefined && 'answer' in previous) return previous;
  return answerOnV1({ request, input, model, previous }, house, take());
}

function readInput(input: unknown): Input | Outcome {
  if (typeof input === 'string') return { text: input, images: [] };
  if (input === undefined) return missing('input');
  const parsed = inputItems.safeParse(input);
  if (!parsed.success) return invalidBody(parsed.error, 'input');
  const images = parsed.data.flatMap((item) => (item.type === 'image' ? [item.data_url] : []));
  for (const image of images) {
    const fault = imageFault(image);
    if (fault !== undefined) return invalid(fault, 'input');
  }
  const text = parsed.data.flatMap((item) => (item.type === 'text' ? [item.content] : [])).join('\n');
  return { text, images };
}

function refuseFor(model: SimulatedModel, request: ChatBody, input: Input): Outcome | undefined {
  if (model.type === 'embeddings') {
    return invalid(`Model "${model.id}" is an embedding model and cannot chat.`, 'model');
  }
  if (input.images.length > 0 && model.type !== 'vlm') {
    return invalid(`Model "${model.id}" does not support images.`, 'input');
  }
  if (request.reasoning === undefined) return undefined;
  if (model.reasoning === undefined) {
    return invalid(`Model "${model.id}" does not support the reasoning setting.`, 'reasoning');
  }
  if (model.reasoning.options.includes(request.reasoning)) return undefined;
  return invalid(
    `Reasoning setting '${request.reasoning}' is not supported by model "${model.id}". Supported: ${model.reasoning.options.join(', ')}`,
    'reasoning',
  );
}

function readPrevious(request: ChatBody, house: House): StoredChat | Outcome | undefined {
  const id = request.previous_response_id;
  if (id === undefined) return undefined;
  const chat = house.chats.get(id);
  if (chat === undefined) {
    return invalid(`Response with id '${id}' not found.`, 'previous_response_id', 'response_not_found');
  }
  if (request.system_prompt !== undefined && !house.acceptsRepeatedSystemPrompt) {
    return refuse(
      500,
      'Error rendering prompt with jinja template: "System message must be at the beginning."',
      {
        type: 'internal_error',
      },
    );
  }
  return chat;
}

interface Job {
  readonly request: ChatBody;
  readonly input: Input;
  readonly model: SimulatedModel;
  readonly previous: StoredChat | undefined;
}

function answerOnV1(job: Job, house: House, script: LmStudioScript): Outcome {
  const { request, input, model, previous } = job;
  const config = request.context_length === undefined ? {} : { context_length: request.context_length };
  const { instance, loadMs } = occupy(house, model, script, config);
  const texts = [...(request.system_prompt === undefined ? [] : [request.system_prompt]), input.text];
  const inputTokens = countPromptTokens(texts) + (previous?.tokens ?? 0);
  const overflows = inputTokens > (request.context_length ?? instance.config.context_length);
  if (overflows && request.stream !== true) {
    return { ...refuse(400, 'Context size has been exceeded.', { type: 'invalid_request' }), script };
  }
  const { items, generation } = speak(job, inputTokens, script);
  const responseId = request.store === false ? undefined : `resp_${randomBytes(24).toString('hex')}`;
  const { usage } = generation;
  if (responseId !== undefined && !overflows) {
    house.chats.set(responseId, {
      userTexts: [...(previous?.userTexts ?? []), input.text],
      systemPrompt: previous?.systemPrompt ?? request.system_prompt,
      tokens: inputTokens + (usage?.output ?? 0),
    });
  }
  const result: Result = {
    model_instance_id: script.model ?? instance.id,
    output: items.map(wholeItem),
    ...(usage === undefined ? {} : { stats: statsOf(usage, loadMs) }),
    ...(responseId === undefined ? {} : { response_id: responseId }),
  };
  if (request.stream !== true) {
    const waitMs = (loadMs ?? 0) + house.promptMs + (usage?.output ?? 0) * house.tokenMs;
    return { script, answer: { kind: 'json', status: 200, body: result, waitMs } };
  }
  const opening = openingEvents(result.model_instance_id, loadMs, house);
  const sent: readonly Event[] = overflows
    ? [...opening, { type: 'error', error: { type: 'unknown', message: 'Context size has been exceeded.' } }]
    : [...opening, ...items.flatMap((item) => itemEvents(item, house.tokenMs))];
  const end: Event = { type: 'chat.end', result: overflows ? { ...result, output: [] } : result };
  // Without a finish reason on this wire, a stream that does not tell its end is one without chat.end.
  const events = script.finishReason === null ? sent : [...sent, end];
  return {
    script,
    answer: {
      kind: 'stream',
      frames: events.map(toFrame),
      failure: (error, frames) => failOnV1(error, events.slice(0, frames.length), result),
    },
  };
}

/** The items of the answer, and what they cost. */
function speak(
  job: Job,
  inputTokens: number,
  script: LmStudioScript,
): { readonly items: readonly OutputItem[]; readonly generation: Generation } {
  const { request, input, model, previous } = job;
  const limits = { maxTokens: request.max_output_tokens };
  if (script.output !== undefined && script.empty === undefined) {
    return { items: script.output, generation: countItems(script.output, inputTokens, script) };
  }
  const turns: readonly Turn[] = [
    ...(previous?.userTexts ?? []).map((text) => ({ role: 'user' as const, text })),
    { role: 'user', text: input.text, images: input.images.length },
  ];
  const calls = (request.integrations ?? []).map((entry) => callOf(entry, input.text));
  const text = replyTo(
    calls.length === 0 ? turns : [...turns, { role: 'tool', text: findingOn(input.text) }],
  );
  const thinks = model.reasoning !== undefined && request.reasoning !== 'off';
  const draft = { text, inputTokens, ...(thinks ? { reasoning: thoughtsOn(turns) } : {}) };
  const generation = generate(draft, limits, script);
  const items: OutputItem[] = [];
  if (generation.reasoning.length > 0) items.push({ type: 'reasoning', content: generation.reasoning });
  if (script.empty === undefined && generation.text.length > 0) items.push(...calls);
  if (generation.text.length > 0 || script.empty === 'zero-tokens') {
    items.push({ type: 'message', content: generation.text });
  }
  return { items, generation };
}

/** What every simulated MCP tool finds. */
const findingOn = (query: string): string => `找到1条关于「${query}」的结果`;

function callOf(entry: Integration, query: string): Extract<OutputItem, { type: 'tool_call' }> {
  const plugin = typeof entry === 'string' ? entry : entry.type === 'plugin' ? entry.id : undefined;
  const allowed = typeof entry === 'string' ? undefined : entry.allowed_tools?.[0];
  const provider: ProviderInfo =
    typeof entry === 'object' && entry.type === 'ephemeral_mcp'
      ? { type: 'ephemeral_mcp', server_label: entry.server_label }
      : { type: 'plugin', plugin_id: plugin ?? '' };
  return {
    type: 'tool_call',
    tool: allowed ?? 'search',
    arguments: { query },
    output: JSON.stringify([{ type: 'text', text: findingOn(query) }]),
    provider_info: provider,
  };
}

function countItems(items: readonly OutputItem[], input: number, script: LmStudioScript): Generation {
  const pieces = (type: OutputItem['type']): readonly string[] =>
    items.flatMap((item) => (item.type === type && 'content' in item ? piecesOf(item.content) : []));
  return generate(
    { text: '', inputTokens: input },
    {},
    { ...script, reasoning: pieces('reasoning'), text: pieces('message') },
  );
}
