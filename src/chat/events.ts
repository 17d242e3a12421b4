/** The canonical event stream between adapters and facades, and the answer that it adds up to. Knows no wire format. */
import type { GatewayError } from './errors.ts';

export type FinishReason = 'stop' | 'length' | 'content_filter' | 'tool_calls';

/** Token counts as the upstream reported them; `total_tokens` is their sum where the upstream left it out. */
export interface Usage {
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly total_tokens: number;
}

/**
 * What an upstream measured of its own work; keys are the unified API's. Times in seconds. Providers may add keys
 * of their own (LM Studio's draft-token counts, for instance).
 */
export interface Stats {
  readonly tokens_per_second?: number;
  readonly time_to_first_token_seconds?: number;
  readonly generation_time_seconds?: number;
  readonly model_load_time_seconds?: number;
  readonly reasoning_tokens?: number;
  readonly cached_tokens?: number;
  readonly stop_reason?: string;
  readonly [provided: string]: number | string | undefined;
}

/** A call that the model wants the client to run. `arguments` is the JSON text as the model wrote it. */
export interface ToolCall {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; readonly arguments: string };
}

/** OpenAI's streaming form: `index` tells parallel calls apart, id and name come once, arguments come in pieces. */
export interface ToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: 'function';
  readonly function?: { readonly name?: string; readonly arguments?: string };
}

/** A tool call that the upstream ran itself: either its `output`, or the `reason` why it was not carried out. */
export interface ServerToolCall {
  readonly tool: string;
  readonly arguments?: unknown;
  readonly output?: string;
  readonly reason?: string;
  readonly provider_info?: Readonly<Record<string, unknown>>;
}

export interface Progress {
  readonly stage: 'queued' | 'model_load' | 'prompt_processing' | 'tool_call';
  /** 0 to 1 */
  readonly value?: number;
  /** Place in the queue, 1 is next. Only with stage `queued`. */
  readonly position?: number;
  readonly tool?: string;
  readonly status?: 'start' | 'arguments' | 'success' | 'failure';
}

/** One log probability as OpenAI shapes it; passed through unread. */
export type Logprobs = Readonly<Record<string, unknown>>;

/**
 * `start (text | reasoning | tool-calls | progress | server-tool)* usage? stats? (finish | error)`: exactly one terminal
 * event, and nothing after it.
 */
export type ChatEvent =
  | { readonly type: 'start'; readonly model?: string }
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'text'; readonly text: string; readonly logprobs?: Logprobs }
  | { readonly type: 'reasoning'; readonly text: string }
  /** The pieces that one upstream delta held. */
  | { readonly type: 'tool-calls'; readonly deltas: readonly ToolCallDelta[] }
  | { readonly type: 'server-tool'; readonly call: ServerToolCall }
  | { readonly type: 'usage'; readonly usage: Usage }
  | { readonly type: 'stats'; readonly stats: Stats }
  | {
      readonly type: 'finish';
      readonly reason: FinishReason;
      /** The upstream's own word for it, null where it has none. */
      readonly raw: string | null;
      /** Names a stored chat that a later request may continue. */
      readonly responseId?: string;
    }
  | { readonly type: 'error'; readonly error: GatewayError };

/** A whole answer. Optional members are absent where there is nothing to say. */
export interface ChatResult {
  /** The upstream model that answered, where the upstream names it. */
  readonly model?: string;
  readonly content: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCall[];
  readonly serverToolCalls?: readonly ServerToolCall[];
  readonly logprobs?: Logprobs;
  readonly finish: { readonly reason: FinishReason; readonly raw: string | null };
  readonly usage: Usage | null;
  readonly stats?: Stats;
  readonly responseId?: string;
}

/** Whether the client sees this event as part of the answer: from here on no other route may take over. */
export function isContent(event: ChatEvent): boolean {
  return event.type === 'text' || event.type === 'reasoning' || event.type === 'tool-calls';
}

interface GatheredToolCall {
  id: string;
  name: string;
  arguments: string;
}

/** Gathers an event stream into the answer that it amounts to. `push` throws the error of an `error` event. */
export class Collector {
  #model: string | undefined;
  #content = '';
  #reasoning = '';
  readonly #toolCalls: GatheredToolCall[] = [];
  #toolCallByIndex: Map<number, GatheredToolCall> | undefined;
  #serverToolCalls: ServerToolCall[] = [];
  #logprobs: unknown[] | undefined;
  #usage: Usage | null = null;
  #stats: Stats | undefined;
  #finish: { reason: FinishReason; raw: string | null; responseId?: string } | undefined;

