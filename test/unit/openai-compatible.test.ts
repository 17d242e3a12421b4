import { describe, expect, it } from 'vitest';
import { chatCompletions, openaiCompatible } from '../../src/adapters/openai-compatible.ts';
import type { ModelInfo, Target } from '../../src/chat/adapter.ts';
import type { ChatRequest, Parameters } from '../../src/chat/request.ts';
import { openaiError } from '../../src/facades/openai.ts';

const target = (more: Partial<Target> = {}): Target => ({
  provider: 'rig',
  displayName: 'My Rig',
  model: 'some-model',
  apiKey: undefined,
  apis: undefined,
  api: 'auto',
  info: undefined,
  ...more,
});

const chat = (parameters: Parameters = {}): ChatRequest => ({
  kind: 'chat',
  model: 'title',
  messages: [{ role: 'user', content: '你好' }],
  parameters,
  stream: false,
  includeProgress: false,
});

const body = (parameters: Parameters): unknown =>
  JSON.parse(chatCompletions.chat(chat(parameters), target()).body ?? '');

describe('what is sent', () => {
  it('has no authorization header without a key', () => {
    expect(chatCompletions.chat(chat(), target()).headers).not.toHaveProperty('authorization');
  });

  it.each([
    ['off', 'none'],
    ['low', 'low'],
    ['medium', 'medium'],
    ['high', 'high'],
  ] as const)('calls reasoning %s reasoning_effort %s', (reasoning, effort) => {
    const sent = body({ reasoning });
    expect(sent).toMatchObject({ reasoning_effort: effort });
    expect(sent).not.toHaveProperty('reasoning');
  });

  it('names no reasoning_effort unless asked', () => {
    expect(body({})).not.toHaveProperty('reasoning_effort');
  });

  it('carries top_k and min_p, which most local servers take', () => {
    expect(body({ top_k: 20, min_p: 0.1 })).toMatchObject({ top_k: 20, min_p: 0.1 });
  });

  it('sends repeat_penalty under both names that servers have for it', () => {
    const both = { repeat_penalty: 1.1, repetition_penalty: 1.1 };
    expect(chatCompletions.refuse(chat({ repeat_penalty: 1.1 }), target())).toBeUndefined();
    expect(body({ repeat_penalty: 1.1 })).toMatchObject(both);
    expect(body({})).not.toHaveProperty('repetition_penalty');
    const completion = {
      kind: 'completion',
      model: 't',
      prompt: '从前',
      stream: false,
      includeProgress: false,
    } as const;
    const call = chatCompletions.completion({ ...completion, parameters: { repeat_penalty: 1.1 } }, target());
    expect(JSON.parse(call.body ?? '')).toMatchObject(both);
  });

  it('asks for embeddings as floats, with the dimensions', () => {
    const request = { kind: 'embedding', model: 't', input: ['一'], dimensions: 8 } as const;
    const call = openaiCompatible.embeddings?.embed(request, target());
    expect(call?.path).toBe('/embeddings');
    expect(JSON.parse(call?.body ?? '')).toEqual({
      model: 'some-model',
      input: ['一'],
      dimensions: 8,
      encoding_format: 'float',
    });
  });
});

describe('refusals', () => {
  const refused = (status: number, error: object) =>
    chatCompletions.decodeError(
      { status, contentType: 'application/json', body: JSON.stringify(error), retryAfterSeconds: undefined },
      target(),
    );

  it('for an account without credit are final', () => {
    expect(refused(429, { error: { message: 'no', code: 'insufficient_quota' } })).toMatchObject({
      code: 'RATE_LIMITED',
      retryable: false,
      reason: 'quota',
    });
  });

  it.each(['content_filter', 'content_policy_violation'])('with %s are about the content', (code) => {
    expect(refused(400, { error: { message: 'no', code } })).toMatchObject({
      code: 'INVALID_PARAMS',
      reason: 'content_filter',
    });
  });

  it('for lack of money (DeepSeek) are a 502 in its words', () => {
    expect(refused(402, { error: { message: 'Insufficient Balance', type: 'unknown_error' } })).toMatchObject(
      {
        code: 'UPSTREAM_ERROR',
        retryable: false,
        message: 'My Rig返回错误:Insufficient Balance',
      },
    );
  });
});

