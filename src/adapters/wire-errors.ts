/** How upstreams say that they failed: the error bodies of every wire, read into the gateway's error. Knows no provider by name. */
import type { Target, UpstreamAnswer } from '../chat/adapter.ts';
import { type ErrorCause, type GatewayError, sanitizeWords, upstreamError } from '../chat/errors.ts';
import { blamesTheModel, reasonOf } from './error-meanings.ts';
import { isObject, type JsonObject, looseNumber, looseObject, looseText } from './wire-values.ts';

/** An upstream's complaint as it stands on the wire: not yet fit to be shown. */
export interface WireError {
  readonly words: string;
  readonly code: string | undefined;
  readonly type: string | undefined;
  /** The field that it is about, where the server tells as OpenAI does. */
  readonly param?: string | undefined;
}

/** What a provider's own error codes tell beyond the HTTP status; members that are absent leave the shared reading. */
export interface Verdict {
  /** The HTTP status to treat the error as. */
  readonly status?: number;
  readonly reason?: ErrorCause;
  readonly retryable?: boolean;
  readonly retryAfterSeconds?: number;
  /** The complaint without what a caller has no use for, such as a link to the provider's own pages. */
  readonly words?: string;
}

export interface ErrorContext {
  readonly target: Target;
  /** The server's `param` and `code` are OpenAI's, and so may be told to clients of OpenAI. */
  readonly speaksOpenAI?: boolean;
  readonly classify?: (error: WireError, status: number | undefined) => Verdict | undefined;
}

/** The value of a JSON text, or undefined where it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** `code` is a word on some servers and a number on others. */
const codeOf = ({ code }: JsonObject): string | number | undefined => looseText(code) ?? looseNumber(code);

/** How deep words are looked for: a router's error holds that of a service, which may hold that of its engine. */
const deepest = 5;

/** How many complaints of a list are told. */
const mostComplaints = 5;

/** Where a validator found fault, without the part of the request that it always is. */
const placeOf = (loc: unknown): string =>
  Array.isArray(loc) ? loc.filter((step, at) => at > 0 || step !== 'body').join('.') : '';

/**
 * The words in an error of any shape: text, a list of errors, or an object that keeps them under one of the usual names. What a
 * service behind a router said (OpenRouter's `metadata.raw`) goes before the router's own words.
 */
function wordsIn(said: unknown, depth = 0): string {
  if (typeof said === 'string') return said;
  if (depth === deepest) return '';
  if (Array.isArray(said)) {
    const all = said.slice(0, mostComplaints).map((one) => wordsIn(one, depth + 1));
    return all.filter((words) => words !== '').join('; ');
  }
  if (!isObject(said)) return '';
  const raw = looseObject(said['metadata'])?.['raw'];
  const behind =
    typeof raw === 'string' ? wordsIn(parseJson(raw) ?? raw, depth + 1) : wordsIn(raw, depth + 1);
  if (behind !== '') return behind;
  for (const name of wordNames) {
    const words = wordsIn(said[name], depth + 1);
    if (words === '') continue;
    const place = placeOf(said['loc']);
    return place === '' ? words : `${place}: ${words}`;
  }
  return '';
}

/** `detail` is FastAPI's, `errors` Cloudflare's, `error` inside an error a proxy's, `status_msg` MiniMax's. */
const wordNames = ['message', 'msg', 'detail', 'error', 'errors', 'status_msg'] as const;

function wireError(said: JsonObject): WireError {
  const code = codeOf(said) ?? looseNumber(said['status_code']);
  return {
    words: wordsIn(said),
    code: code === undefined ? undefined : String(code),
    type: looseText(said['type']),
    param: looseText(said['param']),
  };
}

const nothing: WireError = { words: '', code: undefined, type: undefined };

/** Whether there is anything in it: some servers put an error of empty members beside a good answer. */
const isEmpty = (value: unknown): boolean =>
  !value || value === '0' || (isObject(value) && Object.values(value).every(isEmpty));

/** What a member that is meant for errors says; undefined where it is absent or empty. */
function complaintIn(value: unknown): WireError | undefined {
  if (isEmpty(value) || value === true) return undefined;
  if (isObject(value)) return wireError(value);
  const words = wordsIn(value);
  return words === '' ? undefined : { ...nothing, words };
}

