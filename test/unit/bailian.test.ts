import { describe, expect, it } from 'vitest';
import { bailian } from '../../src/adapters/bailian.ts';
import type { Target } from '../../src/chat/adapter.ts';
import { GatewayError } from '../../src/chat/errors.ts';
import type { ChatEvent } from '../../src/chat/events.ts';
import type { ChatRequest, CompletionRequest, Message, Parameters } from '../../src/chat/request.ts';
import { FrameReader } from '../../src/upstream/sse.ts';

const target = (model: string, more: Partial<Target> = {}): Target => ({
  provider: 'bailian',
  displayName: '百炼平台',
  model,
  apiKey: 'sk-secret-0123456789',
  apis: undefined,
  api: 'auto',
  info: undefined,
  ...more,
});

const chat = (
  parameters: Parameters = {},
  messages: readonly Message[] = [{ role: 'user', content: '你好' }],
  stream = false,
): ChatRequest => ({ kind: 'chat', model: 'title', messages, parameters, stream, includeProgress: false });

const completion: CompletionRequest = {
  kind: 'completion',
  model: 'title',
  prompt: '从前',
  parameters: {},
  stream: false,
  includeProgress: false,
};

const adapter = bailian.adapterFor(chat(), target('qwen-plus'));

const body = (model: string, request: ChatRequest = chat(), more: Partial<Target> = {}): unknown =>
  JSON.parse(adapter.chat(request, target(model, more)).body ?? '');

const refusal = (model: string, parameters: Parameters, messages?: readonly Message[]): unknown =>
  adapter.refuse(chat(parameters, messages), target(model));

const tool = { type: 'function', function: { name: 'f', parameters: {} } } as const;

function decode(sse: string): ChatEvent[] {
  const decoder = adapter.decoder(chat({}, undefined, true), target('qwen-plus'));
  const reader = new FrameReader();
  const frames = [...reader.push(Buffer.from(sse)), ...reader.end()];
  const events = frames.flatMap((frame) => decoder.push(frame));
  return decoder.phase === 'done' ? events : [...events, ...decoder.end()];
}

const chunk = (delta: unknown, finish_reason: string | null = null): string =>
  `data: ${JSON.stringify({ choices: [{ delta, index: 0, logprobs: null, finish_reason }], usage: null, model: 'qwen-plus', id: 'x' })}\n\n`;

const usageChunk =
  'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":4,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":3}}}\n\n';

const done = 'data: [DONE]\n\n';

function failureOf(events: readonly ChatEvent[]): GatewayError {
  const last = events.at(-1);
  if (last?.type !== 'error') throw new Error(`no error but ${JSON.stringify(last)}`);
  return last.error;
}

const refused = (status: number, answer: string | object, contentType = 'application/json'): GatewayError =>
  adapter.decodeError(
    {
      status,
      contentType,
      body: typeof answer === 'string' ? answer : JSON.stringify(answer),
      retryAfterSeconds: undefined,
    },
    target('qwen-plus'),
  );

const enveloped = (code: string, message: string, type = code): object => ({
  error: { message, type, param: null, code },
  request_id: 'r-1',
});

