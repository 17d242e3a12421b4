import { expect, it } from 'vitest';
import { GatewayError } from '../../src/chat/errors.ts';
import { Call } from '../../src/gateway/call.ts';
import { callLines } from '../../src/gateway/call-log.ts';

it('is one line of JSON with what is known of a call', () => {
  const call = new Call('an-id', { id: 'key-1', address: '::1', keyPrefix: 'sk-gw-abcdef' }, '/api/llm/chat');
  call.model = 'm';
  call.startTry('lmstudio', 'upstream-m');
  call.usage = { input_tokens: 1, output_tokens: 2, total_tokens: 3 };
  call.end('stop');
  call.close();
  const line = callLines([{ call, status: 200 }]);
  expect(line.endsWith('\n')).toBe(true);
  const { time, totalMs, ...rest } = JSON.parse(line);
  expect(new Date(time).toISOString()).toBe(time);
  expect(Number.isInteger(totalMs)).toBe(true);
  expect(rest).toEqual({
    level: 'info',
    requestId: 'an-id',
    endpoint: '/api/llm/chat',
    key: 'sk-gw-abcdef',
    model: 'm',
    provider: 'lmstudio',
    upstreamModel: 'upstream-m',
    stream: false,
    ending: 'stop',
    status: 200,
    inputTokens: 1,
    outputTokens: 2,
    queuedMs: 0,
    attempts: 1,
    msg: 'call',
  });
});

it('names what the route went without', () => {
  const call = new Call('an-id', { id: 'k', address: '::1' }, '/v1/chat/completions');
  call.startTry('lmstudio', 'm', ['reasoning_effort', '聊']);
  const line: unknown = JSON.parse(callLines([{ call, status: 200 }]));
  expect(line).toMatchObject({ ignored: 'reasoning_effort, %E8%81%8A' });
});

it('names each call as it is, whatever was named before', () => {
  const callBy = (key: string, model: string, stream: boolean, provider: string): Call => {
    const call = new Call('an-id', { id: key, address: '::1', keyPrefix: key }, '/api/llm/chat');
    call.model = model;
    call.stream = stream;
    call.startTry(provider, `${provider}-${model}`);
    return call;
  };
  const names = [
    ['k', 'm', false, 'p'],
    ['k', 'm', false, 'p'],
    ['l', 'm', false, 'p'],
    ['l', 'n', false, 'p'],
    ['l', 'n', true, 'p'],
    ['l', 'n', true, 'q'],
    ['k', 'm', false, 'p'],
  ] as const;
  const lines = callLines(
    names.map(([key, model, stream, provider]) => ({
      call: callBy(key, model, stream, provider),
      status: 200,
    })),
  );
  const read = lines
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(read.map(({ key, model, stream, provider }) => [key, model, stream, provider])).toEqual(names);
  expect(read.map(({ upstreamModel }) => upstreamModel)).toEqual(
    names.map(([, model, , provider]) => `${provider}-${model}`),
  );
});

it('stays one line whatever a client or an upstream calls a model', () => {
  const call = new Call('an-id', { id: 'x', address: '::1' }, '/v1/completions');
  call.model = 'a"b\\c\n{"level":"fatal"}\u2028\ud800';
  call.startTry('lmstudio', 'x","y":"\n');
  const cause = new Error('a "cause"\nof two lines');
  call.end('error', new GatewayError('UPSTREAM_ERROR', { cause }));
  const line = callLines([{ call, status: 502 }]);
  expect(line.split('\n')).toHaveLength(2);
  expect(JSON.parse(line)).toMatchObject({
    model: call.model,
    upstreamModel: call.upstreamModel,
    error: 'UPSTREAM_ERROR',
    ending: 'error',
    status: 502,
  });
});

it('leaves out a count that is no number', () => {
  const call = new Call('an-id', { id: 'x', address: '::1' }, '/api/llm/chat');
  call.usage = { input_tokens: 1, output_tokens: Number.POSITIVE_INFINITY, total_tokens: 3 };
  const line = JSON.parse(callLines([{ call, status: 200 }]));
  expect(line).toMatchObject({ inputTokens: 1 });
  expect(line).not.toHaveProperty('outputTokens');
});
