/**
 * Alibaba's Bailian (百炼, Model Studio) in its OpenAI-compatible mode. What its models can do is data in qwen-models, how
 * it fails is in bailian-errors.
 * Wire: https://help.aliyun.com/zh/model-studio/qwen-api-reference.
 */
import { z } from 'zod';
import type {
  EmbeddingAdapter,
  Listing,
  ProviderAdapter,
  ProviderKind,
  StreamDecoder,
  Target,
} from '../chat/adapter.ts';
import { type GatewayError, invalidMessage, invalidParameter } from '../chat/errors.ts';
import type { ChatEvent, Usage } from '../chat/events.ts';
import type { ChatRequest, GenerationRequest, Message, ParameterName, Parameters } from '../chat/request.ts';
import { classify, compatible, isForeign } from './bailian-errors.ts';
import {
  blindToImage,
  embeddingCall,
  getCall,
  imagesOf,
  jsonCall,
  pick,
  present,
  refuseOthers,
  unsupported,
  wirePart,
  wireResponseFormat,
  wireTools,
} from './openai-request.ts';
import { chunkDecoder, decodeCompletion, decodeEmbeddingList, type WireOptions } from './openai-wire.ts';
import { type EmbeddingFamily, embeddingFamily, type QwenFamily, qwenFamily } from './qwen-models.ts';
import { answerFailure, parseJson } from './wire-errors.ts';

/** Sent under the name that the unified API has for them. */
const sharedNames = [
  'temperature',
  'top_p',
  'top_k',
  'stop',
  'seed',
  'presence_penalty',
  'logprobs',
  'top_logprobs',
  'tool_choice',
] as const satisfies readonly ParameterName[];

/** Frequency penalty, logit bias and min_p are in no version of the platform's reference. */
const honoured: ReadonlySet<string> = new Set([
  ...sharedNames,
  'max_tokens',
  'repeat_penalty',
  'tools',
  'parallel_tool_calls',
  'response_format',
  'reasoning',
]);

const largestSeed = 2 ** 31 - 1;
const mostTopLogprobs = 5;

/** What the platform takes as a picture: an address that it fetches itself, or the bytes. */
const acceptedImage = /^(?:https?:\/\/|data:[^,]{1,100};base64,)./i;

const named = (target: Target): string => `${target.displayName}(${target.provider}) 的模型 ${target.model}`;

function refuseRanges(parameters: Parameters, family: QwenFamily, target: Target): GatewayError | undefined {
  const { temperature, top_p, seed, logprobs, top_logprobs, tool_choice } = parameters;
  const range = (name: string, allowed: string): GatewayError =>
    unsupported(target, name, `此值, 可用 ${allowed}`);
  if (temperature !== undefined && !(temperature >= 0 && temperature < 2))
    return range('temperature', '[0, 2)');
  if (top_p !== undefined && !(top_p > 0 && top_p <= 1)) return range('top_p', '(0, 1]');
  if (seed !== undefined && !(seed >= 0 && seed <= largestSeed)) return range('seed', `[0, ${largestSeed}]`);
  if (tool_choice === 'required') return range('tool_choice', 'none, auto 或指定函数');
  if (logprobs && !family.logprobs) return invalidParameter('logprobs', `${named(target)} 不支持此参数`);
  if (top_logprobs !== undefined && top_logprobs > mostTopLogprobs) {
    return range('top_logprobs', `[0, ${mostTopLogprobs}]`);
  }
  return undefined;
}

/** JSON mode and a forced tool are refused by the platform while a model thinks. */
function conflictsWithThinking(parameters: Parameters): 'response_format' | 'tool_choice' | undefined {
  if (parameters.response_format?.type === 'json_object') return 'response_format';
  return typeof parameters.tool_choice === 'object' ? 'tool_choice' : undefined;
}

function refuseThinking(
  parameters: Parameters,
  family: QwenFamily,
  target: Target,
): GatewayError | undefined {
  const { reasoning } = parameters;
  const refused = (why: string): GatewayError => invalidParameter('reasoning', `${named(target)} ${why}`);
  if (reasoning !== undefined && reasoning !== 'off') {
    if (family.thinking === 'none') return refused('不支持思考');
    if (reasoning !== 'on' && family.effort === undefined) return refused('不支持设置思考强度, 可用 on');
  }
  if (reasoning === 'off' && family.thinking === 'only') return refused('不能关闭思考');
  const asked = reasoning !== undefined && reasoning !== 'off' && family.thinking !== 'unknown';
  const conflict = asked || family.thinking === 'only' ? conflictsWithThinking(parameters) : undefined;
  return conflict === undefined
    ? undefined
    : invalidParameter(conflict, `${named(target)} 在思考模式下不支持此值`);
}

