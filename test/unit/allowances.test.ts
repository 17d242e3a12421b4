import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { GatewayError } from '../../src/chat/errors.ts';
import type { EmbeddingRequest, GenerationRequest } from '../../src/chat/request.ts';
import { Allowances } from '../../src/gateway/allowances.ts';
import { Call } from '../../src/gateway/call.ts';
import { estimateTokens } from '../../src/gateway/estimate.ts';
import type { GatewayKey } from '../../src/gateway/keys.ts';
import { formatReset } from '../../src/http/headers.ts';

const unlimited: GatewayKey = {
  id: 1,
  name: 'somebody',
  prefix: 'sk-gw-abcdef',
  scope: 'inference',
  models: undefined,
  rpm: undefined,
  tpm: undefined,
  maxConcurrency: undefined,
  dailyTokens: undefined,
  expiresAt: undefined,
  revoked: false,
};

const request = (text = '', max_tokens?: number): GenerationRequest => ({
  kind: 'chat',
  model: 'm',
  messages: [{ role: 'user', content: text }],
  stream: false,
  includeProgress: false,
  parameters: max_tokens === undefined ? {} : { max_tokens },
});

const callOf = (limits: Partial<GatewayKey>): Call =>
  new Call('id', { id: 'key-1', address: '::1', key: { ...unlimited, ...limits } }, '/api/llm/chat');

/** How a call's caller stands once it was counted, and why it may not run, if so. */
function admit(allowances: Allowances, call: Call, asked: GenerationRequest) {
  let refusal: unknown;
  try {
    allowances.count(call);
    allowances.admit(call, asked);
  } catch (error) {
    refusal = error;
  }
  return { ...call.quotas, refusal: refusal as GatewayError | undefined };
}

/** Runs a call to its end; what the upstream reports it used. */
function use(allowances: Allowances, limits: Partial<GatewayKey>, tokens: number | null, bytes = 0) {
  const call = callOf(limits);
  const standing = admit(allowances, call, request());
  call.usage = tokens === null ? null : { input_tokens: 0, output_tokens: tokens, total_tokens: tokens };
  call.answerBytes = bytes;
  allowances.callsEnded([{ call, status: 200 }]);
  return standing;
}

beforeEach(() => void vi.useFakeTimers({ now: new Date('2026-11-22T23:00:00Z') }));
afterEach(() => void vi.useRealTimers());

describe('requests a minute', () => {
  it('come back 60 s after the first of them, and not before', () => {
    const allowances = new Allowances(0);
    use(allowances, { rpm: 2 }, 0);
    vi.advanceTimersByTime(59_000);
    use(allowances, { rpm: 2 }, 0);
    const { refusal, requests } = use(allowances, { rpm: 2 }, 0);
    expect(refusal?.retryAfterSeconds).toBe(1);
    expect(requests).toEqual({ limit: 2, remaining: 0, resetMs: 1000 });
    vi.advanceTimersByTime(1000);
    expect(use(allowances, { rpm: 2 }, 0).requests?.remaining).toBe(1);
  });

  it("are the key's own where it has any, 0 meaning none", () => {
    const allowances = new Allowances(1);
    expect(use(allowances, {}, 0).requests?.limit).toBe(1);
    expect(use(allowances, { rpm: 5 }, 0).requests?.limit).toBe(5);
    expect(use(allowances, { rpm: 0 }, 0).requests).toBeUndefined();
  });

  it('that were refused use up nothing of a limit that is raised meanwhile', () => {
    const allowances = new Allowances(0);
    for (let i = 0; i < 9; i += 1) use(allowances, { rpm: 1 }, 0);
    expect(use(allowances, { rpm: 5 }, 0).requests?.remaining).toBe(3);
  });

  it('count what another limit refuses', () => {
    const allowances = new Allowances(0);
    const limits = { rpm: 5, maxConcurrency: 1 };
    const running = callOf(limits);
    admit(allowances, running, request());
    for (let i = 0; i < 3; i += 1) admit(allowances, callOf(limits), request());
    allowances.callsEnded([{ call: running, status: 200 }]);
    expect(use(allowances, limits, 0).requests?.remaining).toBe(0);
  });
});

