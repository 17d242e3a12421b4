/**
 * LM Studio's own chat API, v1 (0.4.0 and later): its answers, with progress, tools that it runs itself and stored chats.
 * Knows nothing of v0.
 * Wire: https://lmstudio.ai/docs/developer/rest/chat and /streaming-events.
 */
import { z } from 'zod';
import type { Frame, ProviderAdapter, StreamDecoder, Target } from '../chat/adapter.ts';
import { type GatewayError, silentUpstreamError } from '../chat/errors.ts';
import {
  type ChatEvent,
  collect,
  type Progress,
  type ServerToolCall,
  type Stats,
  type Usage,
} from '../chat/events.ts';
import type { GenerationRequest, Parameters } from '../chat/request.ts';
import { chat, missingV1, refuse } from './lmstudio-v1-request.ts';
import { answerFailure, errorIn, failure, parseJson, type WireError, wordsOf } from './wire-errors.ts';
import { isObject, type JsonObject, looseText } from './wire-values.ts';
import { plainWords } from './wire-words.ts';

/** The HTTP statuses that its errors stand for where they come inside a 200. */
const statusByType: ReadonlyMap<string | undefined, number> = new Map([
  ['invalid_request', 400],
  ['model_not_found', 404],
  ['not_implemented', 501],
]);

/** A server without this API answers it with a 200 that says so. */
const noSuchEndpoint = /^unexpected endpoint or method/i;

function complaint(error: WireError, parameters: Parameters, target: Target): GatewayError {
  if (noSuchEndpoint.test(error.words)) return missingV1(parameters, target);
  return failure(error, {
    target,
    classify: ({ type }, status) => {
      const meant = status ?? statusByType.get(type);
      return meant === undefined ? undefined : { status: meant };
    },
  });
}

/** Names of this API's events, among which nothing but JSON may stand; a proxy's may say anything. */
const ownEvent = /^(?:message|error|chat|model_load|prompt_processing|reasoning|tool_call)\b/;

/** What is not what it should be says nothing; only the answer's own words have to be readable. */
const text = z.string().nullish().catch(undefined);
const number = z.number().nullish().catch(undefined);
const providerInfo = z.record(z.string(), z.unknown()).nullish().catch(undefined);

const toolFields = {
  tool: text,
  arguments: z.unknown().optional(),
  output: z.unknown().optional(),
  reason: text,
  metadata: z
    .object({ tool_name: text, arguments: z.unknown().optional(), provider_info: providerInfo })
    .nullish()
    .catch(undefined),
  provider_info: providerInfo,
};

/** Whose content is part of the answer. */
const speaking: ReadonlySet<string> = new Set(['message', 'reasoning', 'message.delta', 'reasoning.delta']);

const content = z
  .unknown()
  .optional()
  .transform((value, context) => {
    try {
      return plainWords(value) ?? '';
    } catch {
      context.addIssue({ code: 'custom', message: 'content without words' });
      return z.NEVER;
    }
  });

/** An item of the output or an event, without the content of kinds that nobody knows: it may be of any shape. */
const known = (value: unknown): unknown => {
  if (!isObject(value)) return {};
  const { type } = value;
  return typeof type === 'string' && speaking.has(type) ? value : { ...value, content: undefined };
};

const resultSchema = z.object({
  model_instance_id: text,
  output: z.array(z.preprocess(known, z.object({ type: text, content, ...toolFields }))).nullish(),
  stats: z.record(z.string(), z.unknown()).nullish().catch(undefined),
  response_id: text,
});

const eventSchema = z.preprocess(
  known,
  z.object({ type: text, model_instance_id: text, content, progress: number, ...toolFields }),
);

type Result = z.output<typeof resultSchema>;
type Event = z.output<typeof eventSchema>;
type ToolSaid = Pick<Event, 'tool' | 'arguments' | 'output' | 'reason' | 'metadata' | 'provider_info'>;

