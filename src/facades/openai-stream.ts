/** The event streams of the OpenAI-compatible dialect, of chat and of text completions. Knows no provider and no socket. */
import type { GatewayError } from '../chat/errors.ts';
import type { ChatEvent, FinishReason, Stats, Usage } from '../chat/events.ts';
import type { StreamEncoder } from './encoder.ts';
import { type AnswerIdentity, encodeUsage, openaiError } from './openai.ts';

type Content = Extract<ChatEvent, { readonly type: 'text' | 'reasoning' | 'tool-calls' }>;

/** How one kind of completion writes its choice, as JSON text: a chunk is written for every token. */
export interface ChoiceWriter {
  /** The `object` of its chunks. */
  readonly object: string;
  /** Empty where this kind has no place for it. */
  content(event: Content): string;
  /** A choice that says nothing. */
  heartbeat(): string;
  finish(reason: FinishReason): string;
}

/** One per stream: the role comes with the first delta, which may be a heartbeat's. */
export function chatChoices(): ChoiceWriter {
  let role = '"role":"assistant",';
  const delta = (event: Content): string => {
    const opening = role;
    role = '';
    switch (event.type) {
      case 'text':
        return `${opening}"content":${JSON.stringify(event.text)}`;
      case 'reasoning':
        return `${opening === '' ? '' : `${opening}"content":null,`}"reasoning_content":${JSON.stringify(event.text)}`;
      case 'tool-calls':
        return `${opening === '' ? '' : `${opening}"content":null,`}"tool_calls":${JSON.stringify(event.deltas)}`;
      default:
        return event satisfies never;
    }
  };
  return {
    object: 'chat.completion.chunk',
    content(event) {
      const logprobs =
        event.type === 'text' && event.logprobs !== undefined ? JSON.stringify(event.logprobs) : 'null';
      return `{"index":0,"delta":{${delta(event)}},"logprobs":${logprobs},"finish_reason":null}`;
    },
    heartbeat() {
      const opening = role;
      role = '';
      return `{"index":0,"delta":{${opening}"content":""},"logprobs":null,"finish_reason":null}`;
    },
    finish(reason) {
      // An answer without a word still has a role.
      const last = role === '' ? '' : `${role}"content":""`;
      return `{"index":0,"delta":{${last}},"logprobs":null,"finish_reason":"${reason}"}`;
    },
  };
}

export const textChoices: ChoiceWriter = {
  object: 'text_completion',
  content: (event) =>
    event.type === 'text'
      ? `{"text":${JSON.stringify(event.text)},"index":0,"logprobs":null,"finish_reason":null}`
      : '',
  heartbeat: () => '{"text":"","index":0,"logprobs":null,"finish_reason":null}',
  finish: (reason) => `{"text":"","index":0,"logprobs":null,"finish_reason":"${reason}"}`,
};

export interface OpenAIStreamOptions {
  readonly identity: AnswerIdentity;
  /** The upstream model that answers, as far as it is known; asked until the first content is there, and not again. */
  readonly model: () => string;
  readonly includeUsage: boolean;
  /** The error in the caller's own words. */
  readonly explain: (error: GatewayError) => GatewayError;
}

const done = 'data: [DONE]\n\n';

/** One per answer: all chunks share an identity, usage comes on demand, and only a whole answer ends with `[DONE]`. */
export class OpenAIEncoder implements StreamEncoder {
  readonly #choices: ChoiceWriter;
  readonly #options: OpenAIStreamOptions;
  /** What every chunk begins with; empty as long as it is not known who answers. */
  #head = '';
  #usage: Usage | undefined;
  #stats: Stats | undefined;

  constructor(choices: ChoiceWriter, options: OpenAIStreamOptions) {
    this.#choices = choices;
    this.#options = options;
  }

  encode(events: readonly ChatEvent[]): string {
    let bytes = '';
    for (const event of events) bytes += this.#encode(event);
    return bytes;
  }

  #encode(event: ChatEvent): string {
    switch (event.type) {
      case 'text':
      case 'reasoning':
      case 'tool-calls':
        return this.#chunk(this.#choices.content(event));
      case 'usage':
        this.#usage = event.usage;
        return '';
      case 'stats':
        this.#stats = { ...this.#stats, ...event.stats };
        return '';
      case 'finish':
        return this.#chunk(this.#choices.finish(event.reason)) + this.#usageChunk() + done;
      case 'start':
      case 'progress':
      case 'server-tool':
      case 'error':
        return '';
      default:
        return event satisfies never;
    }
  }

  heartbeat(): string {
    const head = this.#head;
    const chunk = this.#chunk(this.#choices.heartbeat());
    // Before any content another route may still take over.
    this.#head = head;
    return chunk;
  }

  #chunk(choice: string): string {
    if (choice === '') return '';
    // OpenAI has a null on every chunk but the last, if usage was asked for.
    const usage = this.#options.includeUsage ? ',"usage":null' : '';
    return `${this.#opening()},"choices":[${choice}]${usage}}\n\n`;
  }

  #opening(): string {
    if (this.#head === '') {
      const { identity, model } = this.#options;
      const { id, created } = identity;
      const fields = JSON.stringify({ id, object: this.#choices.object, created, model: model() });
      this.#head = `data: ${fields.slice(0, -1)}`;
    }
    return this.#head;
  }

  #usageChunk(): string {
    if (!this.#options.includeUsage || this.#usage === undefined) return '';
    const usage = JSON.stringify(encodeUsage(this.#usage, this.#stats));
    return `${this.#opening()},"choices":[],"usage":${usage}}\n\n`;
  }

  /** No `[DONE]` follows: a client that waits for it sees that the answer is not whole. */
  fail(error: GatewayError): string {
    return `data: ${JSON.stringify(openaiError(this.#options.explain(error)))}\n\n`;
  }
}