describe('what is sent', () => {
  it('names an explicit stream:false and no stream_options on a plain call', () => {
    expect(body('qwen-max')).toEqual({
      model: 'qwen-max',
      messages: [{ role: 'user', content: '你好' }],
      stream: false,
    });
  });

  it('always asks for usage in streams', () => {
    expect(body('qwen-max', chat({}, undefined, true))).toMatchObject({
      stream: true,
      stream_options: { include_usage: true },
    });
  });

  it('goes to the compatible mode with the key as bearer', () => {
    const call = adapter.chat(chat(), target('qwen-plus'));
    expect(call).toMatchObject({
      method: 'POST',
      path: '/chat/completions',
      headers: { authorization: 'Bearer sk-secret-0123456789' },
    });
  });

  it('joins the text parts of a message into one string', () => {
    const parts: Message = {
      role: 'user',
      content: [
        { type: 'text', text: '你' },
        { type: 'text', text: '好' },
      ],
    };
    expect(body('qwen-turbo', chat({}, [parts]))).toMatchObject({ messages: [{ content: '你好' }] });
  });

  it('sends a picture in parts to a model that sees', () => {
    const content = [
      { type: 'text', text: '这是什么' },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
    ] as const;
    const request = chat({}, [{ role: 'user', content: [...content] }]);
    expect(adapter.refuse(request, target('qwen-vl-plus'))).toBeUndefined();
    expect(body('qwen-vl-plus', request)).toMatchObject({ messages: [{ content }] });
  });

  it('calls repeat_penalty repetition_penalty', () => {
    const sent = body('qwen-plus', chat({ repeat_penalty: 1.1 }));
    expect(sent).toMatchObject({ repetition_penalty: 1.1 });
    expect(sent).not.toHaveProperty('repeat_penalty');
  });

  it('limits the length with max_tokens where the model is older', () => {
    expect(body('qwen-plus', chat({ max_tokens: 9 }))).toMatchObject({ max_tokens: 9 });
  });

  it('limits the length with max_completion_tokens where the model is newer', () => {
    const sent = body('qwen3.7-max', chat({ max_tokens: 9 }));
    expect(sent).toMatchObject({ max_completion_tokens: 9 });
    expect(sent).not.toHaveProperty('max_tokens');
  });

  it('allows parallel tool calls unless the caller forbids them', () => {
    expect(body('qwen-plus', chat({ tools: [tool] }))).toMatchObject({ parallel_tool_calls: true });
    expect(body('qwen-plus', chat({ tools: [tool], parallel_tool_calls: false }))).toMatchObject({
      parallel_tool_calls: false,
    });
  });

  it('drops the reasoning of earlier turns', () => {
    const history: Message = { role: 'assistant', content: '好', reasoning_content: '想' };
    expect(body('qwen-plus', chat({}, [history]))).toMatchObject({
      messages: [{ role: 'assistant', content: '好' }],
    });
    expect(JSON.stringify(body('qwen-plus', chat({}, [history])))).not.toContain('想');
  });

  it('keeps the reasoning of earlier turns where the model reads it', () => {
    const history: Message = { role: 'assistant', content: '好', reasoning_content: '想' };
    expect(body('qwen3.8-max', chat({}, [history]))).toMatchObject({
      messages: [{ content: '好', reasoning_content: '想' }],
    });
  });

  it('gives an assistant message without text an empty string', () => {
    const call = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } } as const;
    const history: Message = { role: 'assistant', content: null, tool_calls: [call] };
    expect(body('qwen-plus', chat({}, [history]))).toMatchObject({ messages: [{ content: '' }] });
  });
});

describe('thinking', () => {
  it.each([
    ['qwen-plus', false],
    ['qwen3-max', false],
    ['qwen3.5-plus', true],
    ['qwen3-235b-a22b', true],
  ])('tells hybrid %s its own default: %s', (model, enabled) => {
    expect(body(model)).toMatchObject({ enable_thinking: enabled });
  });

  it.each(['qwen-max', 'qwen3-coder-plus', 'qwq-plus', 'deepseek-v3.2'])('tells %s nothing', (model) => {
    expect(body(model)).not.toHaveProperty('enable_thinking');
  });

  it('maps effort to a budget', () => {
    expect(body('qwen-plus', chat({ reasoning: 'medium' }))).toMatchObject({
      enable_thinking: true,
      thinking_budget: 8192,
    });
  });

  it('maps effort to reasoning_effort for Qwen3.8, without a budget', () => {
    const sent = body('qwen3.8-max', chat({ reasoning: 'high' }));
    expect(sent).toMatchObject({ enable_thinking: true, reasoning_effort: 'xhigh' });
    expect(sent).not.toHaveProperty('thinking_budget');
  });

  it('switches thinking off and on without a budget', () => {
    expect(body('qwen3.5-plus', chat({ reasoning: 'off' }))).toMatchObject({ enable_thinking: false });
    const on = body('qwen-plus', chat({ reasoning: 'on' }));
    expect(on).toMatchObject({ enable_thinking: true });
    expect(on).not.toHaveProperty('thinking_budget');
  });

  it('lets off pass where a model never thinks', () => {
    expect(refusal('qwen-max', { reasoning: 'off' })).toBeUndefined();
    expect(body('qwen-max', chat({ reasoning: 'off' }))).not.toHaveProperty('enable_thinking');
  });

  it.each([
    ['qwen-max', 'low'],
    ['qwen3-coder-plus', 'on'],
    ['qwq-plus', 'off'],
    ['qwq-plus', 'high'],
  ] as const)('refuses %s with reasoning %s by name', (model, reasoning) => {
    expect(refusal(model, { reasoning })).toMatchObject({
      code: 'INVALID_PARAMS',
      param: 'reasoning',
      message: expect.stringContaining('百炼平台(bailian)'),
    });
  });

  it('asks a model it does not know, in the words of most', () => {
    expect(body('deepseek-v3.2', chat({ reasoning: 'low' }))).toMatchObject({
      enable_thinking: true,
      thinking_budget: 2048,
    });
  });

  it.each([
    ['response_format', { response_format: { type: 'json_object' } }],
    ['tool_choice', { tools: [tool], tool_choice: { type: 'function', function: { name: 'f' } } }],
  ] as const)('does not think by default where %s forbids it', (_name, parameters) => {
    expect(body('qwen3.5-plus', chat({ ...parameters } as Parameters))).toMatchObject({
      enable_thinking: false,
    });
  });

  it.each([
    ['response_format', { response_format: { type: 'json_object' } }],
    ['tool_choice', { tools: [tool], tool_choice: { type: 'function', function: { name: 'f' } } }],
  ] as const)('refuses %s beside thinking that was asked for', (name, parameters) => {
    expect(refusal('qwen3.5-plus', { ...parameters, reasoning: 'on' } as Parameters)).toMatchObject({
      param: name,
    });
    expect(refusal('qwq-plus', { ...parameters } as Parameters)).toMatchObject({ param: name });
  });
});

