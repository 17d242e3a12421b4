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
import { DeltaTemplate, type TextDelta } from './delta-template.ts';
import {
  readAnswer,
  readWireUsage,
  type WireAnswer,
  type WireToolCall,
  type WireUsage,
} from './openai-answer.ts';
import { type ErrorContext, errorIn, failure, parseJson, wordsOf } from './wire-errors.ts';

export interface WireOptions extends ErrorContext {
  /** What became of a picture that the model cannot see: the error of an answer that says nothing. */
  readonly unseen: GatewayError | undefined;
  /** The caller wants one tool call at most: those behind the first are left out. */
  readonly firstCallOnly: boolean;
  /**
   * The unified reason for the upstream's `finish_reason`, or the error that it stands for; undefined leaves it to the
   * shared table. Null is a whole answer that named none: undefined then makes it a cut answer.
   */
  readonly finishReason?: (raw: string | null) => FinishReason | GatewayError | undefined;
  /** The same for `stats.stop_reason` (LM Studio), which outweighs finish_reason. */
  readonly stopReason?: (word: string, context: ErrorContext) => FinishReason | GatewayError | undefined;
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
  const input_tokens = input ?? 0;
  const output_tokens = output ?? 0;
  return { input_tokens, output_tokens, total_tokens: total ?? input_tokens + output_tokens };
}

/** LM Studio's names on v0, where the unified API has its own. */
const statNames: ReadonlyMap<string, string> = new Map([
  ['time_to_first_token', 'time_to_first_token_seconds'],
  ['generation_time', 'generation_time_seconds'],
]);

