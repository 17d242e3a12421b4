/** What every chat-completions adapter shares: reading answers, chunks and errors, whoever sent them. */
import { describe, expect, it } from 'vitest';
import { isContextOverflow } from '../../src/adapters/error-meanings.ts';
import {
  chunkDecoder,
  decodeCompletion,
  decodeEmbeddingList,
  type WireOptions,
} from '../../src/adapters/openai-wire.ts';
import { errorIn, failure, wordsOf } from '../../src/adapters/wire-errors.ts';
import { GatewayError } from '../../src/chat/errors.ts';
import { type ChatEvent, collect } from '../../src/chat/events.ts';
import { usualTarget as target } from '../conformance/adapter.ts';

const options: WireOptions = { target, unseen: undefined, firstCallOnly: false };

const frame = (data: unknown) => ({ event: 'message', data: JSON.stringify(data) });
const delta = (members: object, finish_reason: string | null = null) =>
  frame({ model: 'm', choices: [{ index: 0, delta: members, finish_reason }] });
const types = (events: readonly ChatEvent[]): string[] => events.map((event) => event.type);

describe('a stream of chunks', () => {
  it('is open until the finish, settled until the end, then done', () => {
    const decoder = chunkDecoder(options);
    expect([decoder.phase, types(decoder.push(delta({ content: 'a' })))]).toEqual([
      'open',
      ['start', 'text'],
    ]);
    expect([types(decoder.push(delta({}, 'stop'))), decoder.phase]).toEqual([[], 'settled']);
    const usage = { prompt_tokens: 1, completion_tokens: 1 };
    expect(decoder.push(frame({ choices: [], usage }))).toEqual([]);
    expect(types(decoder.push({ event: 'message', data: '[DONE]' }))).toEqual(['usage', 'finish']);
    expect(decoder.phase).toBe('done');
    expect(decoder.push(delta({ content: 'a' }))).toEqual([]);
    expect(decoder.end()).toEqual([]);
  });

  it('names the model once, with the first chunk that says something, so that no heartbeat names it', () => {
    const decoder = chunkDecoder(options);
    expect(decoder.push(frame({ model: 'beat', choices: [{ delta: { content: '' } }] }))).toEqual([]);
    expect(decoder.push(delta({ content: 'a' }))[0]).toEqual({ type: 'start', model: 'm' });
    expect(types(decoder.push(delta({ content: 'b' })))).toEqual(['text']);
  });

  it('names the model of an earlier chunk where the one that speaks has none', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ role: 'assistant' }));
    expect(decoder.push(frame({ choices: [{ delta: { content: 'a' } }] }))[0]).toEqual({
      type: 'start',
      model: 'm',
    });
  });

  it('takes the last of the usages that stand on every chunk', () => {
    const decoder = chunkDecoder(options);
    const at = (completion_tokens: number, finish_reason: string | null) =>
      frame({
        choices: [{ delta: { content: 'a' }, finish_reason }],
        usage: { prompt_tokens: 2, completion_tokens },
      });
    decoder.push(at(1, null));
    decoder.push(at(2, 'stop'));
    const [usage] = decoder.end();
    expect(usage).toEqual({ type: 'usage', usage: { input_tokens: 2, output_tokens: 2, total_tokens: 4 } });
  });

  it('counts the text "null" as no finish reason', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ content: 'a' }, 'null'));
    expect(decoder.phase).toBe('open');
    expect(decoder.end()).toMatchObject([{ type: 'error', error: { reason: 'cut' } }]);
  });

  it('still gives the text that comes behind the finish', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ content: 'a' }, 'stop'));
    expect(decoder.push(delta({ content: 'b' }))).toEqual([{ type: 'text', text: 'b' }]);
    expect(types(decoder.end())).toEqual(['finish']);
  });

  it('gives reasoning before text where one delta holds both', () => {
    const events = chunkDecoder(options).push(delta({ content: 'a', reasoning_content: 'r' }));
    expect(types(events)).toEqual(['start', 'reasoning', 'text']);
  });

  it('gives a refusal as the text that it is', () => {
    const events = chunkDecoder(options).push(delta({ content: null, refusal: 'no' }));
    expect(events.at(-1)).toEqual({ type: 'text', text: 'no' });
  });

  it('repeats neither id nor name of a tool call', () => {
    const decoder = chunkDecoder(options);
    const piece = { index: 0, id: 'c1', function: { name: 'f', arguments: '{' } };
    decoder.push(delta({ tool_calls: [piece] }));
    expect(
      decoder.push(delta({ tool_calls: [{ ...piece, function: { name: 'f', arguments: '}' } }] })),
    ).toEqual([{ type: 'tool-calls', deltas: [{ index: 0, function: { arguments: '}' } }] }]);
  });

  it('gives no event for tool-call pieces that hold nothing', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ tool_calls: [{ index: 0, id: 'c1', function: { name: 'f', arguments: '' } }] }));
    expect(
      decoder.push(delta({ tool_calls: [{ index: 0, id: '', function: { arguments: null } }] })),
    ).toEqual([]);
    expect(decoder.push(delta({ tool_calls: [] }))).toEqual([]);
  });

  it('makes an id of its own for each call that has none', () => {
    const ids = [0, 1].map(() => {
      const call = { function: { name: 'f', arguments: '{}' } };
      const answer = { choices: [{ message: { tool_calls: [call, call] }, finish_reason: 'stop' }] };
      return decodeCompletion(answer, options).toolCalls?.map(({ id }) => id) ?? [];
    });
    expect(new Set(ids.flat()).size).toBe(4);
    for (const id of ids.flat()) expect(id).toMatch(/^call_[0-9a-f]{24}$/);
  });

  it('tells calls of one index without ids apart by the whole arguments of the first', () => {
    const decoder = chunkDecoder(options);
    const piece = (text: string) =>
      delta({ tool_calls: [{ index: 0, function: { name: 'f', arguments: text } }] });
    const events = ['{"a":', '1}', '{"a":2}'].flatMap((text) => decoder.push(piece(text)));
    decoder.push(delta({}, 'tool_calls'));
    const { toolCalls } = collect([...events, ...decoder.end()]);
    expect(toolCalls?.map((call) => call.function.arguments)).toEqual(['{"a":1}', '{"a":2}']);
  });

  it('puts pieces of two calls of one index together by their ids', () => {
    const decoder = chunkDecoder(options);
    const piece = (id: string, name: string, text: string) =>
      delta({ tool_calls: [{ index: 0, id, function: { name, arguments: text } }] });
    const events = [
      piece('a', 'f', '{"a":'),
      piece('b', 'g', '{"b":'),
      piece('a', '', '1}'),
      piece('b', '', '2}'),
    ].flatMap((each) => decoder.push(each));
    decoder.push(delta({}, 'tool_calls'));
    const { toolCalls } = collect([...events, ...decoder.end()]);
    expect(toolCalls?.map((call) => call.function.arguments)).toEqual(['{"a":1}', '{"b":2}']);
  });

  it.each([
    ['max_tokens', 'length'],
    ['MAX_TOKENS', 'length'],
    ['FINISH_REASON_MAX_TOKENS', 'length'],
    ['maxTokens', 'length'],
    ['model_length', 'length'],
    ['model_context_window_exceeded', 'length'],
    ['sensitive', 'content_filter'],
    ['SAFETY', 'content_filter'],
    ['RECITATION', 'content_filter'],
    ['content_filtered', 'content_filter'],
    ['content-filter', 'content_filter'],
    ['end_turn', 'stop'],
    ['nobody_knows', 'stop'],
  ])('reads the finish %s as %s', (word, reason) => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ content: 'a' }, word));
    expect(decoder.end().at(-1)).toMatchObject({ type: 'finish', reason, raw: word });
  });

  it.each(['network_error', 'error', 'failed', 'aborted', 'ABORTED'])(
    'takes the finish %s for a failure',
    (word) => {
      const decoder = chunkDecoder(options);
      decoder.push(delta({ content: 'a' }, word));
      expect(decoder.end()).toMatchObject([{ type: 'error', error: { reason: 'stopped' } }]);
    },
  );

  it('keeps the finish that says more than a stop', () => {
    const decoder = chunkDecoder(options);
    for (const word of ['stop', 'length', 'stop']) decoder.push(delta({ content: 'a' }, word));
    expect(decoder.end()).toMatchObject([{ type: 'finish', reason: 'length' }]);
  });

  it('carries log probabilities on the text that they belong to', () => {
    const logprobs = { content: [{ token: 'a', logprob: -0.1 }] };
    const events = chunkDecoder(options).push(frame({ choices: [{ delta: { content: 'a' }, logprobs }] }));
    expect(events.at(-1)).toEqual({ type: 'text', text: 'a', logprobs });
  });

  it('ends with an error on a finish reason that means failure', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ content: 'a' }, 'error'));
    expect(decoder.end()).toMatchObject([
      { type: 'error', error: { code: 'UPSTREAM_ERROR', reason: 'stopped' } },
    ]);
  });

  it('takes a finish reason that nobody knows for a stop and keeps the word', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ content: 'a' }, 'eos'));
    expect(decoder.end()).toEqual([{ type: 'finish', reason: 'stop', raw: 'eos' }]);
  });

  it("asks the provider's own reading of finish reasons first", () => {
    const decoder = chunkDecoder({
      ...options,
      finishReason: (raw) => (raw === 'full' ? 'length' : undefined),
    });
    decoder.push(delta({ content: 'a' }, 'full'));
    expect(decoder.end()).toEqual([{ type: 'finish', reason: 'length', raw: 'full' }]);
  });

  it('is cut without a finish, whatever the provider makes of a whole answer without one', () => {
    const decoder = chunkDecoder({ ...options, finishReason: () => 'length' });
    decoder.push(delta({ content: 'a' }));
    expect(decoder.end()).toMatchObject([{ type: 'error', error: { reason: 'cut' } }]);
  });

  it("asks the provider's own reading of errors before it gives any text", () => {
    const error = new GatewayError('RATE_LIMITED');
    const decoder = chunkDecoder({ ...options, findError: () => error });
    expect(decoder.push(delta({ content: 'secret details' }))).toEqual([{ type: 'error', error }]);
    expect(decoder.phase).toBe('done');
  });

  it('is an error when one comes behind the finish', () => {
    const decoder = chunkDecoder(options);
    decoder.push(delta({ content: 'a' }, 'stop'));
    expect(types(decoder.push(frame({ error: 'late' })))).toEqual(['error']);
  });

  it('lets events without data pass', () => {
    const decoder = chunkDecoder(options);
    expect(decoder.push({ event: 'message', data: '' })).toEqual([]);
    expect(decoder.phase).toBe('open');
  });

  it('lets an event of an unknown name pass though its data is no JSON', () => {
    const decoder = chunkDecoder(options);
    expect(decoder.push({ event: 'ping', data: 'tick' })).toEqual([]);
    expect(decoder.phase).toBe('open');
  });
});

