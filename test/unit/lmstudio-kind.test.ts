/** LM Studio as a provider: which wire serves what, what its model lists tell, its embeddings. */
import { describe, expect, it } from 'vitest';
import { providerKinds } from '../../src/adapters/index.ts';
import { lmstudio } from '../../src/adapters/lmstudio.ts';
import type { Target } from '../../src/chat/adapter.ts';
import { GatewayError } from '../../src/chat/errors.ts';
import type { ChatRequest, CompletionRequest, Message, Parameters } from '../../src/chat/request.ts';
import { usualTarget } from '../conformance/adapter.ts';

const base = { model: 'm', stream: true, includeProgress: false } as const;

function chatRequest(parameters: Parameters, more: Partial<ChatRequest> = {}): ChatRequest {
  return { ...base, kind: 'chat', parameters, messages: [{ role: 'user', content: 'hi' }], ...more };
}

/** The wire's name, or the parameter that stands in the way. */
function choice(request: ChatRequest | CompletionRequest, target: Partial<Target> = {}): string {
  try {
    return lmstudio.adapterFor(request, { ...usualTarget, ...target }).name;
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    return `${error.code} ${error.param}`;
  }
}

const both = { apis: ['v0', 'v1'] };
const old = { apis: ['v0'] };
const tools = [{ type: 'function' as const, function: { name: 'f' } }];
const history: Message[] = [
  { role: 'user', content: 'a' },
  { role: 'assistant', content: 'b' },
  { role: 'user', content: 'c' },
];

