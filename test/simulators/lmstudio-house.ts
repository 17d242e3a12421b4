/** What both wires of a simulated LM Studio share: its models, its speed, its scripts' own members and its refusals. */
import type { Instance, ModelShelf, SimulatedModel } from './lmstudio-models.ts';
import type { Answer, Script } from './script.ts';

export interface ProviderInfo {
  readonly type: 'plugin' | 'ephemeral_mcp';
  readonly plugin_id?: string;
  readonly server_label?: string;
}

/** An item of a v1 answer; texts may be given as the pieces in which they are streamed. */
export type OutputItem =
  | { readonly type: 'message' | 'reasoning'; readonly content: string | readonly string[] }
  | {
      readonly type: 'tool_call';
      readonly tool: string;
      readonly arguments: Readonly<Record<string, unknown>>;
      readonly output: string;
      readonly provider_info: ProviderInfo;
    }
  | {
      readonly type: 'invalid_tool_call';
      readonly reason: string;
      readonly metadata: {
        readonly type: 'invalid_name' | 'invalid_arguments';
        readonly tool_name: string;
        readonly arguments?: Readonly<Record<string, unknown>>;
        readonly provider_info?: ProviderInfo;
      };
    };

export interface LmStudioScript extends Script {
  /** The model must be loaded first, and it takes so long: silence on v0, progress on v1. Milliseconds. */
  readonly loadMs?: number;
  /** v1 only: the whole answer, item by item. */
  readonly output?: readonly OutputItem[];
}

/** A stored chat: what was said until then. */
export interface StoredChat {
  readonly userTexts: readonly string[];
  readonly systemPrompt: string | undefined;
  readonly tokens: number;
}

export interface House {
  readonly shelf: ModelShelf;
  /** By response id. */
  readonly chats: Map<string, StoredChat>;
  /** Milliseconds for each piece that is streamed, for reading the prompt, for loading a model that does not tell. */
  readonly tokenMs: number;
  readonly promptMs: number;
  readonly loadMs: number;
  /** With one model in memory, answer with it whatever was asked for. */
  readonly answersAnyModel: boolean;
  readonly acceptsRepeatedSystemPrompt: boolean;
}

/** What a wire makes of one request. A refusal takes no script. */
export interface Outcome {
  readonly answer: Answer;
  readonly script: LmStudioScript;
}

export type TakeScript = () => LmStudioScript;

/** `{"error":"…"}` */
export const refuseInWords = (status: number, message: string): Outcome => ({
  answer: { kind: 'json', status, body: { error: message } },
  script: {},
});

/** `{"error":{"message","type",…}}` */
export const refuse = (
  status: number,
  message: string,
  rest: Readonly<Record<string, unknown>> = { type: 'invalid_request_error' },
): Outcome => ({ answer: { kind: 'json', status, body: { error: { message, ...rest } } }, script: {} });

export const succeed = (body: unknown): Outcome => ({
  answer: { kind: 'json', status: 200, body },
  script: {},
});

/** How the real server answers what it does not know: with a 200. */
export const unexpectedEndpoint = (method: string, path: string): Outcome =>
  refuseInWords(200, `Unexpected endpoint or method. (${method} ${path})`);

/** The model that will answer to this name. */
export function resolveModel(house: House, name: string): SimulatedModel | undefined {
  return house.answersAnyModel
    ? (house.shelf.onlyLoaded() ?? house.shelf.find(name))
    : house.shelf.find(name);
}

export function missingModelMessage(house: House, name: string): string {
  return house.shelf.all().length === 0
    ? 'No models loaded. Please load a model in the developer page or use the `lms load` command.'
    : `Model "${name}" not found. Please specify a valid model.`;
}

/** The copy that answers, and the milliseconds that loading it takes; undefined where it is in memory. */
export function occupy(
  house: House,
  model: SimulatedModel,
  script: LmStudioScript,
  config: Readonly<Record<string, unknown>> = {},
): { readonly instance: Instance; readonly loadMs: number | undefined } {
  const present = house.shelf.instances(model)[0];
  const instance = present ?? house.shelf.load(model, config, true);
  const loadMs = script.loadMs ?? (present === undefined ? (model.loadMs ?? house.loadMs) : undefined);
  return { instance, loadMs };
}

const acceptedImage = /^data:image\/(?:png|jpe?g);base64,[A-Za-z0-9+/]+=*$/;

/** Why the server takes this image for none; undefined where it takes it. */
export function imageFault(url: string): string | undefined {
  if (!url.startsWith('data:')) return "'url' field must be a base64 encoded image.";
  return acceptedImage.test(url)
    ? undefined
    : 'Unsupported image format. Only base64 PNG and JPEG are supported.';
}