describe('a whole answer', () => {
  it('may name the reason itself where the upstream named none', () => {
    const body = { choices: [{ message: { content: 'a' }, finish_reason: null }] };
    const decoded = decodeCompletion(body, {
      ...options,
      finishReason: (raw) => (raw === null ? 'length' : undefined),
    });
    expect(decoded.finish).toEqual({ reason: 'length', raw: null });
  });

  it('tells parallel tool calls without id or index apart by their places', () => {
    const call = (name: string) => ({ function: { name, arguments: '{}' } });
    const body = {
      choices: [{ message: { tool_calls: [call('f'), call('g')] }, finish_reason: 'tool_calls' }],
    };
    expect(decodeCompletion(body, options).toolCalls?.map((each) => each.function.name)).toEqual(['f', 'g']);
  });

  it('has no usage where the upstream counted nothing', () => {
    const body = { choices: [{ message: { content: 'a' }, finish_reason: 'stop' }], usage: {} };
    expect(decodeCompletion(body, options).usage).toBeNull();
  });

  it('survives statistics of another shape than expected', () => {
    const body = {
      choices: [{ message: { content: 'a' }, finish_reason: 'stop' }],
      usage: 'none',
      stats: [1],
    };
    expect(decodeCompletion(body, options)).toMatchObject({ content: 'a', usage: null });
  });
});

