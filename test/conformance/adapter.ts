/**
 * The contract that every adapter must pass, driven by recorded cases in test/fixtures/<adapter>/<case>/:
 *   request.json   the request (defaults filled in below) and what differs from the usual target
 *   upstream.json  a whole answer; upstream.sse: a streamed one, raw bytes. Where a case has both, they are twins
 *   upstream.400.txt   the body of a refusal, its HTTP status in the name
 *   expected.json  `call` (what is sent), `refused` (the error before anything is sent), `result` or `error`, `events`
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Frame, ProviderAdapter, Target } from '../../src/chat/adapter.ts';
import { type ErrorCode, errorTable, GatewayError, type Lesson } from '../../src/chat/errors.ts';
import { type ChatEvent, type ChatResult, collect } from '../../src/chat/events.ts';
import type { GenerationRequest, Parameters } from '../../src/chat/request.ts';
import { cutAt, framesOf } from './frames.ts';

export interface AdapterUnderTest {
  readonly adapter: ProviderAdapter;
  /** What differs from `usualTarget`. */
  readonly target?: Partial<Target>;
  /** A value for each parameter that the wire cannot carry. */
  readonly unsupported: Parameters;
}

interface ExpectedError {
  readonly code: ErrorCode;
  readonly message?: string;
  readonly param?: string;
  readonly reason?: string;
  readonly status?: number;
  readonly retryable?: boolean;
}

interface Expected {
  /** `stream` where the call is streamed although the caller did not ask for it. */
  readonly call?: { readonly path: string; readonly body: unknown; readonly stream?: boolean };
  readonly refused?: ExpectedError;
  readonly result?: ChatResult;
  readonly error?: ExpectedError;
  /** Exactly what the stream decodes to; an `error` event is compared by `error` above. */
  readonly events?: readonly ChatEvent[];
}

interface Case {
  readonly name: string;
  readonly request: GenerationRequest;
  readonly target: Target;
  readonly whole: string | undefined;
  readonly stream: Uint8Array | undefined;
  readonly refusal: { readonly status: number; readonly body: string } | undefined;
  readonly expected: Expected;
}

/** Of no shape that a pattern knows: only the adapter that sent it can know it for a key. */
const key = 'fixture0123456789abcdefghijklmnop';

export const usualTarget: Target = {
  provider: 'home',
  displayName: 'LM Studio',
  model: 'qwen3-8b',
  apiKey: key,
  apis: undefined,
  api: 'auto',
  info: undefined,
};

const usualRequest = {
  kind: 'chat',
  model: 'some-title',
  stream: false,
  includeProgress: false,
  parameters: {},
  messages: [{ role: 'user', content: '你好' }],
} as const satisfies GenerationRequest;

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));

function readRefusal(folder: string): Case['refusal'] {
  const file = readdirSync(folder).find((name) => /^upstream\.\d{3}\.txt$/.test(name));
  if (file === undefined) return undefined;
  return { status: Number(file.split('.')[1]), body: readFileSync(`${folder}/${file}`, 'utf8') };
}

/** A set, which JSON has none of. */
const withLessons = ({ learnt, ...target }: { learnt?: readonly Lesson[] } = {}): Partial<Target> =>
  learnt === undefined ? target : { ...target, learnt: new Set(learnt) };

function readCases(subject: AdapterUnderTest): Case[] {
  const folder = `${fixtures}${subject.adapter.name}/`;
  return readdirSync(folder).map((name): Case => {
    const path = (file: string): string => `${folder}${name}/${file}`;
    const { request, target } = JSON.parse(readFileSync(path('request.json'), 'utf8'));
    return {
      name,
      request: { ...usualRequest, ...request },
      target: { ...usualTarget, ...subject.target, ...withLessons(target) },
      whole: existsSync(path('upstream.json')) ? readFileSync(path('upstream.json'), 'utf8') : undefined,
      stream: existsSync(path('upstream.sse')) ? readFileSync(path('upstream.sse')) : undefined,
      refusal: readRefusal(`${folder}${name}`),
      expected: JSON.parse(readFileSync(path('expected.json'), 'utf8')),
    };
  });
}