describe('what is refused by name', () => {
  it.each([
    ['frequency_penalty', { frequency_penalty: 1 }],
    ['logit_bias', { logit_bias: { 1: 5 } }],
    ['min_p', { min_p: 0.1 }],
    ['ttl', { ttl: 60 }],
    ['draft_model', { draft_model: 'd' }],
    ['context_length', { context_length: 4096 }],
    ['integrations', { integrations: ['mcp/x'] }],
    ['store', { store: true }],
    ['previous_response_id', { previous_response_id: 'r' }],
    ['seed', { seed: -1 }],
    ['seed', { seed: 2 ** 31 }],
    ['temperature', { temperature: 2 }],
    ['top_p', { top_p: 0 }],
    ['tool_choice', { tools: [tool], tool_choice: 'required' }],
    ['logprobs', { logprobs: true }],
  ] as readonly (readonly [string, Parameters])[])('%s', (name, parameters) => {
    expect(refusal('qwen-plus', parameters)).toMatchObject({
      code: 'INVALID_PARAMS',
      param: name,
      message: expect.stringMatching(new RegExp(`^参数值超出有效范围:${name}: 百炼平台\\(bailian\\)`)),
    });
  });

  it('more than 5 top_logprobs', () => {
    expect(refusal('qwen3-vl-plus', { logprobs: true, top_logprobs: 6 })).toMatchObject({
      param: 'top_logprobs',
    });
    expect(refusal('qwen3-vl-plus', { logprobs: true, top_logprobs: 5 })).toBeUndefined();
  });

  it('a picture for a model that sees none, by its place', () => {
    const content = [{ type: 'image_url' as const, image_url: { url: 'https://example.com/a.png' } }];
    expect(refusal('qwen-turbo', {}, [{ role: 'user', content }])).toMatchObject({
      code: 'INVALID_MESSAGES',
      param: 'messages[0].content[0]',
    });
  });

  it('a picture behind an address that the platform does not fetch', () => {
    const content = [{ type: 'image_url' as const, image_url: { url: 'oss://bucket/a.png' } }];
    expect(refusal('qwen-vl-plus', {}, [{ role: 'user', content }])).toMatchObject({
      code: 'INVALID_MESSAGES',
    });
  });

  it('text completion', () => {
    expect(adapter.refuse(completion, target('qwen-plus'))).toMatchObject({
      code: 'INVALID_PARAMS',
      param: 'prompt',
    });
  });
});