describe('error bodies', () => {
  it.each([
    ['an object', { error: { message: 'no', type: 't', code: 'c' } }, { words: 'no', type: 't', code: 'c' }],
    ['a text', { error: 'no' }, { words: 'no', type: undefined, code: undefined }],
    ['flat', { code: 'c', message: 'no', request_id: 'r' }, { words: 'no', type: undefined, code: 'c' }],
    [
      'vLLM',
      { object: 'error', message: 'no', type: 't', code: 40303 },
      { words: 'no', type: 't', code: '40303' },
    ],
  ])('reads %s', (_shape, body, error) => {
    expect(errorIn(body)).toEqual(error);
  });

  it.each([
    ['error: null beside an answer', { error: null, choices: [] }],
    ['a code beside choices', { code: 'c', message: 'm', choices: [] }],
    ['a success envelope', { code: 200, message: 'success' }],
    ['an answer', { choices: [{ message: { content: 'a' } }] }],
  ])('takes %s for no error', (_shape, body) => {
    expect(errorIn(body)).toBeUndefined();
  });

  it.each([
    ['JSON', '{"error":{"message":"no"}}', 'no'],
    ['server-sent events', 'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"x","message":"no"}\n\n', 'no'],
    ['a spaced data line', 'data: {"error":{"message":"no"}}\n\n', 'no'],
    ['a FastAPI detail', '{"detail":"no"}', 'no'],
    ['a FastAPI list', '{"detail":[{"loc":["body"],"msg":"no"}]}', 'no'],
    ['a FastAPI list with places', '{"detail":[{"loc":["body","seed"],"msg":"no"}]}', 'seed: no'],
    ['a detail of an object', '{"detail":{"error":"no"}}', 'no'],
    ['a list of errors', '[{"error":{"code":400,"message":"no","status":"X"}}]', 'no'],
    ['errors in a list', '{"success":false,"errors":[{"code":5007,"message":"no"}],"result":null}', 'no'],
    ['a list of messages', '{"error":{"message":["no","never"]}}', 'no; never'],
    ['a message of an object', '{"message":{"detail":"no"}}', 'no'],
    ['an error inside an error', '{"error":{"error":{"message":"no"}}}', 'no'],
    [
      'what stood behind a router',
      '{"error":{"message":"Provider returned error","metadata":{"raw":"{\\"error\\":{\\"message\\":\\"no\\"}}"}}}',
      'no',
    ],
    ['an error in the choice', '{"choices":[{"error":{"code":502,"message":"no"}}]}', 'no'],
    ['a bare message', '{"message":"no"}', 'no'],
    ['plain text', 'no', 'no'],
    ['nothing', '', ''],
  ])('finds the words in %s', (_shape, body, words) => {
    expect(wordsOf(body).words).toBe(words);
  });

  it.each([
    'Context size has been exceeded.',
    'Trying to keep the first 5000 tokens when context the overflows.',
    'the request exceeds the available context size, try increasing it',
    "This model's maximum context length is 4096 tokens",
    'Range of input length should be [1, 30720]',
    'The prompt caused a context overflow',
    'The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: 4096).',
    'request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it',
    'The decoder prompt (length 5000) is longer than the maximum model length of 4096.',
    "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
    'The input token count (1300000) exceeds the maximum number of tokens allowed (1048576).',
    'the input token count is 32825 but model only supports up to 32768.',
    'the input length exceeds the context length',
    'prompt too long; exceeded max context length by 12 tokens',
    'Your request exceeded model token limit: 131072',
    'Prompt exceeds max length',
  ])('knows a prompt that does not fit: %s', (words) => {
    expect(isContextOverflow({ words, code: undefined, type: undefined })).toBe(true);
  });

  it.each([
    'Range of max_tokens should be [1, 8192]',
    'Rate limit reached: too many tokens per minute',
    'Failed to load model "m". Its context length exceeds the available context memory.',
  ])('does not take other complaints for one: %s', (words) => {
    expect(isContextOverflow({ words, code: undefined, type: undefined })).toBe(false);
  });

  it('takes a prompt that does not fit for what it is with any status', () => {
    const said = { words: 'Context size has been exceeded.', code: undefined, type: undefined };
    for (const status of [undefined, 400, 404, 429, 500, 503]) {
      expect(failure(said, { target }, status)).toMatchObject({ status: 400, reason: 'context_length' });
    }
  });

  it.each([
    'Failed to load model "m". Error: Error loading model.',
    'Operation canceled.',
    'Model is unloaded.',
    'The model has crashed without additional information. (Exit code: 18446744072635812000)',
    'Insufficient system resources: out of memory',
  ])('is no fault of the request where a 400 speaks of the server itself: %s', (words) => {
    const error = failure({ words, code: undefined, type: undefined }, { target }, 400);
    expect(error).toMatchObject({ code: 'UPSTREAM_ERROR', status: 502, reason: 'host' });
  });

  it.each(['Failed to load image: bad base64', 'Invalid temperature'])(
    'is the request at fault where a 400 speaks of it: %s',
    (words) => {
      const error = failure({ words, code: undefined, type: undefined }, { target }, 400);
      expect(error).toMatchObject({ code: 'INVALID_PARAMS', status: 400 });
    },
  );

  it('is the catalog at fault where a 400 says that the model is missing', () => {
    const said = { words: 'Invalid model identifier "m"', code: 'model_not_found', type: undefined };
    expect(failure(said, { target }, 400)).toMatchObject({ code: 'UPSTREAM_ERROR', upstreamStatus: 404 });
  });

  it('knows a server that loads the model', () => {
    const said = { words: 'Loading model', code: '503', type: 'unavailable_error' };
    expect(failure(said, { target }, 503)).toMatchObject({ code: 'UPSTREAM_ERROR', reason: 'loading' });
  });

  it('is none where an error beside an answer is empty', () => {
    const error = { message: '', type: '', param: '', code: null };
    for (const empty of [null, {}, '', error]) {
      expect(errorIn({ error: empty, choices: [{ message: { content: 'hello' } }] })).toBeUndefined();
    }
  });

  it("follows the provider's own reading of its codes", () => {
    const said = { words: 'slow down', code: 'Throttling', type: undefined };
    const error = failure(said, { target, classify: () => ({ status: 429, retryAfterSeconds: 7 }) });
    expect(error).toMatchObject({ code: 'RATE_LIMITED', retryAfterSeconds: 7 });
  });

  it('says the code where there are no words', () => {
    const error = failure({ words: '', code: 'model_not_found', type: undefined }, { target }, 404);
    expect(error.message).toBe('LM Studio返回错误:model_not_found');
  });
});

describe('a list of embeddings', () => {
  it('comes in the order of the inputs', () => {
    const body = {
      data: [
        { embedding: [2], index: 1 },
        { embedding: [1], index: 0 },
      ],
    };
    expect(decodeEmbeddingList(body, { target }).embeddings).toEqual([[1], [2]]);
  });

  it('counts no output tokens', () => {
    const body = { data: [{ embedding: [1] }], model: 'e', usage: { prompt_tokens: 3, total_tokens: 3 } };
    expect(decodeEmbeddingList(body, { target })).toEqual({
      model: 'e',
      embeddings: [[1]],
      usage: { input_tokens: 3, output_tokens: 0, total_tokens: 3 },
    });
  });

  it.each([
    ['empty', { data: [] }, 'empty'],
    ['malformed', { data: [{ embedding: 'AAAA' }] }, 'format'],
  ])('is an error when %s', (_what, body, reason) => {
    expect(() => decodeEmbeddingList(body, { target })).toThrow(expect.objectContaining({ reason }));
  });

  it('is an error when it holds one', () => {
    expect(() => decodeEmbeddingList({ error: 'no such model' }, { target })).toThrow('no such model');
  });
});