function refuseImages(
  request: GenerationRequest,
  family: QwenFamily,
  target: Target,
): GatewayError | undefined {
  for (const { where, url } of imagesOf(request)) {
    if (!family.vision) return invalidMessage(where, `${named(target)} 不支持图片`);
    if (!acceptedImage.test(url)) {
      return invalidMessage(
        where,
        `${target.displayName}(${target.provider}) 只支持 http(s) 地址或 base64 图片`,
      );
    }
  }
  return undefined;
}

function refuse(request: GenerationRequest, target: Target): GatewayError | undefined {
  // Its text completions exist for a few coder models only, and are in no reference of this mode.
  if (request.kind === 'completion') return unsupported(target, 'prompt', '文本补全');
  const { parameters } = request;
  const family = qwenFamily(target.model);
  return (
    refuseOthers(parameters, honoured, target) ??
    refuseRanges(parameters, family, target) ??
    refuseThinking(parameters, family, target) ??
    refuseImages(request, family, target)
  );
}

interface ThinkingFields {
  readonly enable_thinking?: boolean;
  readonly thinking_budget?: number;
  readonly reasoning_effort?: string;
}

/**
 * Hybrid models are always told, because their default has changed between generations. Where the caller left it open,
 * a format or tool that the platform refuses while thinking switches thinking off.
 */
function thinkingFields(parameters: Parameters, family: QwenFamily): ThinkingFields {
  const { reasoning } = parameters;
  const switchable = family.thinking !== 'none' && family.thinking !== 'only';
  if (reasoning === undefined) {
    if (!switchable || family.thinking === 'unknown') return {};
    const plain = parameters.response_format !== undefined || conflictsWithThinking(parameters) !== undefined;
    return { enable_thinking: family.thinking === 'hybrid-on' && !plain };
  }
  const spoken = switchable ? { enable_thinking: reasoning !== 'off' } : {};
  if (reasoning === 'off' || reasoning === 'on' || family.effort === undefined) return spoken;
  return { ...spoken, [family.effort.parameter]: family.effort[reasoning] };
}

/** Whether this call has to be streamed, whatever the caller wants. */
function mustStream(family: QwenFamily, thinking: ThinkingFields, target: Target): boolean {
  if (target.learnt?.has('stream_only')) return true;
  return (
    family.streamOnly === 'always' || (family.streamOnly === 'thinking' && thinking.enable_thinking === true)
  );
}

/** Text-only models refuse lists of parts, so text goes as one string wherever it can. */
function wireMessage(message: Message, family: QwenFamily): object {
  const { content } = message;
  const wire = { ...present(message) };
  if (Array.isArray(content)) {
    const texts = content.flatMap((part) => (part.type === 'text' ? [part.text] : []));
    wire['content'] =
      texts.length === content.length ? texts.join('') : content.map((part) => wirePart(part, false));
  }
  if (message.role === 'assistant') {
    wire['content'] ??= '';
    if (!family.preserveThinking) delete wire['reasoning_content'];
  }
  return wire;
}

function chat(request: ChatRequest, target: Target) {
  const { parameters } = request;
  const family = qwenFamily(target.model);
  const thinking = thinkingFields(parameters, family);
  const stream = request.stream || mustStream(family, thinking, target);
  const { max_tokens, repeat_penalty, tools, parallel_tool_calls, response_format } = parameters;
  const lengthLimit = family.maxCompletionTokens ? 'max_completion_tokens' : 'max_tokens';
  const body = {
    model: target.model,
    messages: request.messages.map((message) => wireMessage(message, family)),
    ...pick(parameters, sharedNames),
    ...(max_tokens === undefined ? {} : { [lengthLimit]: max_tokens }),
    ...(repeat_penalty === undefined ? {} : { repetition_penalty: repeat_penalty }),
    // The platform's own default is false, OpenAI's and so every client's is true.
    ...(tools === undefined
      ? {}
      : { tools: wireTools(tools), parallel_tool_calls: parallel_tool_calls ?? true }),
    ...(response_format === undefined ? {} : { response_format: wireResponseFormat(response_format) }),
    ...thinking,
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {}),
    ...request.extra,
  };
  return jsonCall('/chat/completions', body, target.apiKey, stream);
}

const wireOptions = (request: GenerationRequest, target: Target): WireOptions => ({
  target,
  unseen: blindToImage(request, target),
  firstCallOnly: request.parameters.parallel_tool_calls === false,
  classify,
  // A plain call that takes too long (300 s) is cut, and what was generated comes as a 200 without a finish reason.
  finishReason: (raw) => (raw === null ? 'length' : undefined),
});