describe('tokens a minute', () => {
  it('are counted as the upstream reports them, once a call is over', () => {
    const allowances = new Allowances(0);
    use(allowances, { tpm: 100 }, 99);
    expect(use(allowances, { tpm: 100 }, 1).refusal).toBeUndefined();
    const { refusal, tokens } = use(allowances, { tpm: 100 }, 1);
    expect(refusal).toMatchObject({ code: 'RATE_LIMITED', retryAfterSeconds: 60 });
    expect(tokens).toEqual({ limit: 100, remaining: 0, resetMs: 60_000 });
  });

  it('are reserved for running calls by an estimate', () => {
    const allowances = new Allowances(0);
    const running = callOf({ tpm: 100 });
    expect(admit(allowances, running, request('', 60)).tokens?.remaining).toBe(40);
    expect(admit(allowances, callOf({ tpm: 100 }), request('', 60)).refusal).toBeUndefined();
    expect(admit(allowances, callOf({ tpm: 100 }), request('', 1)).refusal).toBeDefined();
    allowances.callsEnded([{ call: running, status: 200 }]);
    expect(admit(allowances, callOf({ tpm: 100 }), request('', 1)).refusal).toBeUndefined();
  });

  it('are about what came where its usage never did', () => {
    const allowances = new Allowances(0);
    use(allowances, { tpm: 100 }, null, 396);
    expect(use(allowances, { tpm: 100 }, 1).refusal).toBeUndefined();
    expect(use(allowances, { tpm: 100 }, 0).refusal).toBeDefined();
  });

  it('are none for a call that never got an answer', () => {
    const allowances = new Allowances(0);
    use(allowances, { tpm: 100 }, null);
    expect(use(allowances, { tpm: 100 }, 0).refusal).toBeUndefined();
  });
});

describe('tokens a day', () => {
  it('come back at midnight UTC', () => {
    const allowances = new Allowances(0);
    use(allowances, { dailyTokens: 10 }, 10);
    expect(use(allowances, { dailyTokens: 10 }, 0).refusal?.retryAfterSeconds).toBe(3600);
    vi.advanceTimersByTime(3_600_000);
    expect(use(allowances, { dailyTokens: 10 }, 0).refusal).toBeUndefined();
  });

  it('are added up for each caller where calls end together', () => {
    const allowances = new Allowances(0);
    const other = new Call(
      'id',
      { id: 'key-2', address: '::1', key: { ...unlimited, dailyTokens: 10 } },
      '/v1/embeddings',
    );
    const calls = [callOf({ dailyTokens: 10 }), callOf({ dailyTokens: 10 }), other];
    for (const call of calls) {
      admit(allowances, call, request('', 1));
      call.usage = { input_tokens: 1, output_tokens: 4, total_tokens: 5 };
    }
    allowances.callsEnded(calls.map((call) => ({ call, status: 200 })));
    expect(use(allowances, { dailyTokens: 10 }, 0).refusal).toBeDefined();
    const next = new Call('id', other.caller, '/v1/embeddings');
    expect(admit(allowances, next, request('', 1))).toMatchObject({
      tokens: { limit: 10, remaining: 4 },
    });
  });

  it('include those from before a restart', () => {
    const allowances = new Allowances(0);
    allowances.restoreDay('key-1', 10);
    expect(use(allowances, { dailyTokens: 10 }, 0).refusal).toBeDefined();
  });
});

describe('calls at once', () => {
  it('are free again when one is over, and only once for each', () => {
    const allowances = new Allowances(0);
    const [one, two] = [callOf({ maxConcurrency: 1 }), callOf({ maxConcurrency: 1 })];
    admit(allowances, one, request());
    expect(admit(allowances, two, request()).refusal?.retryAfterSeconds).toBe(1);
    allowances.callsEnded([{ call: two, status: 200 }]);
    expect(admit(allowances, two, request()).refusal).toBeDefined();
    allowances.callsEnded([{ call: one, status: 200 }]);
    allowances.callsEnded([{ call: one, status: 200 }]);
    expect(admit(allowances, two, request()).refusal).toBeUndefined();
    expect(admit(allowances, callOf({ maxConcurrency: 1 }), request()).refusal).toBeDefined();
  });

  it('are not taken by a client that had left before it was counted', () => {
    const allowances = new Allowances(0);
    const left = callOf({ maxConcurrency: 1 });
    left.stop('client_gone');
    admit(allowances, left, request());
    expect(use(allowances, { maxConcurrency: 1 }, 0).refusal).toBeUndefined();
  });
});

describe('the estimate of a request', () => {
  it('is a token for four bytes of text, and what the answer may have', () => {
    expect(estimateTokens(request('x'.repeat(400), 50), callOf({}))).toBe(150);
  });

  it('counts no picture', () => {
    const picture = {
      type: 'image_url' as const,
      image_url: { url: `data:image/png;base64,${'A'.repeat(9999)}` },
    };
    const content = [{ type: 'text' as const, text: 'four' }, picture];
    const asked: GenerationRequest = {
      ...request('', 1),
      kind: 'chat',
      messages: [{ role: 'user', content }],
    };
    expect(estimateTokens(asked, callOf({}))).toBe(2);
  });

  it('is of the inputs alone for embeddings', () => {
    const asked: EmbeddingRequest = { kind: 'embedding', model: 'm', input: ['four', 'four'] };
    expect(estimateTokens(asked, callOf({}))).toBe(2);
  });
});

describe('a time until a reset', () => {
  it.each([
    [0, '0s'],
    [1, '1s'],
    [5900, '6s'],
    [60_000, '1m0s'],
    [61_000, '1m1s'],
    [3_600_000, '1h0m0s'],
    [86_399_000, '23h59m59s'],
  ])('of %i ms is written %s', (milliseconds, written) => {
    expect(formatReset(milliseconds)).toBe(written);
  });
});