  push(events: readonly ChatEvent[]): void {
    for (const event of events) this.#add(event);
  }

  #add(event: ChatEvent): void {
    switch (event.type) {
      case 'start':
        this.#model = event.model ?? this.#model;
        return;
      case 'text':
        this.#content += event.text;
        if (Array.isArray(event.logprobs?.['content'])) {
          this.#logprobs = [...(this.#logprobs ?? []), ...event.logprobs['content']];
        }
        return;
      case 'reasoning':
        this.#reasoning += event.text;
        return;
      case 'tool-calls':
        for (const delta of event.deltas) this.#addToolCall(delta);
        return;
      case 'server-tool':
        this.#serverToolCalls.push(event.call);
        return;
      case 'usage':
        this.#usage = event.usage;
        return;
      case 'stats':
        this.#stats = { ...this.#stats, ...event.stats };
        return;
      case 'finish':
        this.#finish = event;
        return;
      case 'error':
        throw event.error;
      case 'progress':
        return;
      default:
        event satisfies never;
    }
  }

  #addToolCall(delta: ToolCallDelta): void {
    this.#toolCallByIndex ??= new Map();
    let call = this.#toolCallByIndex.get(delta.index);
    if (call === undefined) {
      call = { id: '', name: '', arguments: '' };
      this.#toolCallByIndex.set(delta.index, call);
      this.#toolCalls.push(call);
    }
    if (delta.id !== undefined && call.id === '') call.id = delta.id;
    if (delta.function?.name !== undefined && call.name === '') call.name = delta.function.name;
    call.arguments += delta.function?.arguments ?? '';
  }

  /** The answer, or undefined as long as no `finish` came. */
  result(): ChatResult | undefined {
    if (this.#finish === undefined) return undefined;
    const { reason, raw, responseId } = this.#finish;
    // Member by member: spreading what may be absent takes 2 us an answer.
    const result: { -readonly [K in keyof ChatResult]: ChatResult[K] } = {
      content: this.#content,
      finish: { reason, raw },
      usage: this.#usage,
    };
    if (this.#model !== undefined) result.model = this.#model;
    if (this.#reasoning !== '') result.reasoning = this.#reasoning;
    if (this.#toolCalls.length > 0) result.toolCalls = this.#toolCalls.map(toToolCall);
    if (this.#serverToolCalls.length > 0) result.serverToolCalls = this.#serverToolCalls;
    if (this.#logprobs !== undefined) result.logprobs = { content: this.#logprobs };
    if (this.#stats !== undefined) result.stats = this.#stats;
    if (responseId !== undefined) result.responseId = responseId;
    return result;
  }
}

const toToolCall = ({ id, name, arguments: given }: GatheredToolCall): ToolCall => ({
  id,
  type: 'function',
  function: { name, arguments: given },
});

/** Gathers a finished list of events. Throws what an `error` event carries, and on a list without a terminal event. */
export function collect(events: Iterable<ChatEvent>): ChatResult {
  const collector = new Collector();
  for (const event of events) collector.push([event]);
  const result = collector.result();
  if (result === undefined) throw new Error('the event stream has no terminal event');
  return result;
}

/** A whole answer as the shortest event stream that adds up to it: `collect(toEvents(r))` equals `r`. */
export function toEvents(result: ChatResult): ChatEvent[] {
  const events: ChatEvent[] = [
    { type: 'start', ...(result.model === undefined ? {} : { model: result.model }) },
  ];
  if (result.reasoning !== undefined && result.reasoning !== '') {
    events.push({ type: 'reasoning', text: result.reasoning });
  }
  for (const call of result.serverToolCalls ?? []) events.push({ type: 'server-tool', call });
  if (result.content !== '' || result.logprobs !== undefined) {
    events.push({
      type: 'text',
      text: result.content,
      ...(result.logprobs === undefined ? {} : { logprobs: result.logprobs }),
    });
  }
  if (result.toolCalls !== undefined && result.toolCalls.length > 0) {
    events.push({
      type: 'tool-calls',
      deltas: result.toolCalls.map((call, index) => ({ index, ...call })),
    });
  }
  if (result.usage !== null) events.push({ type: 'usage', usage: result.usage });
  if (result.stats !== undefined) events.push({ type: 'stats', stats: result.stats });
  events.push({
    type: 'finish',
    ...result.finish,
    ...(result.responseId === undefined ? {} : { responseId: result.responseId }),
  });
  return events;
}
