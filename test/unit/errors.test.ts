/** The error table against its page, and what upstreams' words lose before a caller sees them. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { errorTable, GatewayError, sanitizeWords, upstreamError } from '../../src/chat/errors.ts';

const failure = { displayName: 'LM Studio', provider: 'lmstudio', words: 'bad thing' };

describe('docs/errors.md', () => {
  it('has exactly the rows of the table, with status, message and whether it is tried again', () => {
    const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
    const rows = [...page.matchAll(/^\| ([A-Z_]+) \| (\d+) \| ([^|]+) \| (yes|no) \|$/gm)].map((row) =>
      row.slice(1),
    );
    const expected = Object.entries(errorTable).map(([code, row]) => [
      code,
      String(row.status),
      row.message,
      row.retryable ? 'yes' : 'no',
    ]);
    expect(rows).toEqual(expected);
  });
});

describe('an upstream refusal', () => {
  it.each([400, 413, 422])('with %i is the request at fault: 400 INVALID_PARAMS with its words', (status) => {
    const error = upstreamError({ ...failure, status });
    expect([error.code, error.status, error.retryable]).toEqual(['INVALID_PARAMS', 400, false]);
    expect(error.message).toBe('参数值超出有效范围:LM Studio返回错误:bad thing');
  });

  it('with 401 is a 401 that names the provider', () => {
    const error = upstreamError({ ...failure, status: 401 });
    expect([error.code, error.message]).toEqual(['UNAUTHORIZED', '未授权:API Key缺失或无效(lmstudio)']);
  });

  it.each([402, 403, 404])('with %i is a 502 with its words that is not tried again', (status) => {
    const error = upstreamError({ ...failure, status });
    expect([error.code, error.message, error.retryable]).toEqual([
      'UPSTREAM_ERROR',
      'LM Studio返回错误:bad thing',
      false,
    ]);
  });

  it('with 408 is a 504', () => {
    expect(upstreamError({ ...failure, status: 408 }).code).toBe('TIMEOUT');
  });

  it('with 429 is a 429 with the upstream retry-after, or one second', () => {
    expect(upstreamError({ ...failure, status: 429, retryAfterSeconds: 7 }).retryAfterSeconds).toBe(7);
    expect(upstreamError({ ...failure, status: 429 }).retryAfterSeconds).toBe(1);
  });

  it('with 429 keeps its words, if it had any', () => {
    const error = upstreamError({ ...failure, status: 429 });
    expect(error.message).toBe('请求频率超限:LM Studio返回错误:bad thing');
    expect(upstreamError({ ...failure, status: 429, words: '' }).message).toBe('请求频率超限');
  });

  it.each([500, 502, 503, 504, 418, undefined])('with %s is a 502 with its words', (status) => {
    const error = upstreamError({ ...failure, status });
    expect([error.code, error.message]).toEqual(['UPSTREAM_ERROR', 'LM Studio返回错误:bad thing']);
  });

  it('over the context is a 400 whatever the status', () => {
    expect(upstreamError({ ...failure, status: 500, reason: 'context_length' }).status).toBe(400);
  });

  it('that speaks of the server itself is a 502 with its words, also with 400', () => {
    const error = upstreamError({ ...failure, status: 400, reason: 'host' });
    expect([error.status, error.message]).toEqual([502, 'LM Studio返回错误:bad thing']);
  });

  it('without words says that the answer was malformed', () => {
    expect(upstreamError({ ...failure, words: '', status: 500 }).message).toBe(
      'LM Studio返回错误:响应格式错误',
    );
  });
});

describe('words of an upstream', () => {
  it.each([
    ['Incorrect API key provided: sk-abcdefghijklmnop', 'Incorrect API key provided: ***'],
    ['sent Authorization: Bearer abc.def-ghi', 'sent Authorization: Bearer ***'],
    ['masked sk-ab****cd', 'masked ***'],
    ['connect ECONNREFUSED 127.0.0.1:1234', 'connect ECONNREFUSED ***'],
    ['see http://10.1.2.3:8080/x?y=1 now', 'see *** now'],
    ['host studio.local:1234 is down', 'host *** is down'],
    ['[::1]:1234 refused', '*** refused'],
    ['cannot read /Users/me/.lmstudio/models/x.gguf', 'cannot read ***'],
    ['cannot read C:\\Users\\me\\x.gguf', 'cannot read ***'],
    ['<html><body>Bad Gateway</body></html>', ''],
    ['two\nlines\u0000 and\tmore', 'two lines and more'],
  ])('%j becomes %j', (words, shown) => {
    expect(sanitizeWords(words)).toBe(shown);
  });

  it.each([
    'Model "qwen/qwen3-8b@q4_k_m" not found. Please specify a valid model.',
    'Unexpected endpoint or method. (POST /api/v1/chat)',
    "'response_format.type' must be 'json_schema' or 'text'",
    'Range of input length should be [1, 129024]',
    'Temperature should be in [0.0, 2.0)',
  ])('%j stay as they are', (words) => {
    expect(sanitizeWords(words)).toBe(words);
  });

  it('lose the literal secrets that were sent', () => {
    expect(sanitizeWords('token hunter2 is wrong', ['hunter2'])).toBe('token *** is wrong');
  });

  it('end after 600 characters', () => {
    expect(sanitizeWords('x'.repeat(10_000))).toHaveLength(601);
  });
});

describe('a GatewayError', () => {
  it('appends its detail to the table message after an ASCII colon', () => {
    expect(new GatewayError('FORBIDDEN', { detail: 'why' }).message).toBe('无权限:why');
  });
});
