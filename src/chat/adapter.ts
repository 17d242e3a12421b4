/** What the engine knows of a provider: the interfaces that adapters implement. Pure: no I/O, no clock, no logger. */
import type { GatewayError, Lesson } from './errors.ts';
import type { ChatEvent, ChatResult, Usage } from './events.ts';
import type { ChatRequest, CompletionRequest, EmbeddingRequest, GenerationRequest } from './request.ts';

/** One HTTP request to an upstream, as data. */
export interface UpstreamCall {
  readonly method: 'GET' | 'POST';
  /** Path and query, appended to the provider's base URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Whether the answer is expected as server-sent events. */
  readonly stream: boolean;
}

/** What a provider's model list said of one model. Absent members were not told. */
export interface ModelInfo {
  /** The name to call it by. */
  readonly id: string;
  readonly type: 'llm' | 'embedding';
  readonly displayName?: string;
  readonly description?: string;
  readonly publisher?: string;
  readonly architecture?: string;
  readonly quantization?: string;
  /** `gguf`, `mlx`, … */
  readonly format?: string;
  /** e.g. `7B` */
  readonly parameterCount?: string;
  readonly maxContextLength?: number;
  readonly state: 'loaded' | 'not-loaded' | 'unknown';
  /** Ids of the loaded copies; a v1 answer names one of them. */
  readonly instances?: readonly LoadedInstance[];
  readonly vision?: boolean;
  readonly toolUse?: boolean;
  /** The `reasoning` settings that the model accepts, where the list tells. */
  readonly reasoningOptions?: readonly string[];
}

export interface LoadedInstance {
  readonly id: string;
  /** Tokens */
  readonly contextLength?: number;
  /** Requests that run at once; the rest waits inside the upstream. */
  readonly parallel?: number;
}

/** Where and as what a request goes: what an adapter may know of the route that was chosen. */
export interface Target {
  /** The provider's key in the catalog, `[a-z0-9-]+`. */
  readonly provider: string;
  readonly displayName: string;
  /** The model's name at the upstream. */
  readonly model: string;
  readonly apiKey: string | undefined;
  /** The wires that discovery found, e.g. `['v0','v1']`; undefined as long as the provider never answered. */
  readonly apis: readonly string[] | undefined;
  /** The route's own choice among them; `auto` leaves it to the kind. */
  readonly api: string;
  /** What the last model list said of this model. */
  readonly info: ModelInfo | undefined;
  /** The fields beside the gateway's own that go there as they came; see passthrough.ts. */
  readonly passthrough?: readonly string[];
  /** What the upstream's refusals taught about how this model must be asked. */
  readonly learnt?: ReadonlySet<Lesson>;
}

/** A server-sent event. `event` is `message` unless the upstream named it. */
export interface Frame {
  readonly event: string;
  readonly data: string;
}

export interface UpstreamAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly retryAfterSeconds: number | undefined;
}

/** Turns one stream's frames into events. Holds that stream's state; made fresh for each. */
export interface StreamDecoder {
  /** After a terminal event it returns nothing more. */
  push(frame: Frame): readonly ChatEvent[];
  /** The upstream ended the body cleanly. Without a finish before, that is an error event. */
  end(): readonly ChatEvent[];
  /**
   * `open`: text may come. `settled`: the upstream said that it finished, only usage may follow, and it is not waited
   * for long. `done`: a terminal event was returned.
   */
  readonly phase: 'open' | 'settled' | 'done';
}

/** One wire protocol: a pure translator between the canonical request and events, and an upstream's bytes. */
export interface ProviderAdapter {
  /** e.g. `lmstudio-v0` */
  readonly name: string;
  /**
   * The first thing in the request that this wire cannot carry to this target, as the error to answer with (INVALID_PARAMS
   * or INVALID_MESSAGES that names the parameter or message and the provider); undefined where all of it fits.
   */
  refuse(request: GenerationRequest, target: Target): GatewayError | undefined;
  /** @throws nothing that `refuse` did not tell first */
  chat(request: ChatRequest, target: Target): UpstreamCall;
  completion?(request: CompletionRequest, target: Target): UpstreamCall;
  /** A 2xx JSON body as an answer. @throws GatewayError where the body is an error, empty or malformed */
  decodeResult(body: unknown, request: GenerationRequest, target: Target): ChatResult;
  decoder(request: GenerationRequest, target: Target): StreamDecoder;
  /** Any answer that is not a 2xx of the expected kind. */
  decodeError(answer: UpstreamAnswer, target: Target): GatewayError;
}