describe('models that only stream', () => {
  it.each(['qwq-plus', 'qvq-max', 'qwen3-235b-a22b-thinking-2507', 'qwen-omni-turbo'])(
    'streams a plain call of %s',
    (model) => {
      const call = adapter.chat(chat(), target(model));
      expect(call.stream).toBe(true);
      expect(JSON.parse(call.body ?? '')).toMatchObject({
        stream: true,
        stream_options: { include_usage: true },
      });
    },
  );

  it('streams a plain call of an open hybrid only while it thinks', () => {
    expect(adapter.chat(chat(), target('qwen3-32b')).stream).toBe(true);
    expect(adapter.chat(chat({ reasoning: 'off' }), target('qwen3-32b')).stream).toBe(false);
  });

  it('streams a plain call of a model that refused one before', () => {
    expect(adapter.chat(chat(), target('qwen9', { learnt: new Set(['stream_only'] as const) })).stream).toBe(
      true,
    );
  });

  it.each([
    'This model only support stream mode, please enable the stream parameter to access the model. ',
    '<400> InternalError.Algo.InvalidParameter: This model only support stream mode, please enable the stream parameter to access the model.',
    'parameter.enable_thinking must be set to false for non-streaming calls',
    'parameter.enable_thinking only support stream call',
    'current user api does not support http call.',
  ])('recognizes the words of one: %s', (words) => {
    expect(refused(400, enveloped('invalid_parameter_error', words))).toMatchObject({
      reason: 'stream_only',
      code: 'INVALID_PARAMS',
    });
  });
});

