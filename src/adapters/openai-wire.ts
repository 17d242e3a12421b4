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
import { finishMeaning } from '../chat/finish-words.ts';
import { DeltaTemplate, type TextDelta } from './delta-template.ts';
import { countsTokens, readAnswer, readWireUsage, type WireAnswer, type WireUsage } from './openai-answer.ts';
import { ToolCalls } from './tool-calls.ts';
import { type ErrorContext, errorIn, failure, parseJson, type WireError, wordsOf } from './wire-errors.ts';
import { isObject, type JsonObject, looseNumber } from './wire-values.ts';

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

function unifiedFinish(raw: string | null, options: WireOptions): FinishReason | GatewayError | undefined {
  const own = options.finishReason?.(raw);
  if (own !== undefined || raw === null) return own;
  const meaning = finishMeaning(raw);
  return meaning === 'failed' ? stoppedError(options, `finish_reason: ${raw}`) : (meaning ?? 'stop');
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

/** What llama.cpp measured, in the unified API's names and units. */
function readTimings(timings: JsonObject, found: Record<string, number | string>): void {
  const tell = (name: string, value: unknown, read = (number: number): number => number): void => {
    const number = looseNumber(value);
    if (number !== undefined) found[name] = read(number);
  };
  const seconds = (milliseconds: number): number => Math.round(milliseconds * 1000) / 1_000_000;
  tell('tokens_per_second', timings['predicted_per_second']);
  tell('time_to_first_token_seconds', timings['prompt_ms'], seconds);
  tell('generation_time_seconds', timings['predicted_ms'], seconds);
  tell('total_draft_tokens_count', timings['draft_n']);
  tell('accepted_draft_tokens_count', timings['draft_n_accepted']);
}

function readStats({ stats = {}, timings, usage }: WireAnswer): Stats | undefined {
  const found: Record<string, number | string> = {};
  for (const key of Object.keys(stats)) {
    const value = stats[key];
    if (typeof value === 'number') found[statNames.get(key) ?? key] = value;
    else if (key === 'stop_reason' && typeof value === 'string') found[key] = value;
  }
  if (timings !== undefined) readTimings(timings, found);
  // Hosted services also count what did not happen: a zero says nothing.
  if (usage?.reasoningTokens) found['reasoning_tokens'] = usage.reasoningTokens;
  const cached = usage?.cachedTokens || looseNumber(timings?.['cache_n']);
  if (cached) found['cached_tokens'] = cached;
  return Object.keys(found).length === 0 ? undefined : found;
}

/** What one answer said so far. One per stream, so without a closure for each of its methods. */
class Reading {
  readonly #options: WireOptions;
  #toolCalls: ToolCalls | undefined;
  #model: string | undefined;
  #started = false;
  #spoke = false;
  #usage: WireUsage | undefined;
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
    // A proxy's heartbeats come under any name: the model is the one that says something.
    if (!this.#started) this.#model = answer.model || this.#model;
    const events = this.#content(answer);
    if (countsTokens(answer.usage) || this.#usage === undefined) this.#usage = answer.usage;
    const more = readStats(answer);
    if (more !== undefined) this.#stats = this.#stats === undefined ? more : { ...this.#stats, ...more };
    this.#finish(answer.choices?.[0]?.finishReason);
    const stopWord = more?.stop_reason;
    const verdict = stopWord === undefined ? undefined : this.#options.stopReason?.(stopWord, this.#options);
    if (verdict instanceof GatewayError) events.push({ type: 'error', error: verdict });
    else this.#stopReason = verdict ?? this.#stopReason;
    return events.length === 0 ? events : this.#begun(events);
  }

  /** Keeps the word that says most: some servers send one with every chunk, or a `stop` behind another. */
  #finish(word: string | undefined): void {
    // Native DashScope says "null" while it generates, and that leaks into its compatible mode.
    if (!word || word === 'null') return;
    if (this.#raw === null || finishMeaning(this.#raw) === 'stop') this.#raw = word;
  }

  /** With `start` before the first event. */
  #begun(events: ChatEvent[]): ChatEvent[] {
    if (this.#started) return events;
    this.#started = true;
    events.unshift({ type: 'start', ...(this.#model ? { model: this.#model } : {}) });
    return events;
  }

  #content(answer: WireAnswer): ChatEvent[] {
    const events: ChatEvent[] = [];
    if (answer.promptProgress !== undefined) {
      const progress = { stage: 'prompt_processing' as const, value: answer.promptProgress };
      events.push({ type: 'progress', progress });
    }
    const before = events.length;
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
    if (part?.toolCalls !== undefined && part.toolCalls.length > 0) {
      this.#toolCalls ??= new ToolCalls();
      const deltas = this.#wanted(this.#toolCalls.read(part.toolCalls));
      if (deltas.length > 0) events.push({ type: 'tool-calls', deltas });
    }
    this.#spoke ||= events.length > before;
    return events;
  }

  #wanted(deltas: ToolCallDelta[]): ToolCallDelta[] {
    return this.#options.firstCallOnly ? deltas.filter(({ index }) => index === 0) : deltas;
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
    const usage = unifiedUsage(this.#usage);
    const stats = this.#stats;
    if (!this.#spoke && mapped !== 'content_filter' && (usage?.output_tokens ?? 0) === 0) {
      return [{ type: 'error', error: emptyAnswer(this.#options) }];
    }
    const deltas = this.#wanted(this.#toolCalls?.end() ?? []);
    return this.#begun([
      ...(deltas.length === 0 ? [] : [{ type: 'tool-calls' as const, deltas }]),
      ...(usage === undefined ? [] : [{ type: 'usage' as const, usage }]),
      ...(stats === undefined ? [] : [{ type: 'stats' as const, stats }]),
      { type: 'finish', reason: this.#reasonWithCalls(mapped), raw: this.#raw },
    ]);
  }

  /** `tool_calls` is said exactly where there are calls to run. */
  #reasonWithCalls(reason: FinishReason): FinishReason {
    const called = this.#toolCalls?.any === true;
    if (called) return reason === 'stop' ? 'tool_calls' : reason;
    return reason === 'tool_calls' ? 'stop' : reason;
  }
}

const emptyAnswer = ({ unseen, target }: WireOptions): GatewayError =>
  unseen ?? silentUpstreamError(target.displayName, 'empty');

/** The error inside a 200 that this chunk or body is, if it is one. */
function errorInside(json: unknown, options: WireOptions): GatewayError | undefined {
  const own = options.findError?.(json);
  if (own !== undefined) return own;
  const shared = errorIn(json);
  if (shared === undefined || saysNothing(shared, json)) return undefined;
  return failure(shared, options);
}

/** Some servers put an error whose members are all empty beside every answer. */
const saysNothing = ({ words, code, type }: WireError, json: unknown): boolean =>
  words === '' && (!code || code === '0') && !type && isObject(json) && Array.isArray(json['choices']);

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

/** The text that a chunk brought, if it said nothing else that matters; the first that speaks also names the model. */
function onlyText(answer: WireAnswer, events: readonly ChatEvent[]): TextDelta | undefined {
  const [event, ...others] = events.filter(({ type }) => type !== 'start');
  if (event === undefined || others.length > 0) return undefined;
  if (answer.usage || answer.stats || answer.timings) return undefined;
  return (event.type === 'text' && event.logprobs === undefined) || event.type === 'reasoning'
    ? event
    : undefined;
}

/** What makes a reading begin. */
const opening = readAnswer({ choices: [{ delta: { content: '.' } }] });

/** A chunk in full, as if it came in the middle of a stream. */
function readAlone(data: string, options: WireOptions): TextDelta | undefined {
  const json = parseJson(data);
  const answer = readAnswer(json);
  if (answer === undefined || opening === undefined || errorInside(json, options) !== undefined)
    return undefined;
  const reading = new Reading(options);
  reading.absorb(opening);
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
    if (json === undefined && data.includes('\n')) return this.#lines(data);
    if (json === null) return [];
    const error =
      errorInside(json, options) ?? (frame.event === 'error' ? failure(wordsOf(data), options) : undefined);
    if (error !== undefined) return this.#fail(error);
    const answer = readAnswer(json);
    if (answer === undefined) return this.#fail(silentUpstreamError(options.target.displayName, 'format'));
    return this.#absorb(answer, frame);
  }

  /** Servers that end an event by one line break make one event of many. */
  #lines(data: string): ChatEvent[] {
    return data.split('\n').flatMap((line) => this.push({ event: 'message', data: line }));
  }

  #absorb(answer: WireAnswer, { event, data }: Frame): ChatEvent[] {
    const reading = this.#reading;
    const events = reading.absorb(answer);
    if (events.at(-1)?.type === 'error') this.phase = 'done';
    // What comes behind it still counts: usage, and from some servers text and calls.
    else if (reading.finished) this.phase = 'settled';
    else if (event === 'message') {
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