describe('the choice between v0 and v1', () => {
  it.each([
    ['nothing special', {}],
    ['sampling that both have', { temperature: 0.5, top_k: 40, repeat_penalty: 1.1, max_tokens: 5 }],
    ['temperature above 1', { temperature: 1.5 }],
    ['own tools', { tools }],
  ] as const)('is v0 for %s', (_what, parameters) => {
    expect(choice(chatRequest(parameters), both)).toBe('lmstudio-v0');
  });

  const onlyV1: [string, Parameters][] = [
    ['integrations', { integrations: ['mcp/x'] }],
    ['store', { store: true }],
    ['previous_response_id', { previous_response_id: 'resp_1' }],
    ['reasoning', { reasoning: 'low' }],
    ['context_length', { context_length: 8000 }],
    ['min_p', { min_p: 0.1 }],
  ];
  it.each(onlyV1)('is v1 for %s, refused by name where the server has none', (name, parameters) => {
    expect(choice(chatRequest(parameters), both)).toBe('lmstudio-v1');
    expect(choice(chatRequest(parameters), { apis: undefined })).toBe('lmstudio-v1');
    expect(choice(chatRequest(parameters), old)).toBe(`INVALID_PARAMS ${name}`);
  });

  const onlyV0: [string, Parameters][] = [
    ['tools', { tools }],
    ['stop', { stop: ['\n'] }],
    ['seed', { seed: 1 }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['presence_penalty', { presence_penalty: 1 }],
    ['ttl', { ttl: 60 }],
    ['temperature', { temperature: 1.5 }],
  ];
  it.each(onlyV0)('refuses %s beside what needs v1, and names both', (name, parameters) => {
    const request = chatRequest({ ...parameters, integrations: ['mcp/x'] });
    expect(choice(request, both)).toBe(`INVALID_PARAMS ${name}`);
    const attempt = (): unknown => lmstudio.adapterFor(request, { ...usualTarget, ...both });
    expect(attempt).toThrow('integrations');
    expect(attempt).toThrow('home');
  });

  it('refuses a history beside what needs v1 by the message that v1 cannot take', () => {
    expect(choice(chatRequest({ store: true }, { messages: history }), both)).toBe(
      'INVALID_PARAMS messages[1]',
    );
  });

  it('is v1 for those who want progress, where the server has it and the request fits', () => {
    const wish = { includeProgress: true };
    expect(choice(chatRequest({}, wish), both)).toBe('lmstudio-v1');
    expect(choice(chatRequest({}, wish), old)).toBe('lmstudio-v0');
    expect(choice(chatRequest({}, wish), { apis: undefined })).toBe('lmstudio-v0');
    expect(choice(chatRequest({ tools }, wish), both)).toBe('lmstudio-v0');
    expect(choice(chatRequest({ temperature: 1.5 }, wish), both)).toBe('lmstudio-v0');
    expect(choice(chatRequest({}, { ...wish, messages: history }), both)).toBe('lmstudio-v0');
    expect(choice(chatRequest({}, { ...wish, stream: false }), both)).toBe('lmstudio-v0');
  });

  it("follows the route's own choice", () => {
    expect(choice(chatRequest({ min_p: 0.1 }), { ...both, api: 'v0' })).toBe('lmstudio-v0');
    expect(choice(chatRequest({}), { ...both, api: 'v1' })).toBe('lmstudio-v1');
    expect(choice(chatRequest({ min_p: 0.1 }), { ...old, api: 'v1' })).toBe('INVALID_PARAMS min_p');
    expect(choice(chatRequest({}), { ...old, api: 'v1' })).toBe('INVALID_PARAMS model');
  });

  it('is v0 for text completions', () => {
    const completion: CompletionRequest = { ...base, kind: 'completion', prompt: 'x', parameters: {} };
    expect(choice(completion, both)).toBe('lmstudio-v0');
    expect(choice({ ...completion, includeProgress: true }, both)).toBe('lmstudio-v0');
  });
});

describe('the base URL', () => {
  it.each([
    'http://h:1234',
    'http://h:1234/',
    'http://h:1234/v1',
    'http://h:1234/v1/',
    'http://h:1234/api/v0',
    'http://h:1234/api/v1//',
    'http://h:1234/v1/v1',
  ])('of %s is the same', (url) => {
    expect(lmstudio.normalizeBaseUrl(url)).toBe('http://h:1234');
  });

  it('keeps the path of a proxy', () => {
    expect(lmstudio.normalizeBaseUrl('https://h/lm/v1')).toBe('https://h/lm');
    expect(lmstudio.normalizeBaseUrl('https://h/dev1')).toBe('https://h/dev1');
  });
});

describe('the model lists', () => {
  const [listV1, listV0] = lmstudio.listings;
  const unexpected = { error: 'Unexpected endpoint or method. (GET /api/v1/models)' };

  it('asks v1 first, then v0, and takes a 200 about an unexpected endpoint for no list', () => {
    expect(lmstudio.listings.map((listing) => [listing.call(undefined).path, listing.apis])).toEqual([
      ['/api/v1/models', ['v0', 'v1']],
      ['/api/v0/models', ['v0']],
    ]);
    for (const listing of lmstudio.listings) expect(listing.decode(unexpected)).toBeUndefined();
  });

  it('sends the key', () => {
    expect(listV1?.call('k').headers).toMatchObject({ authorization: 'Bearer k' });
  });

  it('reads what v1 tells of a model', () => {
    const model = {
      type: 'llm',
      publisher: 'qwen',
      key: 'qwen/qwen3-8b',
      display_name: 'Qwen3 8B',
      architecture: 'qwen3',
      quantization: { name: 'Q4_K_M', bits_per_weight: 4 },
      size_bytes: 5,
      params_string: '8B',
      loaded_instances: [{ id: 'qwen/qwen3-8b', config: { context_length: 8192, parallel: 4 } }],
      max_context_length: 40960,
      format: 'gguf',
      capabilities: {
        vision: false,
        trained_for_tool_use: true,
        reasoning: { allowed_options: ['off', 'on'], default: 'on' },
      },
      description: null,
    };
    const embedding = { type: 'embedding', key: 'nomic', loaded_instances: [], max_context_length: 2048 };
    const bare = { type: 'llm', key: 'granite', capabilities: { vision: true } };
    expect(listV1?.decode({ models: [model, embedding, bare, { type: 'robot' }] })).toEqual([
      {
        id: 'qwen/qwen3-8b',
        type: 'llm',
        state: 'loaded',
        displayName: 'Qwen3 8B',
        publisher: 'qwen',
        architecture: 'qwen3',
        quantization: 'Q4_K_M',
        format: 'gguf',
        parameterCount: '8B',
        maxContextLength: 40960,
        instances: [{ id: 'qwen/qwen3-8b', contextLength: 8192, parallel: 4 }],
        vision: false,
        toolUse: true,
        reasoningOptions: ['off', 'on'],
      },
      { id: 'nomic', type: 'embedding', state: 'not-loaded', maxContextLength: 2048, instances: [] },
      { id: 'granite', type: 'llm', state: 'unknown', vision: true, reasoningOptions: [] },
    ]);
  });

  it('does not conclude that a model lacks a reasoning setting from a list that names none at all', () => {
    expect(listV1?.decode({ models: [{ type: 'llm', key: 'a', capabilities: { vision: true } }] })).toEqual([
      { id: 'a', type: 'llm', state: 'unknown', vision: true },
    ]);
  });

  it('reads what v0 tells of a model', () => {
    const data = [
      {
        id: 'qwen2-vl@4bit',
        object: 'model',
        type: 'vlm',
        publisher: 'mlx-community',
        arch: 'qwen2_vl',
        compatibility_type: 'mlx',
        quantization: '4bit',
        state: 'loaded',
        max_context_length: 32768,
        loaded_context_length: 4096,
        capabilities: ['tool_use'],
      },
      { id: 'llama', type: 'llm', state: 'not-loaded' },
      { id: 'nomic', type: 'embeddings' },
    ];
    expect(listV0?.decode({ object: 'list', data })).toEqual([
      {
        id: 'qwen2-vl@4bit',
        type: 'llm',
        state: 'loaded',
        publisher: 'mlx-community',
        architecture: 'qwen2_vl',
        quantization: '4bit',
        format: 'mlx',
        maxContextLength: 32768,
        instances: [{ id: 'qwen2-vl@4bit', contextLength: 4096 }],
        vision: true,
        toolUse: true,
      },
      { id: 'llama', type: 'llm', state: 'not-loaded', vision: false },
      { id: 'nomic', type: 'embedding', state: 'unknown' },
    ]);
  });

  it('lists models whose kind a server does not tell, and none of a kind that it does not know', () => {
    const named = ['llama', 'text-embedding-nomic'];
    const found = [
      { id: 'llama', type: 'llm', state: 'unknown' },
      { id: 'text-embedding-nomic', type: 'embedding', state: 'unknown' },
    ];
    const odd = { id: 'voice', key: 'voice', type: 'tts' };
    expect(listV0?.decode({ data: [...named.map((id) => ({ id })), odd] })).toEqual(found);
    expect(listV1?.decode({ models: [...named.map((key) => ({ key })), odd] })).toEqual(found);
  });
});

describe('the slots of a model', () => {
  const slots = (instances: { id: string; parallel?: number }[] | undefined) =>
    lmstudio.slots({
      id: 'm',
      type: 'llm',
      state: 'unknown',
      ...(instances === undefined ? {} : { instances }),
    });

  it('are the sum over its loaded instances', () => {
    expect(
      slots([
        { id: 'a', parallel: 2 },
        { id: 'b', parallel: 3 },
      ]),
    ).toBe(5);
  });

  it('are four for an instance that does not tell, for a model not loaded and for an unknown one', () => {
    expect([slots([{ id: 'a' }]), slots([]), slots(undefined), lmstudio.slots(undefined)]).toEqual([
      4, 4, 4, 4,
    ]);
  });
});

describe('embeddings', () => {
  const { embeddings } = lmstudio;
  const request = { kind: 'embedding', model: 'm', input: ['a', 'b'] } as const;

  it('are asked for in one call of v0, however many', () => {
    const call = embeddings?.embed(request, usualTarget);
    expect(call?.path).toBe('/api/v0/embeddings');
    expect(JSON.parse(call?.body ?? '')).toEqual({ model: 'qwen3-8b', input: ['a', 'b'] });
    expect(embeddings?.batchLimit(usualTarget)).toBe(Number.POSITIVE_INFINITY);
  });

  it('refuse dimensions by name', () => {
    expect(embeddings?.refuse(request, usualTarget)).toBeUndefined();
    const error = embeddings?.refuse({ ...request, dimensions: 64 }, usualTarget);
    expect(error).toMatchObject({ code: 'INVALID_PARAMS', param: 'dimensions' });
  });

  it('are an error where a 200 is one', () => {
    const body = { error: 'Unexpected endpoint or method. (POST /api/v0/embeddings)' };
    expect(() => embeddings?.decodeEmbeddings(body, usualTarget)).toThrow(
      'LM Studio返回错误:Unexpected endpoint',
    );
  });
});

it('is in the registry under the name that catalog rows use', () => {
  expect(providerKinds.get('lmstudio')).toBe(lmstudio);
  for (const [name, kind] of providerKinds) expect(kind.kind).toBe(name);
});
