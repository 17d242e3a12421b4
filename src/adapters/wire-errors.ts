/** How upstreams say that they failed: the error bodies of every wire, read into the gateway's error. Knows no provider by name. */
import { z } from 'zod';
import type { Target, UpstreamAnswer } from '../chat/adapter.ts';
import { type ErrorCause, type GatewayError, sanitizeWords, upstreamError } from '../chat/errors.ts';
import { isObject, type JsonObject, looseNumber, looseText } from './wire-values.ts';

/** An upstream's complaint as it stands on the wire: not yet fit to be shown. */
export interface WireError {
  readonly words: string;
  readonly code: string | undefined;
  readonly type: string | undefined;
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
  readonly classify?: (error: WireError, status: number | undefined) => Verdict | undefined;
}

const detailBody = z.object({
  detail: z.union([z.string(), z.array(z.object({ msg: z.string() })).transform((list) => list[0]?.msg)]),
});

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

const messageOf = (said: JsonObject): string | undefined =>
  looseText(said['message']) ?? looseText(said['msg']);

function wireError(said: JsonObject): WireError {
  const code = codeOf(said);
  return {
    words: messageOf(said) ?? '',
    code: code === undefined ? undefined : String(code),
    type: looseText(said['type']),
  };
}

/**
 * The error that a JSON body or event holds, if it is one: `{"error":{message,type,code}}`, `{"error":"text"}` (LM
 * Studio), or flat `{code,message}` (DashScope, vLLM). `error: null` beside an answer is none.
 */
export function errorIn(body: unknown): WireError | undefined {
  if (!isObject(body)) return undefined;
  const { error, choices } = body;
  if (typeof error === 'string' && error !== '') return { words: error, code: undefined, type: undefined };
  if (isObject(error)) return wireError(error);
  if (choices !== undefined && choices !== null) return undefined;
  const code = codeOf(body);
  const failed = typeof code === 'string' || (code !== undefined && code >= 400);
  return (failed || body['object'] === 'error') && messageOf(body) !== undefined
    ? wireError(body)
    : undefined;
}

/**
 * What the body of a refused call says: JSON of any known shape, the first `data:` line of a refusal that came as
 * server-sent events, or else the bare text.
 */
export function wordsOf(body: string): WireError {
  const dataLine = /^data:[ ]?(.*)$/m.exec(body)?.[1];
  const json = parseJson(body) ?? (dataLine === undefined ? undefined : parseJson(dataLine));
  const nothing = { words: '', code: undefined, type: undefined };
  if (json === undefined) return { ...nothing, words: dataLine ?? body };
  const found = errorIn(json);
  if (found !== undefined) return found;
  const detail = detailBody.safeParse(json);
  if (detail.success) return { ...nothing, words: detail.data.detail ?? '' };
  return isObject(json) ? wireError(json) : nothing;
}

/** Codes and phrases by which servers say that the prompt does not fit: LM Studio, llama.cpp, MLX, vLLM, OpenAI, DashScope. */
const overflow =
  /context_length_exceeded|exceed_context_size|context size has been exceeded|trying to keep the first|context(?: length| window| size)?(?: the)? overflow|exceeds? (?:the )?(?:available|maximum|model'?s?|max)?\s*(?:model )?context|maximum context length|range of input length|prompt is too long|input is too long/i;

/** Whether the upstream's complaint is that the prompt does not fit into the model's context. */
export function isContextOverflow(error: WireError): boolean {
  return overflow.test(error.words) || (error.code !== undefined && overflow.test(error.code));
}

const neverAboutThePrompt: ReadonlySet<number | undefined> = new Set([401, 402, 403, 404, 408, 429]);

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
  const doesNotFit = !neverAboutThePrompt.has(status) && isContextOverflow(error);
  return upstreamError({
    displayName: target.displayName,
    provider: target.provider,
    status: verdict?.status ?? status,
    words: sanitizeWords(said, target.apiKey === undefined ? [] : [target.apiKey]),
    retryAfterSeconds: verdict?.retryAfterSeconds ?? retryAfterSeconds,
    reason: verdict?.reason ?? (doesNotFit ? 'context_length' : undefined),
    retryable: verdict?.retryable,
  });
}

/** The gateway's error for an answer that is not a 2xx of the expected kind. */
export function answerFailure(answer: UpstreamAnswer, context: ErrorContext): GatewayError {
  const refused = answer.status < 200 || answer.status > 299;
  return failure(
    wordsOf(answer.body),
    context,
    refused ? answer.status : undefined,
    answer.retryAfterSeconds,
  );
}
