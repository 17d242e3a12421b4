/**
 * Every server with `/chat/completions` as OpenAI defined it: OpenAI, DeepSeek, OpenRouter, llama.cpp, vLLM, Ollama and the
 * rest. Where they differ it takes all of their forms; no server is told from another.
 * Wire: https://platform.openai.com/docs/api-reference/chat.
 */
import { z } from 'zod';
import type {
  EmbeddingAdapter,
  Listing,
  ModelInfo,
  ProviderAdapter,
  ProviderKind,
  Target,
} from '../chat/adapter.ts';
import type { GatewayError, Lesson } from '../chat/errors.ts';
import type {
  ChatRequest,
  CompletionRequest,
  GenerationRequest,
  ParameterName,
  Parameters,
  Reasoning,
} from '../chat/request.ts';
import {
  blindToImage,
  embeddingCall,
  getCall,
  jsonCall,
  pick,
  refuseOthers,
  toolsByRequired,
  unsupported,
  wireMessages,
  wireResponseFormat,
} from './openai-request.ts';
import { chunkDecoder, decodeCompletion, decodeEmbeddingList, type WireOptions } from './openai-wire.ts';
import { answerFailure, type Verdict, type WireError } from './wire-errors.ts';

/**
 * Sent under the name that the unified API has for them. OpenAI itself has no `top_k` and `min_p`, but nearly every
 * local server does, under these names: they are sent, and a server that lacks them answers with a 400 that says so.
 */
const samplingNames = [
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'max_tokens',
  'stop',
  'seed',
  'presence_penalty',
  'frequency_penalty',
  'logit_bias',
] as const satisfies readonly ParameterName[];

const chatNames = [
  ...samplingNames,
  'logprobs',
  'top_logprobs',
  'parallel_tool_calls',
] as const satisfies readonly ParameterName[];

const honouredNames: Readonly<Record<GenerationRequest['kind'], ReadonlySet<string>>> = {
  chat: new Set([...chatNames, 'repeat_penalty', 'tools', 'tool_choice', 'response_format', 'reasoning']),
  completion: new Set([...samplingNames, 'repeat_penalty']),
};

/** llama.cpp and LM Studio have the one name, vLLM and SGLang the other, and each ignores what it does not know. */
const repetition = ({ repeat_penalty }: Parameters): object =>
  repeat_penalty === undefined ? {} : { repeat_penalty, repetition_penalty: repeat_penalty };

/** `reasoning` in OpenAI's words; it has none for "on, as much as you like". */
const efforts: Readonly<Record<Exclude<Reasoning, 'on'>, string>> = {
  off: 'none',
  low: 'low',
  medium: 'medium',
  high: 'high',
};

function refuse(request: GenerationRequest, target: Target): GatewayError | undefined {
  const { parameters } = request;
  const refused = refuseOthers(parameters, honouredNames[request.kind], target);
  if (refused !== undefined) return refused;
  if (parameters.reasoning === 'on') {
    return unsupported(target, 'reasoning', '值 on, 可用 off, low, medium 或 high');
  }
  return blindToImage(request, target);
}

/** Usage in streams comes only to those who ask; some servers refuse the question. */
const streaming = (stream: boolean, { learnt }: Target): object =>
  stream && learnt?.has('no_stream_options') !== true
    ? { stream, stream_options: { include_usage: true } }
    : { stream };

/** OpenAI's newer models take the length limit under its newer name alone, most other servers under the older one. */
function lengthLimit({ max_tokens }: Parameters, { learnt }: Target): object {
  if (max_tokens === undefined || learnt?.has('max_completion_tokens') !== true) return {};
  return { max_tokens: undefined, max_completion_tokens: max_tokens };
}

function chat(request: ChatRequest, target: Target) {
  const { parameters, stream, extra } = request;
  const { response_format, reasoning } = parameters;
  const body = {
    model: target.model,
    messages: wireMessages(request.messages, true),
    ...pick(parameters, chatNames),
    ...repetition(parameters),
    ...lengthLimit(parameters, target),
    // OpenAI itself takes names too, but LM Studio refuses them here, llama.cpp and Ollama do not look at them.
    ...toolsByRequired(parameters),
    ...(response_format === undefined ? {} : { response_format: wireResponseFormat(response_format) }),
    ...(reasoning === undefined || reasoning === 'on' ? {} : { reasoning_effort: efforts[reasoning] }),
    ...streaming(stream, target),
    ...extra,
  };
  return jsonCall('/chat/completions', body, target.apiKey, stream);
}

