/** One call from its arrival to its end: who asked, what became of it, and how it is stopped. Knows no wire and no socket. */
import type { GatewayError } from '../chat/errors.ts';
import type { FinishReason, Usage } from '../chat/events.ts';
import type { EmbeddingRequest, GenerationRequest } from '../chat/request.ts';
import type { GatewayKey } from './keys.ts';

/** The one way in which a call ended; the same word in the usage row, the log line and the metrics. */
export type Ending =
  | FinishReason
  | 'error'
  | 'client_gone'
  | 'client_stalled'
  | 'timeout'
  | 'rejected'
  | 'revoked'
  | 'shutdown';

/** What a client may name is kept up to this length. */
const longestName = 200;

/** A name that a client or an upstream chose, as records keep it. */
export const shortName = (name: string): string =>
  name.length > longestName ? `${name.slice(0, longestName)}…`.toWellFormed() : name;

/** Who is asking. */
export interface Caller {
  /** What queueing is fair between: the key, else the address. */
  readonly id: string;
  readonly address: string;
  /** Row id of the API key; undefined for the administrator's key and for anonymous callers. */
  readonly keyId?: number;
  /** What its owner called it. */
  readonly keyName?: string;
  /** The first characters of the key, fit for logs. */
  readonly keyPrefix?: string;
  /** What the API key allows. */
  readonly key?: GatewayKey;
}

/** The path that was called, as a fixed word. */
export type Endpoint =
  | '/api/llm/chat'
  | '/api/llm/completions'
  | '/api/llm/embeddings'
  | '/v1/chat/completions'
  | '/v1/completions'
  | '/v1/embeddings';

/** How far one limit is used up. */
export interface Quota {
  readonly limit: number;
  readonly remaining: number;
  /** Until the whole limit is there again. Milliseconds. */
  readonly resetMs: number;
}

/** How a caller stood with its limits when its call was counted; what is not limited is undefined. */
export interface Quotas {
  readonly requests: Quota | undefined;
  /** Of the minute, or where only the day is limited, of the day. */
  readonly tokens: Quota | undefined;
}

/** One try of a call on one route. Times in milliseconds since the call's start. */
export interface Try {
  readonly provider: string;
  readonly upstreamModel: string;
  readonly startedMs: number;
  /** What the call had waited in queues by then. */
  readonly queuedMs: number;
  endedMs: number | undefined;
  /** The HTTP status of the upstream's answer, if one came. */
  upstreamStatus: number | undefined;
  error: GatewayError | undefined;
}

/** What runs on somewhere else until it is ended. */
interface Destroyable {
  /** Whether the upstream has the request. */
  readonly sent: boolean;
  destroy(): void;
}

const nothing: readonly string[] = [];

/** What is held for a call and can be let go before its end. */
export interface Hold {
  /** Without effect after the first time. */
  release(): void;
}

/** The facts of one call, filled in while it runs and read once at its end. Times in milliseconds. */
export class Call {
  readonly requestId: string;
  readonly caller: Caller;
  readonly endpoint: Endpoint;
  readonly startedAt = Date.now();
  readonly #start = performance.now();
  #totalMs: number | undefined;
  #controller: AbortController | undefined;
  #stopped = false;
  #running: Destroyable | undefined;
  model = '';
  user: string | undefined;
  stream = false;
  /** The route in use, or the last one that was tried. */
  provider: string | undefined;
  /** The upstream's name for the model that answers, as far as it is known. */
  upstreamModel: string | undefined;
  /** What that route goes without, though the caller asked for it; by the caller's names. */
  ignored: readonly string[] = nothing;
  /** In their order; the last one may still run. */
  tries: readonly Try[] = [];
  /** What every upstream request of this call carries beside the adapter's own headers. */
  upstreamHeaders: Readonly<Record<string, string>> | undefined;
  /** Gateways on the way of its upstream requests, this one included. */
  hops = 1;
  queuedMs = 0;
  firstTokenMs: number | undefined;
  usage: Usage | null = null;
  reasoningTokens: number | undefined;
  /** The upstream's own word for how its answer ended, null where it has none. */
  finishWord: string | null = null;
  /** Roughly what its prompt has; undefined until it is admitted. */
  promptTokens: number | undefined;
  /** Text, reasoning and arguments that came, in bytes; of a whole answer only where the upstream counted no tokens. */
  answerBytes = 0;
  #sent = false;
  /** Names the chat that the upstream stored, if it did. */
  responseId: string | undefined;
  ending: Ending | undefined;
  error: GatewayError | undefined;
  /** What the caller's limits have set aside for it; undefined while it counts for none. */
  reservedTokens: number | undefined;
  /** Set once the call was counted, if anything is. */
  quotas: Quotas | undefined;
  /** What the body of its request holds; it is let go with the request. */
  body: Hold | undefined;
  /** Where the list of running calls has it. */
  seat = 0;
  /** See `admitOnce`. */
  admit: ((request: GenerationRequest | EmbeddingRequest) => void) | undefined;

