/** The canonical request in the words of every chat-completions wire. Pure pieces that adapters pick from; knows no provider by name. */
import type { Target, UpstreamCall } from '../chat/adapter.ts';
import { type GatewayError, invalidMessage, invalidParameter } from '../chat/errors.ts';
import type {
  ContentPart,
  EmbeddingRequest,
  FunctionTool,
  GenerationRequest,
  Message,
  ParameterName,
  Parameters,
  ResponseFormat,
} from '../chat/request.ts';

type Json = Record<string, unknown>;

const isAbsent = (member: unknown): boolean => member === null || member === undefined;

/** What is left without the members that are null or absent: on these wires a null is not the same as an absent member. */
export function present(value: Readonly<Record<string, unknown>>): Readonly<Json> {
  const names = Object.keys(value);
  if (!names.some((name) => isAbsent(value[name]))) return value;
  const kept: Json = {};
  for (const name of names) if (!isAbsent(value[name])) kept[name] = value[name];
  return kept;
}

/** A picture's `detail` is a hint of OpenAI's; other wires do not have it. */
export function wirePart(part: ContentPart, takesDetail: boolean): Readonly<Json> {
  if (part.type === 'text') return part;
  const { url, detail } = part.image_url;
  return { type: part.type, image_url: takesDetail && !isAbsent(detail) ? { url, detail } : { url } };
}

/** Messages as every chat-completions server takes them. */
export function wireMessages(messages: readonly Message[], takesDetail: boolean): Readonly<Json>[] {
  return messages.map((message) => {
    const wire = present(message);
    const { content } = message;
    if (message.role === 'assistant') {
      // Prompt templates trim the content of every message; "" is what all of them can trim.
      return isAbsent(content) || content?.length === 0 ? { ...wire, content: '' } : wire;
    }
    return Array.isArray(content)
      ? { ...wire, content: content.map((part) => wirePart(part, takesDetail)) }
      : wire;
  });
}

/** The tools and the choice among them, for a wire that has no names there: whichever is named is the only one to choose from. */
export function toolsByRequired({ tools, tool_choice }: Parameters): Json {
  if (tools === undefined) return {};
  if (typeof tool_choice !== 'object') {
    return { tools: wireTools(tools), ...(tool_choice === undefined ? {} : { tool_choice }) };
  }
  const named = tools.filter((tool) => tool.function.name === tool_choice.function.name);
  return { tools: wireTools(named), tool_choice: 'required' };
}

export function wireTools(tools: readonly FunctionTool[]): Json[] {
  return tools.map((tool) => ({ type: tool.type, function: present(tool.function) }));
}

export function wireResponseFormat(format: ResponseFormat): Json {
  return format.type === 'json_schema'
    ? { type: format.type, json_schema: present(format.json_schema) }
    : { type: format.type };
}

/** The named parameters that the caller set, under the names that the unified API shares with this wire. */
export function pick(parameters: Parameters, names: Iterable<ParameterName>): Json {
  const picked: Json = {};
  // Most calls set none.
  if (Object.keys(parameters).length === 0) return picked;
  for (const name of names) if (parameters[name] !== undefined) picked[name] = parameters[name];
  return picked;
}

/** A POST of JSON that answers with JSON, or with server-sent events. */
export function jsonCall(
  path: string,
  body: Json,
  apiKey: string | undefined,
  stream: boolean,
): UpstreamCall {
  return {
    method: 'POST',
    path,
    headers: {
      'content-type': 'application/json',
      accept: stream ? 'text/event-stream' : 'application/json',
      ...authorization(apiKey),
    },
    body: JSON.stringify(body),
    stream,
  };
}

/** A GET of JSON. */
export function getCall(path: string, apiKey: string | undefined): UpstreamCall {
  return {
    method: 'GET',
    path,
    headers: { accept: 'application/json', ...authorization(apiKey) },
    stream: false,
  };
}

function authorization(apiKey: string | undefined): Record<string, string> {
  return apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
}

/** An INVALID_PARAMS that names a parameter and the provider that cannot honour it. */
export function unsupported(target: Target, parameter: string, why = '此参数'): GatewayError {
  return invalidParameter(parameter, `${target.displayName}(${target.provider}) 不支持${why}`);
}

/** The first parameter of the request that is not among those the wire carries, as the error to refuse it with. */
export function refuseOthers(
  parameters: Parameters,
  honoured: ReadonlySet<string>,
  target: Target,
  why?: string,
): GatewayError | undefined {
  const name = Object.keys(parameters).find((key) => !honoured.has(key));
  return name === undefined ? undefined : unsupported(target, name, why);
}

export interface PlacedImage {
  /** e.g. `messages[0].content[1]` */
  readonly where: string;
  readonly url: string;
}

/** Every picture in the request, with its place. */
export function imagesOf(request: GenerationRequest): readonly PlacedImage[] {
  const images: PlacedImage[] = [];
  if (request.kind !== 'chat') return images;
  request.messages.forEach(({ content }, i) => {
    if (!Array.isArray(content)) return;
    content.forEach((part, j) => {
      if (part.type === 'image_url') {
        images.push({ where: `messages[${i}].content[${j}]`, url: part.image_url.url });
      }
    });
  });
  return images;
}

/** The error for a picture sent to a model of which the model list says that it cannot see. */
export function blindToImage(request: GenerationRequest, target: Target): GatewayError | undefined {
  const image = target.info?.vision === false ? imagesOf(request)[0] : undefined;
  if (image === undefined) return undefined;
  return invalidMessage(
    image.where,
    `${target.displayName}(${target.provider}) 的模型 ${target.model} 不支持图片`,
  );
}

/** POST /embeddings of every OpenAI wire. Always asks for floats: base64 is the facade's to make, and not every server has it. */
export function embeddingCall({ input, dimensions, extra }: EmbeddingRequest, target: Target): UpstreamCall {
  const body = {
    ...extra,
    model: target.model,
    input,
    ...(dimensions === undefined ? {} : { dimensions }),
    encoding_format: 'float',
  };
  return jsonCall('/embeddings', body, target.apiKey, false);
}