function readStats({ stats = {}, usage }: WireAnswer): Stats | undefined {
  const found: Record<string, number | string> = {};
  for (const key of Object.keys(stats)) {
    const value = stats[key];
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

/** What one answer said so far. One per stream, so without a closure for each of its methods. */
class Reading {
  readonly #options: WireOptions;
  #readToolCalls: ReturnType<typeof toolCallReader> | undefined;
  #started = false;
  #spoke = false;
  #calledTools = false;
  #firstCall: number | undefined;
  #usage: Usage | undefined;
  #stats: Stats | undefined;
  #raw: string | null = null;
  #stopReason: FinishReason | undefined;

  constructor(options: WireOptions) {
    this.#options = options;
  }

  /** The upstream said that it finished. */
  get finished(): boolean {
    return this.#raw !== null;
  }

  /** Takes a chunk, or the whole. */
  absorb(answer: WireAnswer): ChatEvent[] {
    const events: ChatEvent[] = this.#started
      ? []
      : [{ type: 'start', ...(answer.model ? { model: answer.model } : {}) }];
    this.#started = true;
    events.push(...this.#content(answer));
    this.#usage = unifiedUsage(answer.usage) ?? this.#usage;
    const more = readStats(answer);
    if (more !== undefined) this.#stats = this.#stats === undefined ? more : { ...this.#stats, ...more };
    const word = answer.choices?.[0]?.finishReason;
    // Native DashScope says "null" while it generates, and that leaks into its compatible mode.
    if (this.#raw === null && word && word !== 'null') this.#raw = word;
    const stopWord = more?.stop_reason;
    const verdict = stopWord === undefined ? undefined : this.#options.stopReason?.(stopWord, this.#options);
    if (verdict instanceof GatewayError) events.push({ type: 'error', error: verdict });
    else this.#stopReason = verdict ?? this.#stopReason;
    return events;
  }

  #content(answer: WireAnswer): ChatEvent[] {
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
      this.#readToolCalls ??= toolCallReader();
      const deltas = this.#wanted(this.#readToolCalls(part.toolCalls));
      if (deltas.length > 0) events.push({ type: 'tool-calls', deltas });
      this.#calledTools ||= deltas.length > 0;
    }
    this.#spoke ||= events.length > 0;
    return events;
  }

  #wanted(deltas: ToolCallDelta[]): ToolCallDelta[] {
    if (!this.#options.firstCallOnly) return deltas;
    this.#firstCall ??= deltas[0]?.index;
    return deltas.filter(({ index }) => index === this.#firstCall);
  }

  /** The terminal event where the upstream stopped without saying that it finished. */
  cutShort(): ChatEvent[] {
    const { unseen, target } = this.#options;
    const error = this.#spoke ? undefined : unseen;
    return [{ type: 'error', error: error ?? silentUpstreamError(target.displayName, 'cut') }];
  }

  /** The terminal events. */
  conclude(): ChatEvent[] {
    const said = unifiedFinish(this.#raw, this.#options);
    if (said instanceof GatewayError) return [{ type: 'error', error: said }];
    const mapped = this.#stopReason ?? said;
    if (mapped === undefined) return this.cutShort();
    const reason = this.#calledTools && mapped === 'stop' ? 'tool_calls' : mapped;
    const usage = this.#usage;
    const stats = this.#stats;
    if (!this.#spoke && reason !== 'content_filter' && (usage?.output_tokens ?? 0) === 0) {
      return [{ type: 'error', error: emptyAnswer(this.#options) }];
    }
    return [
      ...(usage === undefined ? [] : [{ type: 'usage' as const, usage }]),
      ...(stats === undefined ? [] : [{ type: 'stats' as const, stats }]),
      { type: 'finish', reason, raw: this.#raw },
    ];
  }
}

const emptyAnswer = ({ unseen, target }: WireOptions): GatewayError =>
  unseen ?? silentUpstreamError(target.displayName, 'empty');

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
  const reading = new Reading(options);
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
  const reading = new Reading(options);
  reading.absorb(nothingYet);
  const events = reading.absorb(answer);
  return reading.finished ? undefined : onlyText(answer, events);
}

/** Decodes a stream of chunks of chat or text completions; see StreamDecoder. */
export const chunkDecoder = (options: WireOptions): StreamDecoder => new ChunkDecoder(options);

class ChunkDecoder implements StreamDecoder {
  readonly #options: WireOptions;
  readonly #reading: Reading;
  readonly #template = new DeltaTemplate();
  phase: StreamDecoder['phase'] = 'open';

  constructor(options: WireOptions) {
    this.#options = options;
    this.#reading = new Reading(options);
  }

  push(frame: Frame): ChatEvent[] {
    if (this.phase === 'open' && frame.event === 'message') {
      const known = this.#template.read(frame.data);
      if (known !== undefined) return known.text === '' ? [] : [known];
    }
    const data = frame.data.trim();
    if (this.phase === 'done' || data === '') return [];
    if (data.startsWith('[DONE]')) return this.end();
    const options = this.#options;
    const json = parseJson(data);
    if (json === undefined && frame.event !== 'message' && frame.event !== 'error') return [];
    const error =
      errorInside(json, options) ?? (frame.event === 'error' ? failure(wordsOf(data), options) : undefined);
    if (error !== undefined) return this.#fail(error);
    const answer = readAnswer(json);
    if (answer === undefined) return this.#fail(silentUpstreamError(options.target.displayName, 'format'));
    return this.#absorb(answer, frame);
  }

  #absorb(answer: WireAnswer, { event, data }: Frame): ChatEvent[] {
    const reading = this.#reading;
    const events = reading.absorb(answer);
    if (events.at(-1)?.type === 'error') this.phase = 'done';
    else if (reading.finished) {
      this.phase = 'settled';
      // Usage may stand on the finish chunk, or on one of its own behind it.
      if (answer.usage) events.push(...this.end());
    } else if (event === 'message') {
      const delta = onlyText(answer, events);
      if (delta !== undefined) this.#template.learn(data, delta, (like) => readAlone(like, this.#options));
    }
    return events;
  }

  end(): ChatEvent[] {
    if (this.phase === 'done') return [];
    this.phase = 'done';
    return this.#reading.finished ? this.#reading.conclude() : this.#reading.cutShort();
  }

  #fail(error: GatewayError): ChatEvent[] {
    this.phase = 'done';
    return [{ type: 'error', error }];
  }
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