/** `earlier` is what the events before this one told of the same call: not all repeat it. */
function serverToolCall(said: ToolSaid, earlier?: ServerToolCall): ServerToolCall {
  const givenArguments = said.arguments ?? said.metadata?.arguments ?? earlier?.arguments;
  const output = typeof said.output === 'string' ? said.output : JSON.stringify(said.output ?? undefined);
  const info = said.provider_info ?? said.metadata?.provider_info ?? earlier?.provider_info;
  return {
    tool: said.tool ?? said.metadata?.tool_name ?? earlier?.tool ?? '',
    ...(givenArguments === undefined || givenArguments === null ? {} : { arguments: givenArguments }),
    ...(output === undefined ? {} : { output }),
    ...(said.reason ? { reason: said.reason } : {}),
    ...(info ? { provider_info: info } : {}),
  };
}

function readUsage(stats: Result['stats']): Usage | undefined {
  const input = stats?.['input_tokens'];
  const output = stats?.['total_output_tokens'];
  if (typeof input !== 'number' || typeof output !== 'number') return undefined;
  return { input_tokens: input, output_tokens: output, total_tokens: input + output };
}

function readStats(wire: Result['stats']): Stats | undefined {
  const { input_tokens, total_output_tokens, reasoning_output_tokens, ...rest } = wire ?? {};
  const found: Record<string, number> = {};
  for (const [key, value] of Object.entries({ ...rest, reasoning_tokens: reasoning_output_tokens })) {
    if (typeof value === 'number') found[key] = value;
  }
  return Object.keys(found).length === 0 ? undefined : found;
}

/** Which parts of the answer the stream has told already: the result at its end repeats them all. */
interface Told {
  text: boolean;
  reasoning: boolean;
  tools: boolean;
}

function untold(result: Result, told: Told): ChatEvent[] {
  const output = result.output ?? [];
  const joined = (type: string): string =>
    output.map((item) => (item.type === type ? item.content : '')).join('');
  const events: ChatEvent[] = [];
  const reasoning = joined('reasoning');
  if (!told.reasoning && reasoning !== '') events.push({ type: 'reasoning', text: reasoning });
  for (const item of told.tools ? [] : output) {
    if (item.type !== 'tool_call' && item.type !== 'invalid_tool_call') continue;
    events.push({ type: 'server-tool', call: serverToolCall(item) });
  }
  const message = joined('message');
  if (!told.text && message !== '') events.push({ type: 'text', text: message });
  return events;
}

/** The end of an answer. v1 has no finish reason: an answer as long as the limit was cut by it. */
function closing(result: Result, told: Told, parameters: Parameters, target: Target): ChatEvent[] {
  const events = untold(result, told);
  const usage = readUsage(result.stats);
  const spoke = told.text || told.reasoning || told.tools || events.length > 0;
  if (!spoke && (usage?.output_tokens ?? 0) === 0) {
    return [{ type: 'error', error: silentUpstreamError(target.displayName, 'empty') }];
  }
  if (usage !== undefined) events.push({ type: 'usage', usage });
  const stats = readStats(result.stats);
  if (stats !== undefined) events.push({ type: 'stats', stats });
  const limit = parameters.max_tokens ?? Number.POSITIVE_INFINITY;
  events.push({
    type: 'finish',
    reason: usage !== undefined && usage.output_tokens >= limit ? 'length' : 'stop',
    raw: null,
    ...(result.response_id ? { responseId: result.response_id } : {}),
  });
  return events;
}

const start = (model: string | null | undefined): ChatEvent => ({
  type: 'start',
  ...(model ? { model } : {}),
});

const progress = (stage: Progress['stage'], value: number | null | undefined): ChatEvent => ({
  type: 'progress',
  progress: { stage, ...(typeof value === 'number' ? { value } : {}) },
});

/** Keeps what the events of one tool call tell, until its success or failure makes the whole of it. */
function toolReader(): (event: Event, status: NonNullable<Progress['status']>) => ChatEvent[] {
  let call: ServerToolCall | undefined;
  return (event, status) => {
    call = serverToolCall(event, status === 'start' ? undefined : call);
    const news: ChatEvent = { type: 'progress', progress: { stage: 'tool_call', tool: call.tool, status } };
    if (status === 'start' || status === 'arguments') return [news];
    const made = call;
    call = undefined;
    return [news, { type: 'server-tool', call: made }];
  };
}