function completion(request: CompletionRequest, target: Target) {
  const { parameters, prompt, stream, extra } = request;
  const body = {
    model: target.model,
    prompt,
    ...pick(parameters, samplingNames),
    ...repetition(parameters),
    ...streaming(stream, target),
    ...extra,
  };
  return jsonCall('/completions', body, target.apiKey, stream);
}

/** What a refusal of something that this gateway adds, or names, teaches. */
function lessonOf({ words }: WireError, status: number | undefined): Lesson | undefined {
  if (status !== 400 && status !== 422) return undefined;
  if (/\bstream_options\b/.test(words)) return 'no_stream_options';
  return /\bmax_tokens\b/.test(words) && /\bmax_completion_tokens\b/.test(words)
    ? 'max_completion_tokens'
    : undefined;
}

/** What the codes that these servers share tell beyond the HTTP status. */
function classify(error: WireError, status: number | undefined): Verdict | undefined {
  const code = error.code ?? '';
  // OpenAI's 429 for an account without credit: no later try will do better.
  if (code === 'insufficient_quota' || error.type === 'insufficient_quota') {
    return { reason: 'quota', retryable: false };
  }
  if (/^content_(?:filter|policy_violation)$/.test(code)) return { status: 400, reason: 'content_filter' };
  const lesson = lessonOf(error, status);
  if (lesson !== undefined) return { reason: lesson };
  // llama.cpp and vLLM write the HTTP status into errors that come inside a stream.
  return status === undefined && /^[45]\d\d$/.test(code) ? { status: Number(code) } : undefined;
}

const wireOptions = (request: GenerationRequest, target: Target): WireOptions => ({
  target,
  unseen: blindToImage(request, target),
  // Some servers ignore it.
  firstCallOnly: request.parameters.parallel_tool_calls === false,
  classify,
  speaksOpenAI: true,
});

export const chatCompletions: ProviderAdapter & Required<Pick<ProviderAdapter, 'completion'>> = {
  name: 'openai-compatible',
  refuse,
  chat,
  completion,
  decodeResult: (body, request, target) => decodeCompletion(body, wireOptions(request, target)),
  decoder: (request, target) => chunkDecoder(wireOptions(request, target)),
  decodeError: (answer, target) => answerFailure(answer, { target, classify, speaksOpenAI: true }),
};

/** OpenAI's own limit; smaller ones are the server's to name. */
const mostInputs = 2048;

const embeddings: EmbeddingAdapter = {
  name: 'openai-compatible',
  refuse: () => undefined,
  batchLimit: () => mostInputs,
  embed: embeddingCall,
  decodeEmbeddings: (body, target) => decodeEmbeddingList(body, { target, classify, speaksOpenAI: true }),
  decodeError: (answer, target) => answerFailure(answer, { target, classify, speaksOpenAI: true }),
};

const text = z.string().nullish().catch(undefined);
const count = z.number().positive().nullish().catch(undefined);
const words = z.array(z.string()).nullish().catch(undefined);

const namesOfTruths = (truths: Readonly<Record<string, unknown>>): string[] =>
  Object.keys(truths).filter((name) => truths[name] === true);

const listedModel = z.object({
  id: z.string().min(1),
  type: text,
  owned_by: text,
  /** vLLM */
  max_model_len: count,
  /** OpenRouter, Together */
  context_length: count,
  /** Mistral, LM Studio */
  max_context_length: count,
  /** llama.cpp */
  meta: z.object({ n_ctx_train: count }).nullish().catch(undefined),
  /** llama.cpp with several models */
  status: z.object({ value: text }).nullish().catch(undefined),
  /** OpenRouter */
  architecture: z.object({ input_modalities: words }).nullish().catch(undefined),
  /** A list of words here, in another gateway of this kind; Mistral's is an object of truths. */
  capabilities: z
    .union([z.array(z.string()), z.record(z.string(), z.unknown()).transform(namesOfTruths)])
    .nullish()
    .catch(undefined),
  /** OpenRouter */
  supported_parameters: words,
});