function expectError(error: unknown, expected: ExpectedError): void {
  expect(error).toBeInstanceOf(GatewayError);
  expect(error).toMatchObject({ status: errorTable[expected.code].status, ...expected });
}

function caught(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

/** Feeds frames, checks what every decoder promises about its phase, and returns all events. */
function decodeFrames(
  subject: ProviderAdapter,
  { request, target }: Case,
  frames: Iterable<Frame>,
): ChatEvent[] {
  const decoder = subject.decoder(request, target);
  const events: ChatEvent[] = [];
  for (const frame of frames) {
    const before = decoder.phase;
    const batch = decoder.push(frame);
    if (before === 'done') expect(batch).toEqual([]);
    events.push(...batch);
  }
  events.push(...decoder.end());
  expect(decoder.phase).toBe('done');
  expect(decoder.end()).toEqual([]);
  return events;
}

/** What can be compared of an event: errors by what callers see of them. */
function comparable(events: readonly ChatEvent[]): unknown[] {
  return events.map((event) => {
    if (event.type !== 'error') return withMadeIds(event);
    const { code, message, reason, param } = event.error;
    return { type: 'error', code, message, reason, param };
  });
}

/** Ids that an adapter made where the upstream gave none are `call_made` in the recorded cases. */
function withMadeIds<T>(value: T): T {
  return JSON.parse(JSON.stringify(value), (_key, member: unknown) =>
    typeof member === 'string' ? member.replace(/^call_[0-9a-f]{24}$/, 'call_made') : member,
  );
}

const isTerminal = (event: ChatEvent): boolean => event.type === 'finish' || event.type === 'error';

function expectGrammar(events: readonly ChatEvent[]): void {
  expect(events.filter(isTerminal)).toHaveLength(1);
  expect(events.findIndex(isTerminal)).toBe(events.length - 1);
  const starts = events.filter((event) => event.type === 'start');
  expect(starts.length).toBeLessThanOrEqual(1);
  if (starts.length === 1) expect(events[0]?.type).toBe('start');
  else expect(events.map((event) => event.type)).toEqual(['error']);
  for (const event of events) {
    if (event.type === 'reasoning') expect(event.text).not.toBe('');
    if (event.type === 'text' && event.logprobs === undefined) expect(event.text).not.toBe('');
    if (event.type === 'tool-calls') expect(event.deltas).not.toEqual([]);
  }
}

/** The JSON document with a member that nobody knows in each of its objects. */
function withUnknownMembers(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withUnknownMembers);
  if (typeof value !== 'object' || value === null) return value;
  return { ...value, x_future: { deep: [1, 'two', null] } };
}

function testRequest(subject: ProviderAdapter, one: Case): void {
  const { request, target, expected } = one;
  if (expected.refused !== undefined) {
    const refused = expected.refused;
    it(`${one.name}: is refused before anything is sent`, () => {
      const error = subject.refuse(request, target);
      expectError(error, refused);
      expect(error?.message).toContain(target.provider);
    });
    return;
  }
  it(`${one.name}: is not refused`, () => {
    expect(subject.refuse(request, target)).toBeUndefined();
  });
  if (expected.call === undefined) return;
  const wanted = expected.call;
  it(`${one.name}: is sent as recorded`, () => {
    const call =
      request.kind === 'chat' ? subject.chat(request, target) : subject.completion?.(request, target);
    expect(call?.path).toBe(wanted.path);
    expect(JSON.parse(call?.body ?? '')).toEqual(wanted.body);
    expect(call?.stream).toBe(wanted.stream ?? request.stream);
    expect(call?.headers).toMatchObject({
      'content-type': 'application/json',
      authorization: `Bearer ${key}`,
    });
  });
}

function testWhole(subject: ProviderAdapter, one: Case, text: string): void {
  const { request, target, expected } = one;
  const decode = (body: unknown): ChatResult => subject.decodeResult(body, request, target);
  const expectAnswer = (body: unknown): void => {
    if (expected.error === undefined) expect(withMadeIds(decode(body))).toEqual(expected.result);
    else
      expectError(
        caught(() => decode(body)),
        expected.error,
      );
  };
  it(`${one.name}: decodes the whole answer`, () => expectAnswer(JSON.parse(text)));
  it(`${one.name}: ignores unknown members of the whole answer`, () => {
    expectAnswer(withUnknownMembers(JSON.parse(text)));
  });
}