/** What each kind of event says, `chat.end` and `error` apart. Kinds that are not known say nothing. */
function eventReader(told: Told): (event: Event, kind: string) => ChatEvent[] {
  const readTool = toolReader();
  const content = (type: 'text' | 'reasoning', words: string | null | undefined): ChatEvent[] => {
    if (!words) return [];
    told[type] = true;
    return [{ type, text: words }];
  };
  return (event, kind) => {
    switch (kind) {
      case 'model_load.start':
        return [progress('model_load', 0)];
      case 'model_load.progress':
        return [progress('model_load', event.progress)];
      case 'model_load.end':
        return [progress('model_load', 1)];
      case 'prompt_processing.start':
        return [progress('prompt_processing', 0)];
      case 'prompt_processing.progress':
        return [progress('prompt_processing', event.progress)];
      case 'prompt_processing.end':
        return [progress('prompt_processing', 1)];
      case 'reasoning.delta':
        return content('reasoning', event.content);
      case 'message.delta':
        return content('text', event.content);
      case 'tool_call.start':
        return readTool(event, 'start');
      case 'tool_call.arguments':
        return readTool(event, 'arguments');
      case 'tool_call.success':
        told.tools = true;
        return readTool(event, 'success');
      case 'tool_call.failure':
        told.tools = true;
        return readTool(event, 'failure');
      default:
        return [];
    }
  };
}

function decoder({ parameters }: GenerationRequest, target: Target): StreamDecoder {
  const told: Told = { text: false, reasoning: false, tools: false };
  const read = eventReader(told);
  let started = false;
  let phase: StreamDecoder['phase'] = 'open';

  const fail = (error: GatewayError): ChatEvent[] => {
    phase = 'done';
    return [{ type: 'error', error }];
  };

  const push = (frame: Frame): ChatEvent[] => {
    const data = frame.data.trim();
    if (phase === 'done' || data === '') return [];
    const json = parseJson(data);
    if (json === null || (json === undefined && !ownEvent.test(frame.event))) return [];
    const error = errorIn(json) ?? (frame.event === 'error' ? wordsOf(data) : undefined);
    if (error !== undefined) return fail(complaint(error, parameters, target));
    if (!isObject(json)) return fail(silentUpstreamError(target.displayName, 'format'));
    const kind = looseText(json['type']) ?? frame.event;
    return kind === 'chat.end' ? conclude(json) : pass(json, kind);
  };

  const begun = (model: string | null | undefined, events: readonly ChatEvent[]): ChatEvent[] => {
    if (started) return [...events];
    started = true;
    return [start(model), ...events];
  };

  const pass = (json: JsonObject, kind: string): ChatEvent[] => {
    const event = eventSchema.safeParse({ ...json, type: kind });
    if (!event.success) return fail(silentUpstreamError(target.displayName, 'format'));
    return begun(event.data.model_instance_id, read(event.data, kind));
  };

  const conclude = ({ result, model_instance_id }: JsonObject): ChatEvent[] => {
    const parsed = resultSchema.safeParse(result);
    if (!parsed.success) return fail(silentUpstreamError(target.displayName, 'format'));
    phase = 'done';
    const model = parsed.data.model_instance_id ?? looseText(model_instance_id);
    return begun(model, closing(parsed.data, told, parameters, target));
  };

  return {
    push,
    end: () => (phase === 'done' ? [] : fail(silentUpstreamError(target.displayName, 'cut'))),
    get phase() {
      return phase;
    },
  };
}

function decodeResult(body: unknown, { parameters }: GenerationRequest, target: Target) {
  const error = errorIn(body);
  if (error !== undefined) throw complaint(error, parameters, target);
  const result = resultSchema.safeParse(body);
  if (!result.success || !result.data.output) throw silentUpstreamError(target.displayName, 'format');
  const nothing = { text: false, reasoning: false, tools: false };
  return collect([
    start(result.data.model_instance_id),
    ...closing(result.data, nothing, parameters, target),
  ]);
}

export const lmstudioV1: ProviderAdapter = {
  name: 'lmstudio-v1',
  refuse,
  chat,
  decodeResult,
  decoder,
  decodeError: (answer, target) =>
    noSuchEndpoint.test(wordsOf(answer.body).words)
      ? missingV1({}, target)
      : answerFailure(answer, { target }),
};