/**
 * The shared decoder, with foreign frames made readable. A content inspection that strikes after text has gone out ends
 * the answer as filtered, because what was said stands.
 */
function decoder(request: GenerationRequest, target: Target): StreamDecoder {
  const inner = chunkDecoder(wireOptions(request, target));
  let spoke = false;
  let usage: Usage | undefined;

  const filtered = (): ChatEvent[] => [
    ...(usage === undefined ? [] : [{ type: 'usage' as const, usage }]),
    { type: 'finish', reason: 'content_filter', raw: 'data_inspection_failed' },
  ];

  const settle = (events: readonly ChatEvent[]): readonly ChatEvent[] => {
    for (const event of events) {
      if (event.type === 'text' || event.type === 'reasoning' || event.type === 'tool-calls') spoke = true;
      else if (event.type === 'usage') usage = event.usage;
      else if (event.type === 'error' && event.error.reason === 'content_filter' && spoke) {
        return [...events.slice(0, -1), ...filtered()];
      }
    }
    return events;
  };

  return {
    push: (frame) =>
      settle(
        inner.push(
          isForeign(frame.data)
            ? { ...frame, data: JSON.stringify(compatible(parseJson(frame.data))) ?? frame.data }
            : frame,
        ),
      ),
    end: () => inner.end(),
    get phase() {
      return inner.phase;
    },
  };
}

export const compatibleMode: ProviderAdapter = {
  name: 'bailian',
  refuse,
  chat,
  decodeResult: (body, request, target) => decodeCompletion(compatible(body), wireOptions(request, target)),
  decoder,
  decodeError: (answer, target) => answerFailure(answer, { target, classify }),
};

function refuseDimensions(
  dimensions: number,
  family: EmbeddingFamily,
  target: Target,
): GatewayError | undefined {
  if (family.dimensions === 'unchecked') return undefined;
  if (family.dimensions === 'fixed') return invalidParameter('dimensions', `${named(target)} 不支持此参数`);
  if (family.dimensions.includes(dimensions)) return undefined;
  return invalidParameter('dimensions', `${named(target)} 不支持此值, 可用 ${family.dimensions.join(', ')}`);
}

const embeddings: EmbeddingAdapter = {
  name: 'bailian',
  refuse: ({ dimensions }, target) =>
    dimensions === undefined
      ? undefined
      : refuseDimensions(dimensions, embeddingFamily(target.model), target),
  batchLimit: (target) => embeddingFamily(target.model).batchLimit,
  embed: embeddingCall,
  decodeEmbeddings: (body, target) => decodeEmbeddingList(body, { target, classify }),
  decodeError: (answer, target) => answerFailure(answer, { target, classify }),
};

const modelList = z.object({ data: z.array(z.object({ id: z.string().min(1) })) });

/** In no reference, but served on every host; it costs no tokens and needs the key. */
const listing: Listing = {
  apis: ['compatible'],
  call: (apiKey) => getCall('/models', apiKey),
  decode: (body) =>
    modelList.safeParse(body).data?.data.map(({ id }) => ({
      id,
      type: id.includes('embedding') ? 'embedding' : 'llm',
      state: 'unknown',
    })),
};

/**
 * Brings any address of the platform to its compatible mode: a bare region host or workspace domain, the native API's
 * base, or what a client was configured with, endpoint path included.
 */
function normalizeBaseUrl(url: string): string {
  const trimmed = url.replace(/\/+$/, '').replace(/(?:\/(?:chat\/completions|embeddings|models))+\/*$/, '');
  if (/^https?:\/\/[^/]+$/.test(trimmed)) return `${trimmed}/compatible-mode/v1`;
  return trimmed
    .replace(/\/compatible-mode$/, '/compatible-mode/v1')
    .replace(/\/api\/v1$/, '/compatible-mode/v1');
}

/** Bailian on any of its hosts. Keys belong to a region: one of another region's is a plain 401. */
export const bailian: ProviderKind = {
  kind: 'bailian',
  displayName: '百炼平台',
  credential: 'required',
  normalizeBaseUrl,
  listings: [listing],
  // The list names hundreds of models, most of which a key cannot call; the catalog comes seeded instead.
  discovers: false,
  apis: [],
  adapterFor: () => compatibleMode,
  embeddings,
  advice: {
    start: 'see whether this machine reaches the internet',
    key: "get a key in the platform's console; it works in its own region only",
  },
  slots: () => undefined,
  abortGraceMs: 0,
};