describe('streams', () => {
  it('reads the recorded form: role first, usage-only chunk last', () => {
    const sse =
      chunk({ content: '', role: 'assistant' }) + chunk({ content: 'Hel' }) + chunk({ content: 'lo' });
    expect(decode(sse + chunk({ content: '' }, 'stop') + usageChunk + done)).toEqual([
      { type: 'start', model: 'qwen-plus' },
      { type: 'text', text: 'Hel' },
      { type: 'text', text: 'lo' },
      { type: 'usage', usage: { input_tokens: 12, output_tokens: 4, total_tokens: 16 } },
      { type: 'stats', stats: { cached_tokens: 3 } },
      { type: 'finish', reason: 'stop', raw: 'stop' },
    ]);
  });

  it('reads reasoning beside null content, and content beside null reasoning', () => {
    const sse =
      chunk({ content: null, role: 'assistant', reasoning_content: '' }) +
      chunk({ content: null, reasoning_content: '想' }) +
      chunk({ content: '答', reasoning_content: null }) +
      chunk({ content: '', reasoning_content: null }, 'stop');
    expect(decode(sse).slice(1)).toEqual([
      { type: 'reasoning', text: '想' },
      { type: 'text', text: '答' },
      { type: 'finish', reason: 'stop', raw: 'stop' },
    ]);
  });

  it('keeps the first id of a tool call and passes no empty one on', () => {
    const call = (more: object): object => ({
      content: null,
      tool_calls: [{ index: 0, type: 'function', ...more }],
    });
    const sse =
      chunk(call({ id: 'call_a', function: { name: 'f', arguments: '' } })) +
      chunk(call({ id: '', function: { arguments: '{"x":1' } })) +
      chunk(call({ id: '', function: { arguments: null } })) +
      'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"}"},"index":0,"id":"","type":"function"}]},"index":0}]}\n\n' +
      chunk({}, 'tool_calls');
    expect(decode(sse).slice(1)).toEqual([
      {
        type: 'tool-calls',
        deltas: [{ index: 0, id: 'call_a', type: 'function', function: { name: 'f', arguments: '' } }],
      },
      { type: 'tool-calls', deltas: [{ index: 0, function: { arguments: '{"x":1' } }] },
      { type: 'tool-calls', deltas: [{ index: 0, function: { arguments: '}' } }] },
      { type: 'finish', reason: 'tool_calls', raw: 'tool_calls' },
    ]);
  });

  it('takes a close after the finish as the end', () => {
    expect(decode(chunk({ content: 'a' }) + chunk({ content: '' }, 'length')).at(-1)).toEqual({
      type: 'finish',
      reason: 'length',
      raw: 'length',
    });
  });

  it('takes a close before the finish as a failure', () => {
    expect(failureOf(decode(chunk({ content: 'a' })))).toMatchObject({
      code: 'UPSTREAM_ERROR',
      reason: 'cut',
    });
  });

  it('reads native frames', () => {
    const native = (content: unknown, finish: string): string =>
      `id:1\nevent:result\n:HTTP_STATUS/200\ndata:${JSON.stringify({ output: { choices: [{ message: { content, role: 'assistant' }, finish_reason: finish }] }, usage: { total_tokens: 10, input_tokens: 8, output_tokens: 2, output_tokens_details: { reasoning_tokens: 1 } }, request_id: 'r' })}\n\n`;
    expect(
      decode(native('He', 'null') + native([{ text: 'llo' }], 'null') + native('', 'stop')).slice(1),
    ).toEqual([
      { type: 'text', text: 'He' },
      { type: 'text', text: 'llo' },
      { type: 'usage', usage: { input_tokens: 8, output_tokens: 2, total_tokens: 10 } },
      { type: 'stats', stats: { reasoning_tokens: 1 } },
      { type: 'finish', reason: 'stop', raw: 'stop' },
    ]);
  });

  it('does not mistake an answer about native frames for one', () => {
    const text = '{"output":{"text":"x"},"finish_reason":"error_finish"}';
    expect(decode(chunk({ content: text }) + chunk({}, 'stop'))[1]).toEqual({ type: 'text', text });
  });

  it('fails on an error frame in a 200 stream', () => {
    const frame = `data: ${JSON.stringify(enveloped('limit_requests', 'You have exceeded your current request limit.'))}\n\n`;
    expect(failureOf(decode(frame))).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
  });

  it('fails on a native error frame in a 200 stream', () => {
    const frame =
      'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"InvalidParameter","message":"Range of top_p should be (0.0, 1.0]","request_id":"r-7"}\n\n';
    expect(failureOf(decode(chunk({ content: 'a' }) + frame))).toMatchObject({
      code: 'INVALID_PARAMS',
      message: '参数值超出有效范围:百炼平台返回错误:Range of top_p should be (0.0, 1.0]',
    });
  });

  it('digs the error out of an error_finish chunk and does not pass its text on', () => {
    const block =
      'id:1\nevent:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling.AllocationQuota","message":"Allocated quota exceeded."}';
    const events = decode(chunk({ content: 'a' }) + chunk({ content: block }, 'error_finish'));
    expect(events.filter((event) => event.type === 'text')).toEqual([{ type: 'text', text: 'a' }]);
    expect(failureOf(events)).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
  });

  it('reads the status of an error_finish block that names no code', () => {
    const block = 'id:1\nevent:error\n:HTTP_STATUS/503\ndata:{"message":"Too many requests."}';
    expect(failureOf(decode(chunk({ content: block }, 'error_finish')))).toMatchObject({
      code: 'UPSTREAM_ERROR',
      upstreamStatus: 503,
    });
  });

  it.each([
    'Throttling.AllocationQuota: Allocated quota exceeded, please increase your quota limit.',
    'Allocated quota exceeded, please increase your quota limit.',
    'Requests rate limit exceeded, please try again later.',
    'You have exceeded your current request limit.',
    'Too many requests in route. Please try again later.',
  ])('knows a throttle by the bare words of an error_finish chunk: %s', (words) => {
    expect(failureOf(decode(chunk({ content: words }, 'error_finish')))).toMatchObject({
      code: 'RATE_LIMITED',
      retryable: true,
    });
  });

  it('takes the bare words of an error_finish chunk', () => {
    expect(failureOf(decode(chunk({ content: 'Model is unavailable' }, 'error_finish')))).toMatchObject({
      code: 'UPSTREAM_ERROR',
      message: '百炼平台返回错误:Model is unavailable',
    });
  });
});

