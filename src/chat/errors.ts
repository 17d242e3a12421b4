/** Every way a call can fail, as one class and one table. Knows no transport: facades and http turn these into bytes. */

import { withoutControls } from './controls.ts';

/** `retryable`: whether the same call may succeed on another try or another route before the first text was written. */
export const errorTable = {
  INVALID_MODEL: { status: 400, message: '无效的模型名称或模型类型不匹配', retryable: false },
  INVALID_MESSAGES: { status: 400, message: '消息格式错误', retryable: false },
  INVALID_PARAMS: { status: 400, message: '参数值超出有效范围', retryable: false },
  UNAUTHORIZED: { status: 401, message: '未授权:API Key缺失或无效', retryable: false },
  FORBIDDEN: { status: 403, message: '无权限', retryable: false },
  NOT_FOUND: { status: 404, message: '资源不存在', retryable: false },
  METHOD_NOT_ALLOWED: { status: 405, message: '请求方法不被允许', retryable: false },
  CONFLICT: { status: 409, message: '资源冲突', retryable: false },
  PAYLOAD_TOO_LARGE: { status: 413, message: '请求体过大', retryable: false },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, message: '不支持的媒体类型', retryable: false },
  RATE_LIMITED: { status: 429, message: '请求频率超限', retryable: true },
  INTERNAL_ERROR: { status: 500, message: '服务器内部错误', retryable: false },
  UPSTREAM_ERROR: { status: 502, message: '上游返回错误', retryable: true },
  OVERLOADED: { status: 503, message: '服务繁忙', retryable: false },
  SHUTTING_DOWN: { status: 503, message: '服务正在关闭', retryable: false },
  TIMEOUT: { status: 504, message: '请求超时', retryable: true },
} as const;

export type ErrorCode = keyof typeof errorTable;

/**
 * What lies behind an error, where its code alone does not tell: facades choose finer codes by it and routing decides
 * on retries.
 */
export type ErrorCause =
  /** The server speaks of itself, whatever the status says: it cannot load the model, is out of memory, was cancelled. */
  | 'host'
  /** The server loads the model, and says that it is not ready yet. */
  | 'loading'
  | 'context_length'
  | 'content_filter'
  | 'quota'
  | 'connect'
  | 'cut'
  | 'format'
  | 'empty'
  | 'stopped'
  | Lesson;

/**
 * What a refusal teaches about how an upstream wants one of its models to be asked: streamed only, with the length limit under
 * OpenAI's newer name, without `stream_options`.
 */
export const lessons = ['stream_only', 'max_completion_tokens', 'no_stream_options'] as const;
export type Lesson = (typeof lessons)[number];

export interface UpstreamNames {
  readonly param: string | undefined;
  readonly code: string | undefined;
}

export interface GatewayErrorOptions {
  /** Why, in Chinese or in the upstream's words: appended to the table's message after an ASCII colon. */
  readonly detail?: string;
  /** The whole message, where the table's own does not apply (`百炼平台返回错误:…`). */
  readonly message?: string;
  /** The request field that the error is about, e.g. `temperature` or `messages[0].content`. */
  readonly param?: string;
  /** Seconds until a new try makes sense. */
  readonly retryAfterSeconds?: number;
  /** Overrides the table where the upstream's answer tells more than its class. */
  readonly retryable?: boolean;
  readonly reason?: ErrorCause;
  /** The HTTP status that the upstream answered with. */
  readonly upstreamStatus?: number;
  /** What an upstream that speaks OpenAI's wire called its error, for clients that do too. */
  readonly said?: UpstreamNames | undefined;
  /** For a 405: the methods that exist. */
  readonly allow?: string;
  /** For a 415: the content encodings that are taken. */
  readonly acceptEncoding?: string;
  readonly cause?: unknown;
}

/** No text of an error is longer, also where it quotes a caller. Bytes. */
const longestText = 2048;

function shorten(text: string): string {
  // A UTF-16 unit takes three bytes at most.
  if (text.length * 3 <= longestText || Buffer.byteLength(text) <= longestText) return text;
  return `${text.slice(0, Math.floor(longestText / 3) - 1)}…`.toWellFormed();
}

/** The only error that crosses layers. Its message is fit to be shown to the caller. */
export class GatewayError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly retryable: boolean;
  readonly param: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly reason: ErrorCause | undefined;
  readonly upstreamStatus: number | undefined;
  readonly said: UpstreamNames | undefined;
  readonly allow: string | undefined;
  readonly acceptEncoding: string | undefined;

  constructor(code: ErrorCode, options: GatewayErrorOptions = {}) {
    const row = errorTable[code];
    const message =
      options.message ?? (options.detail === undefined ? row.message : `${row.message}:${options.detail}`);
    // It may quote a caller or an upstream, and be read on a terminal.
    super(
      shorten(withoutControls(message)),
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = 'GatewayError';
    this.code = code;
    this.status = row.status;
    this.retryable = options.retryable ?? row.retryable;
    this.param = options.param === undefined ? undefined : shorten(options.param);
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.reason = options.reason;
    this.upstreamStatus = options.upstreamStatus;
    this.said = options.said;
    this.allow = options.allow;
    this.acceptEncoding = options.acceptEncoding;
  }
}

export const invalidParameter = (param: string, why: string): GatewayError =>
  new GatewayError('INVALID_PARAMS', { detail: `${param}: ${why}`, param });

/** For top-level fields that neither this gateway nor the provider has. */
/** Names that one refusal tells of. */
const mostNames = 20;

export const unknownFields = (names: readonly string[]): GatewayError =>
  new GatewayError('INVALID_PARAMS', {
    detail: `${names.slice(0, mostNames).join(', ')}: 未知字段`,
    param: names[0] ?? '',
  });

