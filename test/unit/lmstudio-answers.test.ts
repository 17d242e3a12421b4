/** What the real LM Studio does on its wires, each peculiarity by its name. Streams' framing is in the recorded cases. */
import { describe, expect, it } from 'vitest';
import { lmstudioV0 } from '../../src/adapters/lmstudio-v0.ts';
import { lmstudioV1 } from '../../src/adapters/lmstudio-v1.ts';
import type { ProviderAdapter } from '../../src/chat/adapter.ts';
import { collect } from '../../src/chat/events.ts';
import type { ChatRequest, Parameters } from '../../src/chat/request.ts';
import { usualTarget as target } from '../conformance/adapter.ts';

const request = (parameters: Parameters = {}): ChatRequest => ({
  kind: 'chat',
  model: 'm',
  stream: true,
  includeProgress: false,
  parameters,
  messages: [{ role: 'user', content: 'hi' }],
});

const answer = (status: number, body: unknown) => ({
  status,
  body: typeof body === 'string' ? body : JSON.stringify(body),
  contentType: 'application/json',
  retryAfterSeconds: undefined,
});

function decode(adapter: ProviderAdapter, frames: readonly object[], parameters: Parameters = {}) {
  const decoder = adapter.decoder(request(parameters), target);
  const events = frames.flatMap((data) => decoder.push({ event: 'message', data: JSON.stringify(data) }));
  return [...events, ...decoder.end()];
}

describe.each([lmstudioV0, lmstudioV1])('$name refusals over HTTP', (adapter) => {
  it('is a 401 that names the provider when the server wants a token', () => {
    const error = adapter.decodeError(
      answer(401, { error: { message: 'Malformed LM Studio API token' } }),
      target,
    );
    expect(error).toMatchObject({ status: 401, message: '未授权:API Key缺失或无效(home)' });
  });

  it('is a 502 with its words when no model is loaded', () => {
    const said = {
      message: 'No models loaded. Please load a model in the developer page.',
      type: 'invalid_request_error',
      param: 'model',
      code: 'model_not_found',
    };
    expect(adapter.decodeError(answer(404, { error: said }), target)).toMatchObject({
      status: 502,
      message: `LM Studio返回错误:${said.message}`,
      retryable: false,
    });
  });

  it('is a 400 with its words for an error that is plain text', () => {
    const words = "'response_format.type' must be 'json_schema' or 'text'";
    expect(adapter.decodeError(answer(400, { error: words }), target)).toMatchObject({
      code: 'INVALID_PARAMS',
      message: `参数值超出有效范围:LM Studio返回错误:${words}`,
    });
  });

  it('is a 400 for a prompt that does not fit, though the server says 500', () => {
    const error = adapter.decodeError(answer(500, { error: 'Context size has been exceeded.' }), target);
    expect(error).toMatchObject({ code: 'INVALID_PARAMS', reason: 'context_length', upstreamStatus: 500 });
  });

  it('has no words for a page of HTML', () => {
    const error = adapter.decodeError(answer(502, '<html><h1>Bad Gateway</h1></html>'), target);
    expect(error).toMatchObject({ code: 'UPSTREAM_ERROR', message: 'LM Studio返回错误:响应格式错误' });
  });

  it('sends no authorization without a key', () => {
    const { headers } = adapter.chat(request(), { ...target, apiKey: undefined });
    expect(headers).not.toHaveProperty('authorization');
  });
});

describe('v0', () => {
  it('asks for usage in streams always, and never else', () => {
    const body = (stream: boolean) =>
      JSON.parse(lmstudioV0.chat({ ...request(), stream }, target).body ?? '');
    expect(body(true).stream_options).toEqual({ include_usage: true });
    expect(body(false)).not.toHaveProperty('stream_options');
  });

  it('gives the text that came with the word of a failed stop, then the error', () => {
    const chunk = {
      choices: [{ delta: { content: 'a' }, finish_reason: 'stop' }],
      stats: { stop_reason: 'failed' },
    };
    expect(decode(lmstudioV0, [chunk]).map((event) => event.type)).toEqual(['start', 'text', 'error']);
  });

  it('is an error by a failed stop that no finish reason accompanies', () => {
    const chunk = { choices: [{ delta: {}, finish_reason: null }], stats: { stop_reason: 'modelUnloaded' } };
    expect(decode(lmstudioV0, [chunk]).at(-1)).toMatchObject({
      type: 'error',
      error: { reason: 'stopped', message: 'LM Studio返回错误:modelUnloaded' },
    });
  });
});

