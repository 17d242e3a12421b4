/**
 * Answers on every chat-completions wire, streamed or whole, as canonical events: one reading for both, so that they
 * cannot differ. What differs between providers comes in as options; no provider is known by name.
 * Wire: https://platform.openai.com/docs/api-reference/chat and /completions.
 */
import { z } from 'zod';
import type { EmbeddingResult, Frame, StreamDecoder } from '../chat/adapter.ts';
import { GatewayError, silentUpstreamError, upstreamError } from '../chat/errors.ts';
import {
  type ChatEvent,
  type ChatResult,
  collect,
  type FinishReason,
  type Stats,
  type ToolCallDelta,
  type Usage,
} from '../chat/events.ts';
import type { GenerationRequest } from '../chat/request.ts';
import { DeltaTemplate, type TextDelta } from './delta-template.ts';
import {
  readAnswer,
  readWireUsage,
  type WireAnswer,
  type WireToolCall,
  type WireUsage,
} from './openai-answer.ts';
import { blindToImage } from './openai-request.ts';
import { type ErrorContext, errorIn, failure, parseJson, wordsOf } from './wire-errors.ts';

export interface WireOptions extends ErrorContext {
  readonly request: GenerationRequest;
  /**
   * The unified reason for the upstream's `finish_reason`, or the error that it stands for; undefined leaves it to the
   * shared table. Null is a whole answer that named none: undefined then makes it a cut answer.
   */
  readonly finishReason?: (raw: string | null) => FinishReason | GatewayError | undefined;
  /** The same for `stats.stop_reason` (LM Studio), which outweighs finish_reason. */
  readonly stopReason?: (word: string) => FinishReason | GatewayError | undefined;
  /** A provider's own way to say an error inside a 200, asked before anything else is read from a chunk or body. */
  readonly findError?: (body: unknown) => GatewayError | undefined;
}

const finishReasons: ReadonlyMap<string, FinishReason> = new Map([
  ['stop', 'stop'],
  ['length', 'length'],
  ['tool_calls', 'tool_calls'],
  ['function_call', 'tool_calls'],
  ['content_filter', 'content_filter'],
]);

const failedFinishes: ReadonlySet<string> = new Set([
  'error',
  'abort',
  'cancelled',
  'insufficient_system_resource',
]);

function unifiedFinish(raw: string | null, options: WireOptions): FinishReason | GatewayError | undefined {
  const own = options.finishReason?.(raw);
  if (own !== undefined || raw === null) return own;
  if (failedFinishes.has(raw)) return stoppedError(options, `finish_reason: ${raw}`);
  return finishReasons.get(raw) ?? 'stop';
}

/** The 502 for an upstream that gave up in the middle and says so in a word of its own. */
export function stoppedError(options: ErrorContext, words: string): GatewayError {
  const { displayName, provider } = options.target;
  return upstreamError({ displayName, provider, status: undefined, words, reason: 'stopped' });
}

function unifiedUsage(wire: WireUsage | undefined): Usage | undefined {
  if (wire === undefined) return undefined;
  const { promptTokens: input, totalTokens: total } = wire;
  const output = wire.completionTokens ?? (total === undefined ? undefined : total - (input ?? 0));
  if (input === undefined && output === undefined) return undefined;
  const counted = { input_tokens: input ?? 0, output_tokens: output ?? 0 };
  return { ...counted, total_tokens: total ?? counted.input_tokens + counted.output_tokens };
}

/** LM Studio's names on v0, where the unified API has its own. */
const statNames: ReadonlyMap<string, string> = new Map([
  ['time_to_first_token', 'time_to_first_token_seconds'],
  ['generation_time', 'generation_time_seconds'],
]);

function readStats({ stats = {}, usage }: WireAnswer): Stats | undefined {
  const found: Record<string, number | string> = {};
  for (const [key, value] of Object.entries(stats)) {
    if (typeof value === 'number') found[statNames.get(key) ?? key] = value;
    else if (key === 'stop_reason' && typeof value === 'string') found[key] = value;
  }
  // Hosted services also count what did not happen: a zero says nothing.
  if (usage?.reasoningTokens) found['reasoning_tokens'] = usage.reasoningTokens;
  if (usage?.cachedTokens) found['cached_tokens'] = usage.cachedTokens;
  return Object.keys(found).length === 0 ? undefined : found;
}

/**
 * Brings tool-call pieces into OpenAI's form: id and name once (continuations repeat them, or send `""`), an index
 * always (some servers number nothing and tell parallel calls apart by id alone).
 */