type ListedModel = z.output<typeof listedModel>;

/** llama.cpp's second list beside `data`, which alone names what a model can do. */
const capable = z.object({ name: text, model: text, capabilities: words });

// Ollama without a model says `data: null`; Together leaves the envelope away.
const modelList = z.union([
  z.object({
    data: z.array(z.unknown()).nullable(),
    models: z.array(z.unknown()).nullish().catch(undefined),
  }),
  z.array(z.unknown()).transform((data) => ({ data, models: undefined })),
]);

/** Models by name, where the list does not tell their type. */
const embeddingName = /embed|(?:^|[/-])(?:bge|gte|e5|minilm)-/i;
/** What OpenAI and others list but no endpoint of this gateway can call. */
const otherName =
  /^(?:whisper|tts-|dall-e|gpt-image|chatgpt-image|sora|omni-moderation|text-moderation)|-(?:tts|transcribe|realtime)\b|rerank/i;

const otherType = /^(?:image|audio|video|moderation|rerank|transcri)/;

function parseEach<T>(list: readonly unknown[], schema: z.ZodType<T>): T[] {
  return list.flatMap((item) => schema.safeParse(item).data ?? []);
}

function stateOf(status: string | null | undefined): ModelInfo['state'] {
  if (status === 'loaded') return 'loaded';
  return status === 'unloaded' ? 'not-loaded' : 'unknown';
}

/** What lists call the use of tools, and thinking. */
const toolWords = ['tool_use', 'tools', 'function_calling', 'tool_calling'];
const thinkingWords = ['reasoning', 'thinking'];

function describe(model: ListedModel, capabilities: readonly string[] | undefined): ModelInfo {
  const { type, owned_by, max_model_len, context_length, max_context_length, meta, architecture } = model;
  const length = max_model_len ?? context_length ?? max_context_length ?? meta?.n_ctx_train;
  const modalities = architecture?.input_modalities;
  const told = [
    ...(model.capabilities ?? []),
    ...(model.supported_parameters ?? []),
    ...(capabilities ?? []),
  ];
  const sees = told.includes('vision') || told.includes('multimodal');
  const vision = modalities ? modalities.includes('image') : sees || (capabilities ? false : undefined);
  const toolUse = toolWords.some((word) => told.includes(word));
  const thinks = thinkingWords.some((word) => told.includes(word));
  const embeds = type ? type.startsWith('embedding') : embeddingName.test(model.id);
  return {
    id: model.id,
    type: embeds ? 'embedding' : 'llm',
    state: stateOf(model.status?.value),
    ...(owned_by ? { publisher: owned_by } : {}),
    ...(length ? { maxContextLength: length } : {}),
    ...(vision === undefined || embeds ? {} : { vision }),
    ...(toolUse && !embeds ? { toolUse } : {}),
    ...(thinks && !embeds ? { reasoningOptions: Object.keys(efforts) } : {}),
  };
}

const listing: Listing = {
  apis: ['openai'],
  call: (apiKey) => getCall('/models', apiKey),
  decode(body) {
    const list = modelList.safeParse(body).data;
    if (list === undefined) return undefined;
    const abilities = new Map<string, readonly string[]>();
    for (const { name, model, capabilities } of parseEach(list.models ?? [], capable)) {
      const id = model ?? name;
      if (id && capabilities) abilities.set(id, capabilities);
    }
    return parseEach(list.data ?? [], listedModel)
      .filter(({ id, type }) => !otherName.test(id) && !otherType.test(type ?? ''))
      .map((model) => describe(model, abilities.get(model.id)));
  },
};

/** Keeps the path as it was given (`/v1`, `/api/v3`, …): only the caller knows it. Trims what call paths bring along. */
const normalizeBaseUrl = (url: string): string =>
  url.replace(/\/+$/, '').replace(/(?:\/(?:chat\/completions|completions|embeddings|models))+\/*$/, '');

/** Any OpenAI-compatible server. */
export const openaiCompatible: ProviderKind = {
  kind: 'openai',
  displayName: 'OpenAI 兼容服务',
  credential: 'optional',
  normalizeBaseUrl,
  listings: [listing],
  discovers: true,
  apis: [],
  adapterFor: () => chatCompletions,
  embeddings,
  slots: () => undefined,
  abortGraceMs: 0,
};
