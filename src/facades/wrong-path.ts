/** Which dialect a path that does not exist was meant for, what is to be asked instead, and how that dialect says so. Pure. */
import { GatewayError } from '../chat/errors.ts';
import { openaiError } from './openai.ts';

/** How a client of one dialect reads that a path does not exist. */
export interface WrongPath {
  /** Behind the address of this gateway it makes the base URL that is meant. */
  readonly base: string;
  /** In the words before the base URL. */
  readonly advice: string;
  body(error: GatewayError, requestId: string): unknown;
}

const openai: WrongPath = { base: '/v1', advice: '请使用基础地址', body: openaiError };

const responses: WrongPath = {
  ...openai,
  advice: '不提供 /v1/responses, 请使用 /v1/chat/completions, 基础地址',
};

const anthropic: WrongPath = {
  base: '/v1',
  advice: '不提供 Anthropic 接口, 请使用 OpenAI 接口, 基础地址',
  body: ({ message }, request_id) => ({
    type: 'error',
    error: { type: 'not_found_error', message },
    request_id,
  }),
};

/** Ollama's and LM Studio's own. */
const bareError = ({ message }: GatewayError): unknown => ({ error: message });

const ollama: WrongPath = {
  base: '/v1',
  advice: '不提供 Ollama 接口, 请使用 OpenAI 接口, 基础地址',
  body: bareError,
};

const lmstudio: WrongPath = {
  base: '/v1',
  advice: '不提供 LM Studio 接口, 请使用 OpenAI 接口, 基础地址',
  body: bareError,
};

/** The first that matches counts. */
const dialects: readonly (readonly [RegExp, WrongPath])[] = [
  [/\/chat\/completions$/, openai],
  [/^(?:\/api)?\/v1\/responses(?:\/|$)/, responses],
  [/^\/anthropic(?:\/|$)|^(?:\/api)?(?:\/v1)?\/(?:messages|complete)(?:\/|$)/, anthropic],
  [/^\/(?:v1|openai)(?:\/|$)/, openai],
  [/^\/api\/v[01](?:\/|$)/, lmstudio],
  [
    /^\/ollama(?:\/|$)|^\/api\/(?:chat|generate|tags|show|ps|version|embed|embeddings|pull|push|create|copy|delete|blobs)(?:\/|$)/,
    ollama,
  ],
  [
    /^(?:\/api)?\/(?:chat|completions|engines|edits|moderations|models|deployments|files|uploads|fine_tuning|fine-tunes|batches|assistants|threads|vector_stores|realtime|conversations)(?:\/|$)/,
    openai,
  ],
  [/^\/(?:images\/(?:generations|edits|variations)|audio\/(?:speech|transcriptions|translations))$/, openai],
];

/** @param path without a query; undefined for one that no client of a known dialect asks */
export const wrongPathOf = (path: string): WrongPath | undefined =>
  dialects.find(([pattern]) => pattern.test(path))?.[1];

/** @param address of this gateway as its caller knows it, e.g. `http://localhost:8000` */
export const wrongPathError = ({ advice, base }: WrongPath, address: string): GatewayError =>
  new GatewayError('NOT_FOUND', { detail: `${advice} ${address}${base}` });
