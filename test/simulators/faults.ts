/** The faults that upstreams were seen to have, by name, as scripts that any simulator can play. */
import type { At, Cut, Script, ScriptedError, Wait } from './script.ts';

const page =
  '<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>';

const words: Readonly<Record<number, string>> = {
  400: 'Bad request',
  401: 'Invalid API token',
  403: 'Forbidden',
  404: 'Not found',
  408: 'Request timed out',
  413: 'Request body too large',
  422: 'Unprocessable request',
  429: 'Too many requests',
  500: 'Internal server error',
  502: 'Bad gateway',
  402: 'Payment required',
  501: 'Not implemented',
  520: 'Unknown error',
  524: 'A timeout occurred',
  529: 'Overloaded',
  503: 'Service unavailable',
  504: 'Gateway timeout',
};

/** Each gives a script; scripts combine by spreading. */
export const faults = {
  /** The socket closes before the headers. */
  refuse: (how: Cut = 'destroy'): Script => ({ cut: { at: 'start', how } }),
  cut: (at: At = 'after-text'): Script => ({ cut: { at } }),
  reset: (at: At = 'after-text'): Script => ({ cut: { at, how: 'reset' } }),
  /** The body ends as if it were whole. */
  endsEarly: (at: At = 'before-finish'): Script => ({ cut: { at, how: 'end' } }),
  stall: (at: At = 'headers', until?: Wait): Script => ({
    stall: until === undefined ? { at } : { at, until },
  }),
  /** No byte for so long, headers included. */
  slowHeaders: (hold: Wait): Script => ({ hold }),
  heartbeatsOnly: (at: At = 'headers', everyMs = 10): Script => ({ heartbeats: { at, everyMs } }),
  splitBytes: (bytesPerWrite = 1): Script => ({ bytesPerWrite }),
  manyPerWrite: (framesPerWrite = Number.POSITIVE_INFINITY): Script => ({ framesPerWrite, gapMs: 0 }),
  crlf: (): Script => ({ newline: '\r\n' }),
  bom: (): Script => ({ bom: true }),
  garbage: (at: At = 'after-text'): Script => ({ insert: { at, bytes: 'data: {"choices":[{"delta"\n\n' } }),
  /** A line that never ends within its first `length` bytes. */
  endlessLine: (length: number, at: At = 'after-text'): Script => ({
    insert: { at, bytes: Buffer.concat([Buffer.from('data: '), Buffer.alloc(length, 'x')]) },
    cut: { at, how: 'end' },
  }),
  /** One delta of so many characters. */
  giantDelta: (length: number): Script => ({ text: ['好'.repeat(length)] }),
  chunks: (count: number): Script => ({
    text: Array.from({ length: count }, (_, index) => `${index} `),
    gapMs: 0,
  }),
  html: (status: number): Script => ({
    answer: { status, headers: { 'content-type': 'text/html' }, body: page },
  }),
  status: (status: number, headers: Readonly<Record<string, string>> = {}): Script => ({
    answer: { status, headers, body: { error: { message: words[status] ?? 'Error', type: 'server_error' } } },
  }),
  /** A refusal in the server's own words. */
  refused: (status: number, message: string, code?: string): Script => ({
    answer: { status, body: { error: { message, type: 'invalid_request_error', code } } },
  }),
  /** As llama.cpp answers until it has loaded the model. */
  loading: (): Script => ({
    answer: {
      status: 503,
      body: { error: { code: 503, message: 'Loading model', type: 'unavailable_error' } },
    },
  }),
  rateLimited: (retryAfter: string): Script => ({
    answer: {
      status: 429,
      headers: { 'retry-after': retryAfter },
      body: {
        error: { message: 'Too many requests', type: 'rate_limit_error', code: 'rate_limit_exceeded' },
      },
    },
  }),
  /** A 200 that is none. */
  errorIn200: (message: string, shape: 'object' | 'string' = 'string'): Script => ({
    answer: { status: 200, body: { error: shape === 'string' ? message : { message } } },
  }),
  errorFrame: (error: Partial<ScriptedError> = {}): Script => ({ error: { at: 'after-text', ...error } }),
  emptyAnswer: (): Script => ({ empty: 'zero-tokens' }),
  noDelta: (): Script => ({ empty: 'no-delta' }),
  noChoices: (): Script => ({ empty: 'no-choices' }),
  anotherModel: (model: string): Script => ({ model }),
  noUsage: (): Script => ({ usage: false }),
  noFinish: (): Script => ({ finishReason: null }),
  stopped: (stopReason: string, finishReason = 'stop'): Script => ({ stopReason, finishReason }),
  finishWithText: (): Script => ({ finishWithText: true }),
} as const;