function testRefusal(
  subject: ProviderAdapter,
  one: Case,
  { status, body }: NonNullable<Case['refusal']>,
): void {
  const wanted = one.expected.error;
  if (wanted === undefined) throw new Error(`${one.name} expects no error`);
  it(`${one.name}: reads the refusal`, () => {
    const contentType = body.startsWith('{') ? 'application/json' : 'text/event-stream';
    const answer = { status, contentType, body, retryAfterSeconds: undefined };
    expectError(subject.decodeError(answer, one.target), wanted);
  });
}

/** Frames that no adapter knows: a named event, and JSON without anything that means something. */
const strangeFrames: readonly Frame[] = [
  { event: 'x.future', data: '{"type":"x.future","content":"no"}' },
  { event: 'message', data: '{"type":"x.future","object":"x.future"}' },
];

function testStream(subject: ProviderAdapter, one: Case, bytes: Uint8Array): void {
  const { expected } = one;
  const frames = framesOf([bytes]);
  const decode = (list: Iterable<Frame>): ChatEvent[] => decodeFrames(subject, one, list);

  it(`${one.name}: decodes the stream`, () => {
    const events = decode(frames);
    expectGrammar(events);
    if (expected.error === undefined) expect(withMadeIds(collect(events))).toEqual(expected.result);
    else
      expectError(
        caught(() => collect(events)),
        expected.error,
      );
    if (expected.events === undefined) return;
    expect(withMadeIds(events.filter((event) => event.type !== 'error'))).toEqual(
      expected.events.filter((event) => event.type !== 'error'),
    );
  });

  it(`${one.name}: gives the same events byte by byte`, () => {
    const single = Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
    expect(comparable(decode(framesOf(single)))).toEqual(comparable(decode(frames)));
  });

  it(`${one.name}: gives the same events however the bytes are cut`, () => {
    const whole = comparable(decode(frames));
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 12 }), (offsets) => {
        expect(comparable(decode(framesOf(cutAt(bytes, offsets))))).toEqual(whole);
      }),
      { numRuns: 60 },
    );
  });

  it(`${one.name}: is an error when cut before the finish was said`, () => {
    for (let kept = 0; kept <= frames.length; kept += 1) {
      const decoder = subject.decoder(one.request, one.target);
      const events = frames.slice(0, kept).flatMap((frame) => decoder.push(frame));
      const finishWasSaid = decoder.phase !== 'open';
      events.push(...decoder.end());
      expect(events.filter(isTerminal)).toHaveLength(1);
      if (!finishWasSaid) expect(events.at(-1)?.type).toBe('error');
    }
  });

  it(`${one.name}: ignores unknown members and events`, () => {
    const strange = frames.flatMap((frame, i): Frame[] => {
      // Only behind the first frame: `start` carries the model of the first one.
      const around = i === 0 ? [] : strangeFrames;
      if (!frame.data.startsWith('{')) return [...around, frame];
      let json: unknown;
      try {
        json = JSON.parse(frame.data);
      } catch {
        return [...around, frame];
      }
      return [...around, { event: frame.event, data: JSON.stringify(withUnknownMembers(json)) }];
    });
    expect(comparable(decode(strange))).toEqual(comparable(decode(frames)));
  });
}

function testRefusals(subject: AdapterUnderTest): void {
  const target = { ...usualTarget, ...subject.target };
  for (const [name, value] of Object.entries(subject.unsupported)) {
    it(`refuses ${name} by its name and the provider's`, () => {
      const error = subject.adapter.refuse({ ...usualRequest, parameters: { [name]: value } }, target);
      expectError(error, { code: 'INVALID_PARAMS', param: name });
      expect(error?.message).toContain(name);
      expect(error?.message).toContain(target.provider);
    });
  }
}