describe('content inspection', () => {
  const filter = enveloped(
    'data_inspection_failed',
    '<400> InternalError.Algo.DataInspectionFailed: Output data may contain inappropriate content. For details, see: https://help.aliyun.com/zh/model-studio/error-code#inappropriate-content',
  );
  const words =
    '<400> InternalError.Algo.DataInspectionFailed: Output data may contain inappropriate content.';

  it('is a 400 in the words of the platform where the call is refused', () => {
    expect(refused(400, filter)).toMatchObject({
      code: 'INVALID_PARAMS',
      reason: 'content_filter',
      retryable: false,
      message: `参数值超出有效范围:百炼平台返回错误:${words}`,
    });
  });

  it('is a 400 where the stream fails before any text', () => {
    expect(
      failureOf(decode(`${chunk({ role: 'assistant', content: '' })}data: ${JSON.stringify(filter)}\n\n`)),
    ).toMatchObject({ code: 'INVALID_PARAMS', reason: 'content_filter' });
  });

  it('ends the answer as filtered where it strikes after text', () => {
    const sse = `${chunk({ content: '部分' })}data: ${JSON.stringify(filter)}\n\n`;
    expect(decode(sse).slice(1)).toEqual([
      { type: 'text', text: '部分' },
      { type: 'finish', reason: 'content_filter', raw: 'data_inspection_failed' },
    ]);
  });

  it('is nothing of the kind where a picture could not be inspected', () => {
    const answer = {
      code: 'InvalidParameter.DataInspection',
      message: 'Unable to download the media resource.',
    };
    expect(refused(400, answer).reason).toBeUndefined();
  });

  it.each(['FaqRuleBlocked', 'CustomRoleBlocked', 'IPInfringementSuspect'])('includes %s', (code) => {
    expect(refused(400, { code, message: 'blocked', request_id: 'r' })).toMatchObject({
      reason: 'content_filter',
    });
  });
});

describe('whole answers', () => {
  const answer = (
    choice: object,
    usage: object | null = { prompt_tokens: 12, completion_tokens: 4 },
  ): unknown => ({
    choices: [{ index: 0, logprobs: null, ...choice }],
    object: 'chat.completion',
    usage,
    model: 'qwen-plus',
  });
  const read = (json: unknown): unknown => adapter.decodeResult(json, chat(), target('qwen-plus'));

  it('are length where the finish reason is null', () => {
    const cut = answer({ message: { role: 'assistant', content: '半' }, finish_reason: null });
    expect(read(cut)).toMatchObject({ content: '半', finish: { reason: 'length', raw: null } });
  });

  it('are length even where a null finish comes with no text but many tokens', () => {
    const cut = answer(
      { message: { content: '', reasoning_content: '' }, finish_reason: null },
      { prompt_tokens: 9, completion_tokens: 2048, total_tokens: 2057 },
    );
    expect(read(cut)).toMatchObject({ content: '', finish: { reason: 'length' } });
  });

  it('with tool calls are tool_calls whatever the finish says', () => {
    const call = { function: { arguments: '{}', name: 'f' }, id: 'call_1', index: 0, type: 'function' };
    expect(
      read(answer({ message: { content: '', tool_calls: [call] }, finish_reason: 'stop' })),
    ).toMatchObject({
      toolCalls: [{ id: 'call_1', type: 'function', function: { name: 'f', arguments: '{}' } }],
      finish: { reason: 'tool_calls', raw: 'stop' },
    });
  });

  it('are read in native form too', () => {
    const native = {
      output: { choices: [{ finish_reason: 'stop', message: { role: 'assistant', content: '2' } }] },
      usage: { total_tokens: 30, output_tokens: 14, input_tokens: 16 },
      request_id: 'r',
    };
    expect(read(native)).toMatchObject({
      content: '2',
      usage: { input_tokens: 16, output_tokens: 14, total_tokens: 30 },
    });
  });

  it('that hold an error_finish are errors', () => {
    const broken = answer({ message: { content: 'Request timed out' }, finish_reason: 'error_finish' });
    expect(() => read(broken)).toThrow('百炼平台返回错误:Request timed out');
  });

  it('that are flat errors in a 200 are errors', () => {
    expect(() => read({ code: 'InternalError', message: 'oops', request_id: 'r' })).toThrow(
      '百炼平台返回错误:oops',
    );
  });
});