describe('model lists', () => {
  const [listing] = openaiCompatible.listings;
  const decode = (list: unknown): readonly ModelInfo[] | undefined => listing?.decode(list);

  it('are asked for at /models', () => {
    expect(listing?.call(undefined)).toMatchObject({ method: 'GET', path: '/models', stream: false });
  });

  it('of OpenAI: chat and embedding models, without what speaks, draws or moderates', () => {
    const ids = [
      'gpt-4.1',
      'text-embedding-3-small',
      'whisper-1',
      'dall-e-3',
      'gpt-4o-mini-tts',
      'omni-moderation-latest',
    ];
    const data = ids.map((id) => ({ id, object: 'model', created: 1, owned_by: 'openai' }));
    expect(decode({ object: 'list', data })).toEqual([
      { id: 'gpt-4.1', type: 'llm', state: 'unknown', publisher: 'openai' },
      { id: 'text-embedding-3-small', type: 'embedding', state: 'unknown', publisher: 'openai' },
    ]);
  });

  it('of llama.cpp: context length and eyes from its two lists', () => {
    const list = {
      models: [
        { name: 'gemma-3-4b.gguf', model: 'gemma-3-4b.gguf', capabilities: ['completion', 'multimodal'] },
      ],
      object: 'list',
      data: [
        {
          id: 'gemma-3-4b.gguf',
          object: 'model',
          owned_by: 'llamacpp',
          meta: { n_ctx_train: 131_072, n_params: 4e9 },
        },
      ],
    };
    expect(decode(list)).toEqual([
      {
        id: 'gemma-3-4b.gguf',
        type: 'llm',
        state: 'unknown',
        publisher: 'llamacpp',
        maxContextLength: 131_072,
        vision: true,
      },
    ]);
  });

  it.each([
    ['of words', { capabilities: ['vision', 'tool_use', 'reasoning'] }],
    ['of truths', { capabilities: { vision: true, function_calling: true, reasoning: true, audio: false } }],
    [
      'as parameters',
      { architecture: { input_modalities: ['text', 'image'] }, supported_parameters: ['tools', 'reasoning'] },
    ],
  ])('keep what a model can do: %s', (_, told) => {
    expect(decode({ data: [{ id: 'a', ...told }] })).toEqual([
      {
        id: 'a',
        type: 'llm',
        state: 'unknown',
        vision: true,
        toolUse: true,
        reasoningOptions: ['off', 'low', 'medium', 'high'],
      },
    ]);
  });

  it('of llama.cpp with several models: which are loaded', () => {
    const data = [
      { id: 'a', status: { value: 'loaded' } },
      { id: 'b', status: { value: 'unloaded' } },
    ];
    expect(decode({ data })?.map(({ state }) => state)).toEqual(['loaded', 'not-loaded']);
  });

  it('of vLLM: max_model_len', () => {
    const data = [{ id: 'Qwen/Qwen3-8B', owned_by: 'vllm', root: 'Qwen/Qwen3-8B', max_model_len: 40_960 }];
    expect(decode({ object: 'list', data })).toMatchObject([
      { id: 'Qwen/Qwen3-8B', maxContextLength: 40_960 },
    ]);
  });

  it('of Ollama: names with tags, and null where it has none', () => {
    expect(
      decode({ object: 'list', data: [{ id: 'nomic-embed-text:latest', owned_by: 'library' }] }),
    ).toMatchObject([{ id: 'nomic-embed-text:latest', type: 'embedding' }]);
    expect(decode({ object: 'list', data: null })).toEqual([]);
  });

  it("of LM Studio's /v1: embedding models by their names", () => {
    const data = [{ id: 'qwen3-8b' }, { id: 'text-embedding-nomic-embed-text-v1.5' }];
    expect(decode({ data })?.map(({ type }) => type)).toEqual(['llm', 'embedding']);
  });

  it('of OpenRouter: context length and modalities', () => {
    const data = [{ id: 'a/b', context_length: 8192, architecture: { input_modalities: ['text'] } }];
    expect(decode({ data })).toMatchObject([{ maxContextLength: 8192, vision: false }]);
  });

  it('without an envelope (Together)', () => {
    const list = [
      { id: 'a', type: 'chat' },
      { id: 'b', type: 'image' },
    ];
    expect(decode(list)).toMatchObject([{ id: 'a', type: 'llm' }]);
  });

  it('skip items that are none', () => {
    expect(decode({ data: [{}, null, 'x', { id: 'a' }] })).toMatchObject([{ id: 'a' }]);
  });

  it.each([{ error: 'Unexpected endpoint or method. (GET /models)' }, {}, null, 'x'])(
    'are not: %j',
    (list) => {
      expect(decode(list)).toBeUndefined();
    },
  );
});

describe('the provider', () => {
  it.each([
    ['http://127.0.0.1:8080/v1/', 'http://127.0.0.1:8080/v1'],
    ['https://api.deepseek.com', 'https://api.deepseek.com'],
    ['https://ark.example.com/api/v3/chat/completions', 'https://ark.example.com/api/v3'],
    ['http://127.0.0.1:11434/v1/chat/completions/', 'http://127.0.0.1:11434/v1'],
  ])('is found at %s', (given, base) => {
    expect(openaiCompatible.normalizeBaseUrl(given)).toBe(base);
    expect(openaiCompatible.normalizeBaseUrl(base)).toBe(base);
  });

  it('needs no key and brings its models along', () => {
    expect(openaiCompatible).toMatchObject({ kind: 'openai', credential: 'optional', discovers: true });
  });
});

describe('an error of the upstream', () => {
  const told = (error: object, apiKey?: string) =>
    openaiError(
      chatCompletions.decodeError(
        {
          status: 400,
          contentType: 'application/json',
          body: JSON.stringify({ error }),
          retryAfterSeconds: undefined,
        },
        target({ apiKey }),
      ),
    ).error;

  it('keeps its param and code for clients of OpenAI', () => {
    const error = {
      message: 'no',
      type: 'invalid_request_error',
      param: 'messages[0].role',
      code: 'invalid_value',
    };
    expect(told(error)).toMatchObject({ param: 'messages[0].role', code: 'invalid_value' });
  });

  it('keeps neither a number, nor a sentence, nor the key', () => {
    expect(told({ message: 'no', param: 'see http://10.0.0.1/x', code: 400 })).toMatchObject({
      param: null,
      code: null,
    });
    expect(told({ message: 'no', param: 'my-secret', code: 'my-secret' }, 'my-secret')).toMatchObject({
      param: null,
      code: null,
    });
  });

  it('has the code that clients look for where the prompt does not fit', () => {
    const error = { message: 'the prompt is too long: maximum context length is 10', code: 'too_long' };
    expect(told(error)).toMatchObject({ code: 'context_length_exceeded' });
  });
});
