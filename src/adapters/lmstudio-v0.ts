/**
 * LM Studio's REST API v0: OpenAI's chat and text completions with statistics. Knows nothing of v1.
 * Wire: https://lmstudio.ai/docs/developer/rest/endpoints.
 */
import type { ProviderAdapter, Target } from '../chat/adapter.ts';
import { type GatewayError, invalidMessage } from '../chat/errors.ts';
import type { FinishReason } from '../chat/events.ts';
import type {
  ChatRequest,
  CompletionRequest,
  GenerationRequest,
  ParameterName,
  ResponseFormat,
} from '../chat/request.ts';
import {
  blindToImage,
  imagesOf,
  jsonCall,
  pick,
  refuseOthers,
  toolsByRequired,
  wireMessages,
  wireResponseFormat,
} from './openai-request.ts';
import { chunkDecoder, decodeCompletion, stoppedError, type WireOptions } from './openai-wire.ts';
import { answerFailure, type ErrorContext } from './wire-errors.ts';

/** Sent under the name that the unified API has for them. */
const samplingNames = [
  'temperature',
  'top_p',
  'top_k',
  'max_tokens',
  'stop',
  'presence_penalty',
  'frequency_penalty',
  'logit_bias',
  'repeat_penalty',
  'seed',
  'ttl',
  'draft_model',
] as const satisfies readonly ParameterName[];

const completionParameters: ReadonlySet<string> = new Set(samplingNames);
const chatParameters: ReadonlySet<string> = new Set([
  ...samplingNames,
  'tools',
  'tool_choice',
  'parallel_tool_calls',
  'response_format',
]);

/** LM Studio decodes pictures of these two formats only, and fetches none (bug tracker 1752, 1120). */
const acceptedImage = /^data:image\/(?:png|jpe?g);base64,./i;

/** The first picture in the request that LM Studio would refuse, on v0 and v1 alike. */
export function refuseImages(request: GenerationRequest, target: Target): GatewayError | undefined {
  const refused = imagesOf(request).find((image) => !acceptedImage.test(image.url));
  if (refused === undefined) return undefined;
  return invalidMessage(
    refused.where,
    `${target.displayName}(${target.provider}) 只支持 base64 编码的 PNG 或 JPEG 图片 (data:image/png;base64,…)`,
  );
}

function refuse(request: GenerationRequest, target: Target): GatewayError | undefined {
  const { parameters } = request;
  const honoured = request.kind === 'chat' ? chatParameters : completionParameters;
  const refused = refuseOthers(parameters, honoured, target);
  if (refused !== undefined) return refused;
  return refuseImages(request, target);
}

/** `json_object` is a 400 here (bug tracker 1773); a schema that any object satisfies is the same wish. */
function answerFormat(format: ResponseFormat): object {
  if (format.type !== 'json_object') return wireResponseFormat(format);
  return { type: 'json_schema', json_schema: { name: 'json_object', schema: { type: 'object' } } };
}

/** Usage in streams comes only to those who ask (0.3.18 and later). */
const streaming = (stream: boolean): object =>
  stream ? { stream, stream_options: { include_usage: true } } : { stream };

function chat(request: ChatRequest, target: Target) {
  const { parameters, stream, extra } = request;
  const { response_format } = parameters;
  const body = {
    model: target.model,
    messages: wireMessages(request.messages, false),
    ...pick(parameters, samplingNames),
    // It has no `parallel_tool_calls` and lets a model call several tools at once: where one was asked for, the decoder keeps the first.
    ...toolsByRequired(parameters),
    ...(response_format === undefined ? {} : { response_format: answerFormat(response_format) }),
    ...streaming(stream),
    ...extra,
  };
  return jsonCall('/api/v0/chat/completions', body, target.apiKey, stream);
}

function completion(request: CompletionRequest, target: Target) {
  const { parameters, prompt, stream, extra } = request;
  const body = {
    model: target.model,
    prompt,
    ...pick(parameters, samplingNames),
    ...streaming(stream),
    ...extra,
  };
  return jsonCall('/api/v0/completions', body, target.apiKey, stream);
}

/** What `stats.stop_reason` says over finish_reason: an answer that somebody stopped, or that did not fit. */
function stopReason(word: string, context: ErrorContext): FinishReason | GatewayError | undefined {
  switch (word) {
    case 'modelUnloaded':
    case 'failed':
    case 'userStopped':
      return stoppedError(context, word);
    case 'contextLengthReached':
    case 'maxPredictedTokensReached':
      return 'length';
    default:
      return undefined;
  }
}

function wireOptions(request: GenerationRequest, target: Target): WireOptions {
  return {
    target,
    unseen: blindToImage(request, target),
    firstCallOnly: request.parameters.parallel_tool_calls === false,
    stopReason,
  };
}

export const lmstudioV0: ProviderAdapter & Required<Pick<ProviderAdapter, 'completion'>> = {
  name: 'lmstudio-v0',
  refuse,
  chat,
  completion,
  decodeResult: (body, request, target) => decodeCompletion(body, wireOptions(request, target)),
  decoder: (request, target) => chunkDecoder(wireOptions(request, target)),
  decodeError: (answer, target) => answerFailure(answer, { target }),
};
