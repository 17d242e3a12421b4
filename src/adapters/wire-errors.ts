/** How upstreams say that they failed: the error bodies of every wire, read into the gateway's error. Knows no provider by name. */
import { z } from 'zod';
import type { Target, UpstreamAnswer } from '../chat/adapter.ts';
import { type ErrorCause, type GatewayError, sanitizeWords, upstreamError } from '../chat/errors.ts';

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

const words = z.string().nullish().catch(undefined);
const code = z.union([z.string(), z.number()]).nullish().catch(undefined);
const errorObject = z.object({ message: words, msg: words, type: words, code });
const errorBody = z.object({
  error: z.unknown().optional(),
  object: words,
  message: words,
  msg: words,
  type: words,
  code,
  choices: z.unknown().optional(),
});
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

function wireError(said: z.output<typeof errorObject>): WireError {
  return {
    words: said.message ?? said.msg ?? '',
    code: said.code === null || said.code === undefined ? undefined : String(said.code),
    type: said.type ?? undefined,
  };
}

/**
 * The error that a JSON body or event holds, if it is one: `{"error":{message,type,code}}`, `{"error":"text"}` (LM
 * Studio), or flat `{code,message}` (DashScope, vLLM). `error: null` beside an answer is none.
 */
export function errorIn(body: unknown): WireError | undefined {
  const parsed = errorBody.safeParse(body);
  if (!parsed.success) return undefined;
  const { error, ...flat } = parsed.data;
  if (typeof error === 'string' && error !== '') return { words: error, code: undefined, type: undefined };
  if (typeof error === 'object' && error !== null) {
    const member = errorObject.safeParse(error);
    if (member.success) return wireError(member.data);
  }
  if (flat.choices !== undefined && flat.choices !== null) return undefined;
  const failed = typeof flat.code === 'string' || (typeof flat.code === 'number' && flat.code >= 400);
  const said = flat.message ?? flat.msg;
  return (failed || flat.object === 'error') && typeof said === 'string' ? wireError(flat) : undefined;
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
  const flat = errorObject.safeParse(json);
  return flat.success ? wireError(flat.data) : nothing;
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