export interface EmbeddingResult {
  readonly model?: string;
  /** In the order of the inputs. */
  readonly embeddings: readonly (readonly number[])[];
  readonly usage: Usage | null;
}

/** The embeddings wire of a provider kind. */
export interface EmbeddingAdapter {
  readonly name: string;
  refuse(request: EmbeddingRequest, target: Target): GatewayError | undefined;
  /** Most inputs that one upstream call may hold; the engine splits what is longer. */
  batchLimit(target: Target): number;
  embed(request: EmbeddingRequest, target: Target): UpstreamCall;
  /** @throws GatewayError */
  decodeEmbeddings(body: unknown, target: Target): EmbeddingResult;
  decodeError(answer: UpstreamAnswer, target: Target): GatewayError;
}

/** One way to ask a provider for its models. */
export interface Listing {
  /** The wires that a server which answers this has. */
  readonly apis: readonly string[];
  call(apiKey: string | undefined): UpstreamCall;
  /** The models, or undefined where the body is no model list (LM Studio answers unknown paths with 200). */
  decode(body: unknown): readonly ModelInfo[] | undefined;
}

export interface LoadWish {
  readonly model: string;
  /** Tokens; the provider's own choice where it is left out. */
  readonly contextLength?: number;
}

export interface LoadedModel {
  readonly instanceId: string;
  readonly loadSeconds?: number;
  /** Tokens */
  readonly contextLength?: number;
  readonly parallel?: number;
}

export interface DownloadWish {
  readonly model: string;
  /** e.g. `Q4_K_M`, for a model that comes in several. */
  readonly quantization?: string;
}

export interface Download {
  /** Asks for news of it; absent where there is nothing to wait for. */
  readonly jobId?: string;
  readonly status: 'downloading' | 'paused' | 'completed' | 'failed' | 'already_downloaded';
  readonly totalBytes?: number;
  readonly downloadedBytes?: number;
  readonly bytesPerSecond?: number;
}

/** What the provider made of an order, or its own words for why not: unfiltered, maybe empty. */
export type OrderOutcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly words: string };

/** Orders to a provider that runs models itself: what its memory and its disk hold. Pure, like the adapters. */
export interface ProviderControl {
  load(wish: LoadWish, apiKey: string | undefined): UpstreamCall;
  decodeLoad(answer: UpstreamAnswer): OrderOutcome<LoadedModel>;
  unload(instanceId: string, apiKey: string | undefined): UpstreamCall;
  decodeUnload(answer: UpstreamAnswer): OrderOutcome<string>;
  download(wish: DownloadWish, apiKey: string | undefined): UpstreamCall;
  downloadStatus(jobId: string, apiKey: string | undefined): UpstreamCall;
  decodeDownload(answer: UpstreamAnswer): OrderOutcome<Download>;
}

/** What operators are told to do, in English clauses that begin with a verb. */
export interface OperatorAdvice {
  /** Nothing listens at the address. */
  readonly start: string;
  /** The server lacks wires that its newer versions have. */
  readonly update?: string;
  /** Where a key comes from. */
  readonly key?: string;
}

/** What a provider is and can; the registry has one per kind, and no shared code asks for a kind's name. */
export interface ProviderKind {
  readonly kind: string;
  /** For error messages, where the provider's row has no name of its own. */
  readonly displayName: string;
  /** Whether the provider can be called without a key. */
  readonly credential: 'required' | 'optional';
  /** Brings a configured base URL into the form that call paths are appended to. Idempotent. */
  normalizeBaseUrl(url: string): string;
  /** Tried in order; the first that decodes is the answer. Never loads a model and never spends a token. */
  readonly listings: readonly Listing[];
  /** Whether models that the list names enter the catalog by themselves. */
  readonly discovers: boolean;
  /** The names a route's `api` may take beside `auto`. */
  readonly apis: readonly string[];
  /** The wire for this request. @throws GatewayError naming what stands in the way */
  adapterFor(request: GenerationRequest, target: Target): ProviderAdapter;
  readonly embeddings?: EmbeddingAdapter;
  /** Present where operators can load and download models through the provider. */
  readonly control?: ProviderControl;
  readonly advice?: OperatorAdvice;
  /** Requests that the upstream runs at once for a model, by what discovery told; undefined = no limit. */
  slots(info: ModelInfo | undefined): number | undefined;
  /** How long an aborted call keeps its slot if the upstream had sent no event yet. Milliseconds. */
  readonly abortGraceMs: number;
}