describe('refusals', () => {
  it.each([
    ['A: front door', enveloped('model_not_found', 'The model `x` does not exist.')],
    [
      'B: engine',
      { error: { code: 'model_not_found', message: 'The model `x` does not exist.' }, id: 'chatcmpl-4' },
    ],
    ['C and D: flat', { code: 'ModelNotFound', message: 'The model `x` does not exist.', request_id: 'r' }],
    [
      'E: server-sent events',
      `data: ${JSON.stringify(enveloped('model_not_found', 'The model `x` does not exist.'))}\n\n`,
    ],
    [
      'F: native server-sent events',
      'id:1\nevent:error\n:HTTP_STATUS/404\ndata:{"request_id":"r","code":"ModelNotFound","message":"The model `x` does not exist."}\n\n',
    ],
  ])('are read in shape %s', (_shape, answer) => {
    expect(refused(404, answer)).toMatchObject({
      code: 'UPSTREAM_ERROR',
      retryable: false,
      message: '百炼平台返回错误:The model `x` does not exist.',
    });
  });

  it('lose the tail that links the documentation', () => {
    const message =
      'You have no access. For details, see: https://help.aliyun.com/zh/model-studio/error-code#access-denied';
    expect(refused(403, enveloped('access_denied', message)).message).toBe(
      '百炼平台返回错误:You have no access.',
    );
  });

  it('of the key are a 401 that names the provider', () => {
    expect(refused(401, enveloped('invalid_api_key', 'Incorrect API key provided.'))).toMatchObject({
      code: 'UNAUTHORIZED',
      message: '未授权:API Key缺失或无效(bailian)',
    });
  });

  it('for debt (Arrearage) are a 502 in the words of the platform, and final', () => {
    const words = 'Access denied, please make sure your account is in good standing.';
    expect(refused(400, enveloped('Arrearage', words))).toMatchObject({
      code: 'UPSTREAM_ERROR',
      status: 502,
      retryable: false,
      reason: 'quota',
      message: `百炼平台返回错误:${words}`,
    });
  });

  it.each([
    ['insufficient_quota', 'You exceeded your current quota, please check your plan and billing details.'],
    ['Throttling.RateQuota', 'Requests rate limit exceeded'],
    ['limit_burst_rate', 'Request rate increased too quickly.'],
  ])('with 429 and %s may pass', (code, message) => {
    expect(refused(429, enveloped(code, message))).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
  });

  it('for a free allowance that is used up are final', () => {
    expect(refused(429, enveloped('insufficient_quota', 'Free allocated quota exceeded.'))).toMatchObject({
      code: 'RATE_LIMITED',
      retryable: false,
      reason: 'quota',
    });
    const freeTier = {
      code: 'AllocationQuota.FreeTierOnly',
      message: 'The free tier of the model has been exhausted.',
    };
    expect(refused(403, freeTier)).toMatchObject({
      code: 'UPSTREAM_ERROR',
      retryable: false,
      reason: 'quota',
    });
  });

  it('of a prompt that is too long are a 400 about the context', () => {
    const message = '<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]';
    expect(refused(400, enveloped('invalid_parameter_error', message))).toMatchObject({
      code: 'INVALID_PARAMS',
      reason: 'context_length',
    });
  });

  it('count as what the number at their head says', () => {
    const throttled = '<429> InternalError.Algo: Too many requests.';
    expect(refused(400, enveloped('internal_error', throttled))).toMatchObject({ code: 'RATE_LIMITED' });
    const broken = '<500> InternalError.Algo: An internal error has occured.';
    expect(refused(400, enveloped('internal_error', broken))).toMatchObject({
      code: 'UPSTREAM_ERROR',
      retryable: true,
    });
  });

  it('for a model that does not exist on native paths are not about the parameters', () => {
    expect(refused(400, { code: 'InvalidParameter', message: 'Model not exist.' })).toMatchObject({
      code: 'UPSTREAM_ERROR',
      retryable: false,
    });
  });

  it('for time that ran out are a 504', () => {
    const answer = { code: 'RequestTimeOut', message: 'Request timed out, please try again later.' };
    expect(refused(500, answer)).toMatchObject({ code: 'TIMEOUT', retryable: true });
  });

  it('for lack of capacity may pass', () => {
    expect(refused(503, enveloped('ModelServingError', 'Too many requests.'))).toMatchObject({
      code: 'UPSTREAM_ERROR',
      retryable: true,
    });
  });

  it('never show the key', () => {
    expect(refused(400, enveloped('x', 'bad key sk-secret-0123456789')).message).not.toContain('secret');
  });
});