  constructor(requestId: string, caller: Caller, endpoint: Endpoint) {
    this.requestId = requestId;
    this.caller = caller;
    this.endpoint = endpoint;
  }

  /** Whether the call was stopped from outside: the client left or stalled, its key is good no more, or the process ends. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** What is destroyed when the call is stopped, at once if it is: one thing at a time, and undefined when that is over. */
  set running(running: Destroyable | undefined) {
    this.#sent = this.sent;
    this.#running = running;
    if (this.#stopped) running?.destroy();
  }

  /** Whether an upstream has, or had, the request of the last try. */
  get sent(): boolean {
    return this.#sent || this.#running?.sent === true;
  }

  /** For waits that want one; made when asked for, since an AbortController costs 10 us. One per call, never shared. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#stopped) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  /** From the start till now, or till the end of the response. */
  get elapsedMs(): number {
    return this.#totalMs ?? performance.now() - this.#start;
  }

  /** The response is over: all who record the call read the same time. */
  close(): void {
    this.#totalMs ??= this.elapsedMs;
  }

  get attempts(): number {
    return this.tries.length;
  }

  /** What the tries have taken so far, with the waits between them but not those in a queue. */
  get tryingMs(): number {
    const [first] = this.tries;
    if (first === undefined) return 0;
    return this.elapsedMs - first.startedMs - (this.queuedMs - first.queuedMs);
  }

  startTry(provider: string, upstreamModel: string, ignored: readonly string[] = nothing): Try {
    this.ignored = ignored;
    this.provider = provider;
    this.upstreamModel = upstreamModel;
    // What a failed try reported is not this one's.
    this.usage = null;
    this.reasoningTokens = undefined;
    this.firstTokenMs = undefined;
    this.answerBytes = 0;
    this.#sent = false;
    const tried: Try = {
      provider,
      upstreamModel,
      startedMs: this.elapsedMs,
      queuedMs: this.queuedMs,
      endedMs: undefined,
      upstreamStatus: undefined,
      error: undefined,
    };
    // Not pushed: an array that grows makes room for seventeen, and nearly all calls have one try.
    this.tries = this.tries.length === 0 ? [tried] : [...this.tries, tried];
    return tried;
  }

  /**
   * Asks whether the caller may use the model that was asked for, and now. Who asks is forgotten then: it refers to the HTTP request,
   * and the answer may stream for hours.
   * @throws GatewayError FORBIDDEN or RATE_LIMITED
   */
  admitOnce(request: GenerationRequest | EmbeddingRequest): void {
    const { admit } = this;
    this.admit = undefined;
    admit?.(request);
  }

  /** Stops the call. The first reason counts; a call that has ended stays as it ended. */
  stop(ending: 'client_gone' | 'client_stalled' | 'revoked' | 'shutdown'): void {
    if (this.ending !== undefined || this.#stopped) return;
    this.ending = ending;
    this.#stopped = true;
    this.#controller?.abort();
    this.#running?.destroy();
  }

  /** Notes how the call ended, unless that is known already. */
  end(ending: Ending, error?: GatewayError): void {
    this.ending ??= ending;
    this.error ??= error;
  }
}