export const invalidMessage = (where: string, why: string): GatewayError =>
  new GatewayError('INVALID_MESSAGES', { detail: `${where}: ${why}`, param: where });

const longestWords = 600;

const secretPatterns: readonly [RegExp, string][] = [
  [/\bBearer\s+[^\s"',;]+/gi, 'Bearer ***'],
  [/\b(?:sk|pk|key|lm|hf|gh[pousr])[-_][A-Za-z0-9_-]{8,}/g, '***'],
  // The platform's masked echo of a key ("sk-ab****cd") is as good as a key to somebody who has half of it.
  [/\b[A-Za-z]{2,3}-[A-Za-z0-9]*\*{2,}[A-Za-z0-9]*/g, '***'],
  [/\b[a-z][a-z0-9+.-]*:\/\/[^\s"'<>)\]]+/gi, '***'],
  [/\b(?:localhost|\d{1,3}(?:\.\d{1,3}){3})(?::\d+)?\b/gi, '***'],
  [/\[[0-9a-f:]*:[0-9a-f:.]*\](?::\d+)?/gi, '***'],
  [/\b[a-z0-9-]+(?:\.[a-z0-9-]+)+:\d{2,5}\b/gi, '***'],
  [
    /(?<![\w.])\/(?:Users|home|root|var|tmp|opt|etc|usr|mnt|private|app|srv|data|work|Volumes|Applications|Library|System)\/[^\s"'<>:)\]]*/g,
    '***',
  ],
  [/\b[A-Za-z]:\\[^\s"'<>]*/g, '***'],
];

/**
 * An upstream's own words, made fit for the caller: without keys, addresses, file paths, markup and line noise.
 * Returns an empty string where nothing fit is left (an HTML page, for one).
 * @param secrets literal strings that must not appear, such as the key that was sent
 */
export function sanitizeWords(words: string, secrets: readonly string[] = []): string {
  let text = words.slice(0, longestWords * 8);
  if (/<(?:!doctype|html|head|body|title|h1|center|script)\b/i.test(text)) return '';
  for (const secret of secrets) if (secret.length > 0) text = text.replaceAll(secret, '***');
  for (const [pattern, replacement] of secretPatterns) text = text.replace(pattern, replacement);
  text = withoutControls(text).replace(/\s+/g, ' ').trim();
  return text.length > longestWords ? `${text.slice(0, longestWords)}…`.toWellFormed() : text;
}

/** What an upstream did where it said no words of its own. */
export const silentFailures = {
  connect: '连接失败',
  cut: '连接中断',
  format: '响应格式错误',
  empty: '空响应',
} as const;

/** A 502 in the words of the contract's table, for failures in which the upstream said nothing itself. */
export function silentUpstreamError(
  displayName: string,
  failure: keyof typeof silentFailures,
  options: { readonly cause?: unknown; readonly upstreamStatus?: number } = {},
): GatewayError {
  return new GatewayError('UPSTREAM_ERROR', {
    message: `${displayName}返回错误:${silentFailures[failure]}`,
    reason: failure,
    ...options,
  });
}

export interface UpstreamFailure {
  /** e.g. `LM Studio`, `百炼平台` */
  readonly displayName: string;
  readonly provider: string;
  /** HTTP status, or undefined for an error that arrived inside a 200. */
  readonly status: number | undefined;
  /** The upstream's own words, already sanitized; empty if it had none. */
  readonly words: string;
  readonly retryAfterSeconds?: number | undefined;
  readonly reason?: ErrorCause | undefined;
  readonly retryable?: boolean | undefined;
  readonly said?: UpstreamNames | undefined;
}

/**
 * Maps an upstream's refusal onto the contract: 400, 413 and 422 are about the request (400 INVALID_PARAMS), 401 is our
 * own key, 408 is 504, 429 is 429, and all else is a 502 with the upstream's words. A prompt that does not fit is a 400
 * whatever the status was, and a server that speaks of itself is a 502.
 */
export function upstreamError(failure: UpstreamFailure): GatewayError {
  const { displayName, status, words } = failure;
  const said = `${displayName}返回错误:${words === '' ? silentFailures.format : words}`;
  const common = {
    ...(failure.reason === undefined ? {} : { reason: failure.reason }),
    ...(status === undefined ? {} : { upstreamStatus: status }),
    ...(failure.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: failure.retryAfterSeconds }),
    ...(failure.retryable === undefined ? {} : { retryable: failure.retryable }),
    said: failure.said,
  };
  if (failure.reason === 'context_length' || failure.reason === 'content_filter') {
    return new GatewayError('INVALID_PARAMS', { ...common, detail: said });
  }
  if (failure.reason === 'host') return new GatewayError('UPSTREAM_ERROR', { ...common, message: said });
  switch (status) {
    case 400:
    case 413:
    case 422:
      return new GatewayError('INVALID_PARAMS', { ...common, detail: said });
    case 401:
      return new GatewayError('UNAUTHORIZED', {
        ...common,
        cause: said,
        message: `${errorTable.UNAUTHORIZED.message}(${failure.provider})`,
      });
    case 408:
      return new GatewayError('TIMEOUT', { ...common, cause: said });
    case 429:
      return new GatewayError('RATE_LIMITED', {
        retryAfterSeconds: 1,
        ...common,
        ...(words === '' ? {} : { detail: said }),
      });
    case 402:
    case 403:
    case 404:
      return new GatewayError('UPSTREAM_ERROR', { retryable: false, ...common, message: said });
    default:
      return new GatewayError('UPSTREAM_ERROR', { ...common, message: said });
  }
}