describe('v1', () => {
  const result = {
    model_instance_id: 'm:2',
    output: [{ type: 'message', content: 'ok' }],
    stats: { input_tokens: 1, total_output_tokens: 2 },
  };

  it('says something for or passes over each of the nineteen kinds of event', () => {
    const tool = { tool: 'f', provider_info: { type: 'plugin', plugin_id: 'mcp/x' } };
    const events = decode(lmstudioV1, [
      { type: 'chat.start', model_instance_id: 'm:2' },
      { type: 'model_load.start', model_instance_id: 'm:2' },
      { type: 'model_load.progress', model_instance_id: 'm:2', progress: 0.5 },
      { type: 'model_load.end', model_instance_id: 'm:2', load_time_seconds: 1 },
      { type: 'prompt_processing.start' },
      { type: 'prompt_processing.progress', progress: 0.5 },
      { type: 'prompt_processing.end' },
      { type: 'reasoning.start' },
      { type: 'reasoning.delta', content: 'r' },
      { type: 'reasoning.end' },
      { type: 'tool_call.start', ...tool },
      { type: 'tool_call.arguments', ...tool, arguments: { a: 1 } },
      { type: 'tool_call.success', ...tool, arguments: { a: 1 }, output: 'done' },
      { type: 'tool_call.start', ...tool },
      { type: 'tool_call.failure', reason: 'bad', metadata: { type: 'invalid_arguments', tool_name: 'f' } },
      { type: 'message.start' },
      { type: 'message.delta', content: 'ok' },
      { type: 'message.end' },
      { type: 'error', error: { type: 'unknown', message: 'broken' } },
      { type: 'chat.end', result },
    ]);
    expect(events.map((event) => (event.type === 'progress' ? event.progress.stage : event.type))).toEqual([
      'start',
      ...['model_load', 'model_load', 'model_load'],
      ...['prompt_processing', 'prompt_processing', 'prompt_processing'],
      'reasoning',
      ...['tool_call', 'tool_call', 'tool_call', 'server-tool'],
      ...['tool_call', 'tool_call', 'server-tool'],
      'text',
      'error',
    ]);
  });

  it('does not tell the text again that the end repeats', () => {
    const events = decode(lmstudioV1, [
      { type: 'chat.start', model_instance_id: 'm:2' },
      { type: 'message.delta', content: 'o' },
      { type: 'chat.end', result },
    ]);
    expect(collect(events).content).toBe('o');
  });

  it('names the instance that answered even where the stream begins with its end', () => {
    expect(decode(lmstudioV1, [{ type: 'chat.end', result }])[0]).toEqual({ type: 'start', model: 'm:2' });
  });

  it('is length from the asked limit on, and stop below it', () => {
    const reason = (max_tokens: number) =>
      collect(decode(lmstudioV1, [{ type: 'chat.end', result }], { max_tokens })).finish.reason;
    expect([reason(2), reason(3)]).toEqual(['length', 'stop']);
  });

  it('forgets what the call before told of tools', () => {
    const events = decode(lmstudioV1, [
      { type: 'tool_call.start', tool: 'f', provider_info: { type: 'plugin' } },
      { type: 'tool_call.arguments', arguments: { a: 1 } },
      { type: 'tool_call.success', output: 'x' },
      { type: 'tool_call.start', tool: 'g' },
      { type: 'tool_call.success', output: 'y' },
      { type: 'tool_call.failure', reason: 'no such tool', metadata: { tool_name: 'h' } },
      { type: 'tool_call.failure', reason: 'nameless' },
      { type: 'chat.end', result },
    ]);
    expect(collect(events).serverToolCalls).toEqual([
      { tool: 'f', arguments: { a: 1 }, output: 'x', provider_info: { type: 'plugin' } },
      { tool: 'g', output: 'y' },
      { tool: 'h', reason: 'no such tool' },
      { tool: '', reason: 'nameless' },
    ]);
  });

  it('asks that the chat is not kept unless the caller wants it', () => {
    const store = (parameters: Parameters) =>
      JSON.parse(lmstudioV1.chat(request(parameters), target).body ?? '').store;
    expect([store({}), store({ store: true })]).toEqual([false, true]);
  });

  it('is an INVALID_PARAMS that says to upgrade when a server older than 0.4 is asked for a stream', () => {
    const body = { error: 'Unexpected endpoint or method. (POST /api/v1/chat)' };
    const error = lmstudioV1.decodeError(answer(200, body), target);
    expect(error).toMatchObject({ code: 'INVALID_PARAMS', message: expect.stringContaining('0.4.0') });
    expect(decode(lmstudioV1, [body], { min_p: 0.1 })).toMatchObject([
      { type: 'error', error: { code: 'INVALID_PARAMS', param: 'min_p' } },
    ]);
  });

  it.each([
    ['invalid_request', false],
    ['model_not_found', false],
    ['internal_error', true],
    ['mcp_connection_error', true],
  ])('tells whether another try makes sense after %s', (type, retryable) => {
    const events = decode(lmstudioV1, [{ type: 'error', error: { type, message: 'x' } }]);
    expect(events).toMatchObject([{ type: 'error', error: { retryable } }]);
  });
});