describe('embeddings', () => {
  const { embeddings } = bailian;
  if (embeddings === undefined) throw new Error('no embeddings');
  const request = (dimensions?: number) =>
    ({ kind: 'embedding', model: 't', input: ['一', '二'], ...(dimensions ? { dimensions } : {}) }) as const;

  it('are asked for as floats, with the dimensions', () => {
    const call = embeddings.embed(request(256), target('text-embedding-v4'));
    expect(call.path).toBe('/embeddings');
    expect(JSON.parse(call.body ?? '')).toEqual({
      model: 'text-embedding-v4',
      input: ['一', '二'],
      dimensions: 256,
      encoding_format: 'float',
    });
  });

  it('come ten at a time', () => {
    expect(embeddings.batchLimit(target('text-embedding-v4'))).toBe(10);
  });

  it('refuse dimensions that the model lacks, by name', () => {
    expect(embeddings.refuse(request(100), target('text-embedding-v4'))).toMatchObject({
      param: 'dimensions',
    });
    expect(embeddings.refuse(request(1536), target('text-embedding-v2'))).toMatchObject({
      param: 'dimensions',
    });
    expect(embeddings.refuse(request(1024), target('text-embedding-v3'))).toBeUndefined();
  });

  it('cost no output tokens', () => {
    const list = {
      data: [
        { embedding: [2], index: 1 },
        { embedding: [1], index: 0 },
      ],
      model: 'text-embedding-v4',
      usage: { prompt_tokens: 5, total_tokens: 5 },
    };
    expect(embeddings.decodeEmbeddings(list, target('text-embedding-v4'))).toEqual({
      model: 'text-embedding-v4',
      embeddings: [[1], [2]],
      usage: { input_tokens: 5, output_tokens: 0, total_tokens: 5 },
    });
  });
});

describe('the provider', () => {
  it.each([
    [
      'https://dashscope.aliyuncs.com/compatible-mode/v1',
      'https://dashscope.aliyuncs.com/compatible-mode/v1',
    ],
    [
      'https://dashscope-intl.aliyuncs.com/compatible-mode/v1/',
      'https://dashscope-intl.aliyuncs.com/compatible-mode/v1',
    ],
    ['https://dashscope-us.aliyuncs.com', 'https://dashscope-us.aliyuncs.com/compatible-mode/v1'],
    ['https://dashscope.aliyuncs.com/compatible-mode', 'https://dashscope.aliyuncs.com/compatible-mode/v1'],
    ['https://dashscope.aliyuncs.com/api/v1', 'https://dashscope.aliyuncs.com/compatible-mode/v1'],
    [
      'https://ws1.cn-beijing.maas.aliyuncs.com/compatible-mode/v1/chat/completions',
      'https://ws1.cn-beijing.maas.aliyuncs.com/compatible-mode/v1',
    ],
    ['http://127.0.0.1:9999/proxy/v1', 'http://127.0.0.1:9999/proxy/v1'],
  ])('is found at %s', (given, base) => {
    expect(bailian.normalizeBaseUrl(given)).toBe(base);
    expect(bailian.normalizeBaseUrl(base)).toBe(base);
  });

  it('lists its models without spending a token, and keeps them out of the catalog', () => {
    const [listing] = bailian.listings;
    expect(listing?.call('k')).toMatchObject({
      method: 'GET',
      path: '/models',
      headers: { authorization: 'Bearer k' },
    });
    expect(listing?.decode({ data: [{ id: 'qwen-plus' }, { id: 'text-embedding-v4' }] })).toEqual([
      { id: 'qwen-plus', type: 'llm', state: 'unknown' },
      { id: 'text-embedding-v4', type: 'embedding', state: 'unknown' },
    ]);
    expect(listing?.decode({ code: 'InvalidApiKey', message: 'x' })).toBeUndefined();
    expect(bailian.discovers).toBe(false);
  });

  it('needs a key', () => {
    expect(bailian.credential).toBe('required');
  });

  it('throws nothing but the errors of the contract', () => {
    expect(refused(502, '<html><title>Bad gateway</title></html>', 'text/html')).toBeInstanceOf(GatewayError);
    expect(refused(502, '<html><title>Bad gateway</title></html>', 'text/html').message).toBe(
      '百炼平台返回错误:响应格式错误',
    );
  });
});