function testErrors(subject: AdapterUnderTest): void {
  const { adapter } = subject;
  const target = { ...usualTarget, ...subject.target };
  const one: Case = {
    name: '',
    request: usualRequest,
    target,
    whole: undefined,
    stream: undefined,
    refusal: undefined,
    expected: {},
  };
  const leaky = `bad key ${key} at http://10.1.2.3:1234/v1 for Bearer ${key}`;
  const bodies = [
    JSON.stringify({ error: { message: leaky, code: leaky, type: leaky } }),
    JSON.stringify({ error: leaky }),
    JSON.stringify({ code: 'x', message: leaky }),
    leaky,
    `<html><body>${leaky}</body></html>`,
  ];
  const answer = (status: number, body: string) => ({
    status,
    body,
    contentType: 'application/json',
    retryAfterSeconds: undefined,
  });
  const expectNoSecret = (error: unknown): void => {
    expect(error).toBeInstanceOf(GatewayError);
    if (!(error instanceof Error)) return;
    for (const shown of [error.message, String(error.cause ?? '')]) {
      expect(shown).not.toContain('0123456789');
      expect(shown).not.toContain('10.1.2.3');
      expect(shown).not.toContain('<');
    }
  };

  it('shows no key, address or HTML in the error of any status', () => {
    for (const body of bodies) {
      for (const status of [200, 400, 401, 403, 404, 413, 422, 429, 500, 503]) {
        expectNoSecret(adapter.decodeError(answer(status, body), target));
      }
    }
  });

  it('shows no key in an error inside a whole answer', () => {
    for (const body of bodies.slice(0, 3)) {
      expectNoSecret(caught(() => adapter.decodeResult(JSON.parse(body), usualRequest, target)));
    }
  });

  it('shows no key in an error inside a stream', () => {
    for (const data of bodies) {
      for (const event of ['message', 'error']) {
        expectNoSecret(caught(() => collect(decodeFrames(adapter, one, [{ event, data }]))));
      }
    }
  });

  it.each([
    [400, 'INVALID_PARAMS'],
    [401, 'UNAUTHORIZED'],
    [402, 'UPSTREAM_ERROR'],
    [403, 'UPSTREAM_ERROR'],
    [404, 'UPSTREAM_ERROR'],
    [408, 'TIMEOUT'],
    [413, 'INVALID_PARAMS'],
    [422, 'INVALID_PARAMS'],
    [429, 'RATE_LIMITED'],
    [500, 'UPSTREAM_ERROR'],
    [503, 'UPSTREAM_ERROR'],
  ] as const)('makes %i of the upstream %s', (status, code) => {
    const error = adapter.decodeError(answer(status, '{"error":{"message":"no"}}'), target);
    expectError(error, { code });
    expect(error.upstreamStatus).toBe(status);
  });

  it('ends with an error on JSON that is no object, and on none at all', () => {
    for (const data of ['1', '"x"', '[]', '{', 'hello']) {
      const events = decodeFrames(adapter, one, [{ event: 'message', data }]);
      expect(comparable(events)).toMatchObject([{ type: 'error', code: 'UPSTREAM_ERROR', reason: 'format' }]);
    }
  });

  it('passes over an event that is null', () => {
    const events = decodeFrames(adapter, one, [{ event: 'message', data: 'null' }]);
    expect(comparable(events)).toMatchObject([{ type: 'error', code: 'UPSTREAM_ERROR', reason: 'cut' }]);
  });

  it('throws the error of a body that is no answer', () => {
    for (const body of [null, 1, 'x', [], {}]) {
      expectError(
        caught(() => adapter.decodeResult(body, usualRequest, target)),
        { code: 'UPSTREAM_ERROR', reason: 'format' },
      );
    }
  });
}

/** Declares the whole suite for one adapter. */
export function describeAdapter(subject: AdapterUnderTest): void {
  describe(subject.adapter.name, () => {
    for (const one of readCases(subject)) {
      testRequest(subject.adapter, one);
      if (one.whole !== undefined) testWhole(subject.adapter, one, one.whole);
      if (one.stream !== undefined) testStream(subject.adapter, one, one.stream);
      if (one.refusal !== undefined) testRefusal(subject.adapter, one, one.refusal);
    }
    testRefusals(subject);
    testErrors(subject);
  });
}
