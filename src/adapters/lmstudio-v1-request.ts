/**
 * Requests to LM Studio's own chat API, v1: what it can carry, and how. Knows nothing of its answers.
 * Wire: https://lmstudio.ai/docs/developer/rest/chat.
 */
import type { Target } from '../chat/adapter.ts';
import { type GatewayError, invalidParameter } from '../chat/errors.ts';
import type { ChatRequest, GenerationRequest, Integration, Message, Parameters } from '../chat/request.ts';
import { refuseImages } from './lmstudio-v0.ts';
import { blindToImage, jsonCall, pick, present, refuseOthers, unsupported } from './openai-request.ts';

/** What v1 can and v0 cannot: a request that has one of these needs v1. `store` is only ever here as true. */
const onlyHere = [
  'integrations',
  'store',
  'previous_response_id',
  'reasoning',
  'context_length',
  'min_p',
] as const;

/** The parameters of this request that only v1 can honour. */
export function needsV1(parameters: Parameters): readonly string[] {
  return onlyHere.filter((name) => parameters[name] !== undefined);
}

const honoured: ReadonlySet<string> = new Set([
  ...onlyHere,
  'temperature',
  'top_p',
  'top_k',
  'repeat_penalty',
  'max_tokens',
]);

function refuseMessages(messages: readonly Message[], target: Target): GatewayError | undefined {
  for (const [i, message] of messages.entries()) {
    if (message.role === 'assistant' || message.role === 'tool') {
      return unsupported(target, `messages[${i}]`, `${message.role} 消息, 历史对话请用 previous_response_id`);
    }
    if (typeof message.name === 'string') return unsupported(target, `messages[${i}].name`);
  }
  if (messages.some((message) => message.role === 'user')) return undefined;
  return invalidParameter(
    'messages',
    `${target.displayName}(${target.provider}) 的 v1 接口需要至少一条 user 消息`,
  );
}

/** What stands in the way of sending this request to v1, as the error that names it. */
export function refuse(request: GenerationRequest, target: Target): GatewayError | undefined {
  if (request.kind !== 'chat') return unsupported(target, 'prompt', '在 v1 接口上续写文本');
  const { parameters } = request;
  const refused = refuseOthers(parameters, honoured, target, '此参数 (v1 接口)');
  if (refused !== undefined) return refused;
  if (parameters.temperature !== undefined && parameters.temperature > 1) {
    return unsupported(target, 'temperature', '大于 1 的值 (v1 接口)');
  }
  const settings = target.info?.reasoningOptions;
  // A model without the setting is a 400: where the list does not tell, a wish is not worth that.
  if (settings === undefined && parameters.reasoning !== undefined && request.wishes?.has('reasoning')) {
    return unsupported(target, 'reasoning');
  }
  if (
    parameters.reasoning !== undefined &&
    settings !== undefined &&
    !settings.includes(parameters.reasoning)
  ) {
    const known = settings.length === 0 ? '' : `, 可用: ${settings.join(', ')}`;
    return unsupported(target, 'reasoning', ` ${parameters.reasoning} (模型 ${target.model}${known})`);
  }
  return (
    refuseMessages(request.messages, target) ?? refuseImages(request, target) ?? blindToImage(request, target)
  );
}

const textOf = (content: Message['content']): string =>
  typeof content === 'string'
    ? content
    : (content ?? []).map((part) => (part.type === 'text' ? part.text : '')).join('');

/** The docs' parameter table says `"message"` for text; the server takes `"text"` only (docs issue 253). */
function inputItems(messages: readonly Message[]): object[] {
  return messages.flatMap((message): object[] => {
    if (message.role !== 'user') return [];
    if (typeof message.content === 'string') return [{ type: 'text', content: message.content }];
    return message.content.map((part) =>
      part.type === 'text'
        ? { type: 'text', content: part.text }
        : { type: 'image', data_url: part.image_url.url },
    );
  });
}

const wireIntegration = (integration: Integration): unknown =>
  typeof integration === 'string' ? integration : present(integration);

export function chat(request: ChatRequest, target: Target) {
  const { messages, parameters, stream, extra } = request;
  const { integrations, max_tokens, previous_response_id, store } = parameters;
  const system = messages
    .filter((message) => message.role === 'system')
    .map((message) => textOf(message.content));
  // With previous_response_id the stored chat has it, and sending both is a 500 on several models (bug tracker 2219).
  const sendSystem = system.length > 0 && previous_response_id === undefined;
  const body = {
    // First: what the call is about must not change.
    ...extra,
    model: target.model,
    input: inputItems(messages),
    ...(sendSystem ? { system_prompt: system.join('\n\n') } : {}),
    ...pick(parameters, [
      'temperature',
      'top_p',
      'top_k',
      'min_p',
      'repeat_penalty',
      'reasoning',
      'context_length',
      'previous_response_id',
    ]),
    ...(max_tokens === undefined ? {} : { max_output_tokens: max_tokens }),
    ...(integrations === undefined ? {} : { integrations: integrations.map(wireIntegration) }),
    // LM Studio's own default is to keep every chat.
    store: store ?? false,
    stream,
  };
  return jsonCall('/api/v1/chat', body, target.apiKey, stream);
}

/** The error for a server older than 0.4, named by what in the request made v1 necessary. */
export function missingV1(parameters: Parameters, target: Target): GatewayError {
  const [first, ...others] = needsV1(parameters);
  const why = `${target.displayName}(${target.provider}) 没有 v1 接口, 请升级到 LM Studio 0.4.0 或更高版本`;
  const also = others.length === 0 ? '' : `; 同样需要 v1: ${others.join(', ')}`;
  return invalidParameter(first ?? 'model', `${why}${also}`);
}