function toolCallReader(): (calls: readonly WireToolCall[]) => ToolCallDelta[] {
  const known = new Map<number, { id: boolean; name: boolean }>();
  const indexById = new Map<string, number>();
  let last = -1;

  const indexOf = (call: WireToolCall, position: number): number => {
    if (call.index !== undefined) return call.index;
    const seen = call.id ? indexById.get(call.id) : undefined;
    if (seen !== undefined) return seen;
    return call.id || position > 0 || last < 0 ? last + 1 : last;
  };

  const read = (call: WireToolCall, position: number): ToolCallDelta | undefined => {
    const index = indexOf(call, position);
    const before = known.get(index);
    const state = before ?? { id: false, name: false };
    const id = !state.id && call.id ? call.id : undefined;
    const name = !state.name && call.name ? call.name : undefined;
    const pieces = call.arguments ?? '';
    if (id === undefined && name === undefined && pieces === '') return undefined;
    known.set(index, { id: state.id || id !== undefined, name: state.name || name !== undefined });
    last = Math.max(last, index);
    if (id !== undefined) indexById.set(id, index);
    return {
      index,
      ...(id === undefined ? {} : { id }),
      ...(before === undefined ? { type: 'function' as const } : {}),
      function: { ...(name === undefined ? {} : { name }), arguments: pieces },
    };
  };

  return (calls) => calls.map(read).filter((delta) => delta !== undefined);
}

/** What one answer said so far; `absorb` takes a chunk or the whole, `conclude` gives the terminal events. */
interface Reading {
  absorb(answer: WireAnswer): ChatEvent[];
  conclude(): ChatEvent[];
  /** The terminal event where the upstream stopped without saying that it finished. */
  cutShort(): ChatEvent[];
  /** The upstream said that it finished. */
  finished(): boolean;
}

function startReading(options: WireOptions): Reading {
  let readToolCalls: ReturnType<typeof toolCallReader> | undefined;
  let started = false;
  let spoke = false;
  let calledTools = false;
  let usage: Usage | undefined;
  let stats: Stats | undefined;
  let raw: string | null = null;
  let stopReason: FinishReason | undefined;

  const content = (answer: WireAnswer): ChatEvent[] => {
    const events: ChatEvent[] = [];
    const choice = answer.choices?.[0];
    const part = choice?.delta ?? choice?.message;
    const reasoning = part?.reasoning || '';
    if (reasoning !== '') events.push({ type: 'reasoning', text: reasoning });
    const words = choice?.text || part?.content || part?.refusal || '';
    const logprobs = choice?.logprobs;
    const hasLogprobs = Array.isArray(logprobs?.['content']) && logprobs['content'].length > 0;
    if (words !== '' || hasLogprobs) {
      events.push({ type: 'text', text: words, ...(logprobs === undefined ? {} : { logprobs }) });
    }
    if (part?.toolCalls !== undefined) {
      readToolCalls ??= toolCallReader();
      const deltas = readToolCalls(part.toolCalls);
      if (deltas.length > 0) events.push({ type: 'tool-calls', deltas });
      calledTools ||= deltas.length > 0;
    }
    spoke ||= events.length > 0;
    return events;
  };

  const absorb = (answer: WireAnswer): ChatEvent[] => {
    const events: ChatEvent[] = started
      ? []
      : [{ type: 'start', ...(answer.model ? { model: answer.model } : {}) }];
    started = true;
    events.push(...content(answer));
    usage = unifiedUsage(answer.usage) ?? usage;
    const more = readStats(answer);
    if (more !== undefined) stats = { ...stats, ...more };
    const word = answer.choices?.[0]?.finishReason;
    // Native DashScope says "null" while it generates, and that leaks into its compatible mode.
    if (raw === null && word && word !== 'null') raw = word;
    const verdict = more?.stop_reason === undefined ? undefined : options.stopReason?.(more.stop_reason);
    if (verdict instanceof GatewayError) events.push({ type: 'error', error: verdict });
    else stopReason = verdict ?? stopReason;
    return events;
  };

  const cutShort = (): ChatEvent[] => {
    const error = spoke ? undefined : blindToImage(options.request, options.target);
    return [{ type: 'error', error: error ?? silentUpstreamError(options.target.displayName, 'cut') }];
  };

  const conclude = (): ChatEvent[] => {
    const said = unifiedFinish(raw, options);
    if (said instanceof GatewayError) return [{ type: 'error', error: said }];
    const mapped = stopReason ?? said;
    if (mapped === undefined) return cutShort();
    const reason = calledTools && mapped === 'stop' ? 'tool_calls' : mapped;
    if (!spoke && reason !== 'content_filter' && (usage?.output_tokens ?? 0) === 0) {
      return [{ type: 'error', error: emptyAnswer(options) }];
    }
    return [
      ...(usage === undefined ? [] : [{ type: 'usage' as const, usage }]),
      ...(stats === undefined ? [] : [{ type: 'stats' as const, stats }]),
      { type: 'finish', reason, raw },
    ];
  };

  return { absorb, conclude, cutShort, finished: () => raw !== null };
}

function emptyAnswer(options: WireOptions): GatewayError {
  return (
    blindToImage(options.request, options.target) ?? silentUpstreamError(options.target.displayName, 'empty')
  );
}