/** An error that stands in the choice (OpenRouter), since the stream had begun. */
function errorInChoice(choices: unknown): WireError | undefined {
  const first: unknown = Array.isArray(choices) ? choices[0] : undefined;
  return isObject(first) ? complaintIn(first['error']) : undefined;
}

/**
 * The error that a JSON body or event holds, if it is one: `{"error":{message,type,code}}`, `{"error":"text"}` (LM Studio), the
 * same in a list (Gemini) or in the first choice (OpenRouter), `{"errors":[…]}` (Cloudflare), or flat `{code,message}`
 * (DashScope, vLLM). An `error` that is null or empty beside an answer is none.
 */
export function errorIn(body: unknown): WireError | undefined {
  if (Array.isArray(body)) return isObject(body[0]) ? errorIn(body[0]) : undefined;
  if (!isObject(body)) return undefined;
  const { error, choices } = body;
  const said = (error === undefined ? undefined : complaintIn(error)) ?? errorInChoice(choices);
  if (said !== undefined) return said;
  if (choices !== undefined && choices !== null) return undefined;
  if (Array.isArray(body['errors']) && body['errors'].length > 0) return complaintIn(body['errors']);
  const status = looseObject(body['base_resp']);
  if (status !== undefined && looseNumber(status['status_code']) !== 0) return complaintIn(status);
  const code = codeOf(body);
  const failed = typeof code === 'string' || (code !== undefined && code >= 400);
  return (failed || body['object'] === 'error') && wordsIn(body) !== '' ? wireError(body) : undefined;
}

/**
 * What the body of a refused call says: JSON of any known shape, the first `data:` line of a refusal that came as
 * server-sent events, or else the bare text.
 */
export function wordsOf(body: string): WireError {
  const dataLine = /^data:[ ]?(.*)$/m.exec(body)?.[1];
  const json = parseJson(body) ?? (dataLine === undefined ? undefined : parseJson(dataLine));
  if (json === undefined) return { ...nothing, words: dataLine ?? body };
  const found = errorIn(json);
  if (found !== undefined) return found;
  return isObject(json) ? wireError(json) : { ...nothing, words: wordsIn(json) };
}

/** `messages[0].content`, `model_not_found`: no sentence and no number, which would be a status. */
const nameLike = /^[a-z_][\w.[\]-]{0,199}$/i;

/**
 * The gateway's error for an upstream's complaint, its words freed of keys and addresses.
 * @param status HTTP status; undefined for an error that arrived inside a 200
 */
export function failure(
  error: WireError,
  context: ErrorContext,
  status?: number,
  retryAfterSeconds?: number,
): GatewayError {
  const { target } = context;
  const verdict = context.classify?.(error, status);
  const words = verdict?.words ?? error.words;
  const said = words === '' ? (error.code ?? error.type ?? '') : words;
  const meant = verdict?.status ?? status;
  const secrets = target.apiKey === undefined ? [] : [target.apiKey];
  const tellable = (name: string | undefined): string | undefined =>
    name !== undefined && nameLike.test(name) && sanitizeWords(name, secrets) === name ? name : undefined;
  return upstreamError({
    displayName: target.displayName,
    provider: target.provider,
    status: blamesTheModel(error, meant) ? 404 : meant,
    words: sanitizeWords(said, secrets),
    said:
      context.speaksOpenAI === true
        ? { param: tellable(error.param), code: tellable(error.code) }
        : undefined,
    retryAfterSeconds: verdict?.retryAfterSeconds ?? retryAfterSeconds,
    reason: verdict?.reason ?? reasonOf(error, meant),
    retryable: verdict?.retryable,
  });
}

/** LM Studio's answer in the moment in which it begins to load a model: a page of HTML, where its list says that it is not loaded. */
const beginsLoad = ({ status, body }: UpstreamAnswer, { info }: Target): boolean =>
  status === 500 && info?.state === 'not-loaded' && /^\s*<(?:!doctype|html)/i.test(body);

/** The gateway's error for an answer that is not a 2xx of the expected kind. */
export function answerFailure(answer: UpstreamAnswer, context: ErrorContext): GatewayError {
  const refused = answer.status < 200 || answer.status > 299;
  if (beginsLoad(answer, context.target)) {
    const { displayName, provider } = context.target;
    return upstreamError({ displayName, provider, status: answer.status, words: '', reason: 'loading' });
  }
  return failure(
    wordsOf(answer.body),
    context,
    refused ? answer.status : undefined,
    answer.retryAfterSeconds,
  );
}
