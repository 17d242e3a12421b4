/** What an upstream's refusals teach about how a model must be asked, and that it is asked so from then on. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { z } from 'zod';
import { faults } from '../simulators/faults.ts';
import { startUpstreams, type Upstreams } from './upstreams.ts';

let upstreams: Upstreams;
// A gateway for each test: what one teaches, the next would know.
beforeEach(async () => {
  // What is learnt costs no retry.
  upstreams = await startUpstreams({ UPSTREAM_MAX_RETRIES: '0' });
});
afterEach(() => upstreams.close());

const asked = (): readonly Record<string, unknown>[] =>
  upstreams.of.openai.server.requests
    .filter(({ generation }) => generation)
    .map(({ body }) => z.record(z.string(), z.unknown()).parse(body));

const ask = (path: string, body: object): Promise<Response> =>
  upstreams.gateway.post(path, {
    model: 'local-chat',
    messages: [{ role: 'user', content: '你好' }],
    ...body,
  });

it('the length limit goes by its newer name where the older one was refused', async () => {
  const words =
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
  upstreams.of.openai.next(faults.refused(400, words, 'unsupported_parameter'));
  expect((await ask('/v1/chat/completions', { max_completion_tokens: 50 })).status).toBe(200);
  expect((await ask('/api/llm/chat', { max_tokens: 60 })).status).toBe(200);
  expect(asked().map((body) => [body['max_tokens'], body['max_completion_tokens']])).toEqual([
    [50, undefined],
    [undefined, 50],
    [undefined, 60],
  ]);
});

it('stream_options are left out where they were refused', async () => {
  upstreams.of.openai.next(faults.refused(422, "property 'stream_options' is unsupported"));
  for (const path of ['/v1/chat/completions', '/api/llm/chat']) {
    const response = await ask(path, { stream: true });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain('"finish_reason":"stop"');
  }
  expect(asked().map((body) => 'stream_options' in body)).toEqual([true, false, false]);
});

it('a refusal that taught nothing is the answer', async () => {
  const words = "'stream_options' is wrong, whatever it is";
  upstreams.of.openai.next(faults.refused(400, words), faults.refused(400, words));
  expect((await ask('/api/llm/chat', { stream: true })).status).toBe(400);
});