/** The error inside a 200 that this chunk or body is, if it is one. */
function errorInside(json: unknown, options: WireOptions): GatewayError | undefined {
  const own = options.findError?.(json);
  if (own !== undefined) return own;
  const shared = errorIn(json);
  return shared === undefined ? undefined : failure(shared, options);
}

/**
 * A whole chat or text completion.
 * @throws GatewayError where the body is an error, empty, cut or malformed
 */
export function decodeCompletion(body: unknown, options: WireOptions): ChatResult {
  const error = errorInside(body, options);
  if (error !== undefined) throw error;
  const answer = readAnswer(body);
  if (answer?.choices === undefined) throw silentUpstreamError(options.target.displayName, 'format');
  // LM Studio's answer to a picture that the model cannot see is a 200 without choices.
  if (answer.choices.length === 0) throw emptyAnswer(options);
  const reading = startReading(options);
  const events = reading.absorb(answer);
  return collect(events.at(-1)?.type === 'error' ? events : [...events, ...reading.conclude()]);
}

/** The text that a chunk brought, if it said nothing else that matters. */
function onlyText(answer: WireAnswer, events: readonly ChatEvent[]): TextDelta | undefined {
  const [event, ...others] = events;
  if (event === undefined || others.length > 0 || answer.usage || answer.stats) return undefined;
  return (event.type === 'text' && event.logprobs === undefined) || event.type === 'reasoning'
    ? event
    : undefined;
}

const nothingYet: WireAnswer = { model: undefined, choices: undefined, usage: undefined, stats: undefined };

/** A chunk in full, as if it came in the middle of a stream. */
function readAlone(data: string, options: WireOptions): TextDelta | undefined {
  const json = parseJson(data);
  const answer = readAnswer(json);
  if (answer === undefined || errorInside(json, options) !== undefined) return undefined;
  const reading = startReading(options);
  reading.absorb(nothingYet);
  const events = reading.absorb(answer);
  return reading.finished() ? undefined : onlyText(answer, events);
}

/** Decodes a stream of chunks of chat or text completions; see StreamDecoder. */
export function chunkDecoder(options: WireOptions): StreamDecoder {
  const reading = startReading(options);
  const template = new DeltaTemplate();
  let phase: StreamDecoder['phase'] = 'open';

  const fail = (error: GatewayError): ChatEvent[] => {
    phase = 'done';
    return [{ type: 'error', error }];
  };

  const end = (): ChatEvent[] => {
    if (phase === 'done') return [];
    phase = 'done';
    return reading.finished() ? reading.conclude() : reading.cutShort();
  };

  const push = (frame: Frame): ChatEvent[] => {
    if (phase === 'open' && frame.event === 'message') {
      const known = template.read(frame.data);
      if (known !== undefined) return known.text === '' ? [] : [known];
    }
    const data = frame.data.trim();
    if (phase === 'done' || data === '') return [];
    if (data.startsWith('[DONE]')) return end();
    const json = parseJson(data);
    if (json === undefined && frame.event !== 'message' && frame.event !== 'error') return [];
    const error =
      errorInside(json, options) ?? (frame.event === 'error' ? failure(wordsOf(data), options) : undefined);
    if (error !== undefined) return fail(error);
    const answer = readAnswer(json);
    if (answer === undefined) return fail(silentUpstreamError(options.target.displayName, 'format'));
    const events = reading.absorb(answer);
    if (events.at(-1)?.type === 'error') phase = 'done';
    else if (reading.finished()) {
      phase = 'settled';
      // Usage may stand on the finish chunk, or on one of its own behind it.
      if (answer.usage) events.push(...end());
    } else if (frame.event === 'message') {
      const delta = onlyText(answer, events);
      if (delta !== undefined) template.learn(frame.data, delta, (like) => readAlone(like, options));
    }
    return events;
  };

  return {
    push,
    end,
    get phase() {
      return phase;
    },
  };
}

const embeddingSchema = z.object({
  model: z.string().nullish(),
  data: z.array(z.object({ embedding: z.array(z.number()), index: z.int().nullish() })),
  usage: z.unknown().optional(),
});

/**
 * A list of embeddings, put into the order of the inputs.
 * @throws GatewayError where the body is an error, empty or malformed
 */
export function decodeEmbeddingList(body: unknown, context: ErrorContext): EmbeddingResult {
  const error = errorIn(body);
  if (error !== undefined) throw failure(error, context);
  const list = embeddingSchema.safeParse(body);
  if (!list.success) throw silentUpstreamError(context.target.displayName, 'format');
  const { data, model, usage } = list.data;
  if (data.length === 0) throw silentUpstreamError(context.target.displayName, 'empty');
  const inOrder = data.map((row, position) => ({ at: row.index ?? position, embedding: row.embedding }));
  inOrder.sort((a, b) => a.at - b.at);
  return {
    ...(model ? { model } : {}),
    embeddings: inOrder.map((row) => row.embedding),
    usage: unifiedUsage(readWireUsage(usage)) ?? null,
  };
}
