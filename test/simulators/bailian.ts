/**
 * Bailian's compatible mode as a real HTTP server: refuses what the platform refuses, answers with its very frames, and
 * fails in the ways it was seen to fail. Knows nothing of the gateway.
 */
import { z } from 'zod';
import {
  badRequest,
  type ChatBody,
  checkChat,
  checkEmbeddings,
  listedModels,
  type Refusal,
  thinks,
} from './bailian-rules.ts';
import {
  type Answer,
  createScriptQueue,
  deliver,
  type Frame,
  type Script,
  type ScriptedError,
  type ScriptedToolCall,
  type ScriptQueue,
} from './script.ts';
import { type RecordingServer, startRecordingServer } from './server.ts';

const basePath = '/compatible-mode/v1';
const docs = 'https://help.aliyun.com/zh/model-studio/error-code';
const largestBody = 6_291_456;

export interface BailianScript extends Script {
  /**
   * How a failure inside a stream looks: `object`: `data: {"error":{…}}`; `native`: `event:error` and a flat body;
   * `error_finish`: a native block as the text of a last chunk; `error_finish_text`: only words as that text.
   */
  readonly failureForm?: 'object' | 'native' | 'error_finish' | 'error_finish_text';
}

export interface BailianSimulator extends RecordingServer {
  /** What a provider is configured with. */
  readonly baseUrl: string;
  readonly scripts: ScriptQueue<BailianScript>;
}

export interface BailianOptions {
  /** 0 or unset: one that is free. */
  readonly port?: number;
  /** The only key it takes; `sk-bailian-test-key` if unset. */
  readonly apiKey?: string;
}

export const defaultKey = 'sk-bailian-test-key';

/** The body of a refusal by the front door (`front`) or by the engine behind it. */
function refusalBody(refusal: Refusal, layer: 'front' | 'engine'): unknown {
  const { code, type } = refusal;
  const message = `${refusal.message} For details, see: ${docs}#${code.replaceAll('_', '-')}`;
  return layer === 'front'
    ? { error: { message, type, param: null, code }, request_id: 'sim-request' }
    : { error: { code, param: null, message, type }, id: 'chatcmpl-sim', request_id: 'sim-request' };
}

const json = (status: number, body: unknown): Answer => ({ kind: 'json', status, body });

function refuse(refusal: Refusal): Answer {
  const layer = refusal.message.startsWith('<') ? 'engine' : 'front';
  return json(refusal.status, refusalBody(refusal, layer));
}

const invalidKey: Refusal = {
  status: 401,
  code: 'invalid_api_key',
  type: 'invalid_request_error',
  message: 'Incorrect API key provided.',
};

interface Said {
  readonly reasoning: readonly string[];
  readonly text: readonly string[];
  readonly toolCalls: readonly Required<ScriptedToolCall>[];
  readonly finishReason: string | null;
  readonly usage: Record<string, unknown> | undefined;
  readonly model: string;
}

/** Pieces of a text as the platform cuts them: a word or a few characters each. */
const cutIntoPieces = (text: string): readonly string[] =>
  text.match(/[\u4e00-\u9fff]{1,2}|[^\u4e00-\u9fff]+/g) ?? [];

const pieces = (given: string | readonly string[] | undefined, otherwise: string): readonly string[] =>
  typeof given === 'object' ? given : cutIntoPieces(given ?? otherwise);

function decide(body: ChatBody, script: BailianScript): Said {
  const empty = script.empty !== undefined;
  const calls = (script.toolCalls ?? []).map((call, index) => ({ id: `call_sim_${index}`, ...call }));
  const reasons = script.reasoning !== undefined || thinks(body);
  const reasoning = reasons && !empty ? pieces(script.reasoning, '用户在打招呼。') : [];
  const text = empty ? [] : pieces(script.text, calls.length > 0 ? '' : '你好!我是通义千问。');
  const spent = {
    input: 12,
    output: empty ? 0 : reasoning.length + text.length + calls.length,
    ...script.usage,
  };
  const thought = script.usage === undefined ? reasoning.length : (spent.reasoning ?? 0);
  const ended = calls.length > 0 ? 'tool_calls' : 'stop';
  return {
    reasoning,
    text,
    toolCalls: calls,
    finishReason: script.finishReason === undefined ? ended : script.finishReason,
    usage:
      script.usage === false
        ? undefined
        : {
            prompt_tokens: spent.input,
            completion_tokens: spent.output,
            total_tokens: spent.input + spent.output,
            ...(thought > 0 ? { completion_tokens_details: { reasoning_tokens: thought } } : {}),
            prompt_tokens_details: { cached_tokens: 0 },
          },
    model: script.model ?? body.model ?? '',
  };
}

const argumentText = (call: ScriptedToolCall): string =>
  typeof call.arguments === 'string' ? call.arguments : call.arguments.join('');

function wholeAnswer(said: Said, script: BailianScript): Answer {
  const message = {
    content: said.text.join(''),
    ...(said.reasoning.length > 0 ? { reasoning_content: said.reasoning.join('') } : {}),
    ...(said.toolCalls.length > 0
      ? {
          tool_calls: said.toolCalls.map((call, index) => ({
            function: { arguments: argumentText(call), name: call.name },
            id: call.id,
            index,
            type: 'function',
          })),
        }
      : {}),
    role: 'assistant',
  };
  const choice = { message, finish_reason: said.finishReason, index: 0, logprobs: null };
  return json(200, {
    choices: script.empty === 'no-choices' ? [] : [choice],
    object: 'chat.completion',
    ...(said.usage === undefined ? {} : { usage: said.usage }),
    created: 1_770_000_000,
    system_fingerprint: null,
    model: said.model,
    id: 'chatcmpl-sim',
  });
}

/** The frames of a stream, in the platform's key order and with its quirks: `id:""`, choices without finish_reason. */
function streamFrames(said: Said, includeUsage: boolean, script: BailianScript): readonly Frame[] {
  const tail = { created: 1_770_000_000, system_fingerprint: null, model: said.model, id: 'chatcmpl-sim' };
  const object = 'chat.completion.chunk';
  const frame = (kind: Frame['kind'], chunk: unknown): Frame => ({ kind, data: JSON.stringify(chunk) });
  const chunk = (kind: Frame['kind'], delta: unknown, finish_reason: string | null = null): Frame =>
    frame(kind, {
      choices: [{ finish_reason, logprobs: null, delta, index: 0 }],
      object,
      usage: null,
      ...tail,
    });
  const role = 'assistant';
  const frames: Frame[] = [];
  if (said.reasoning.length > 0) {
    frames.push(chunk('lifecycle', { content: null, role, reasoning_content: '' }));
    for (const piece of said.reasoning) {
      frames.push(chunk('content', { content: null, reasoning_content: piece }));
    }
  } else if (said.toolCalls.length === 0) {
    const first = { delta: { content: '', role }, index: 0, logprobs: null, finish_reason: null };
    frames.push(frame('lifecycle', { choices: [first], object, usage: null, ...tail }));
  }
  const after = said.reasoning.length > 0 ? { reasoning_content: null } : {};
  said.text.forEach((content, index) => {
    const last = script.finishWithText === true && index === said.text.length - 1;
    frames.push(chunk(last ? 'finish' : 'content', { content, ...after }, last ? said.finishReason : null));
  });
  said.toolCalls.forEach((call, index) => {
    frames.push(...toolCallFrames(call, index, { object, tail, chunk, frame }));
  });
  if (said.finishReason !== null && script.finishWithText !== true) {
    const end = said.toolCalls.length > 0 ? {} : { content: '', ...after };
    frames.push(chunk('finish', end, said.finishReason));
  }
  if (includeUsage && said.usage !== undefined) {
    frames.push(frame('lifecycle', { choices: [], object, usage: said.usage, ...tail }));
  }
  frames.push({ kind: 'closing', data: '[DONE]' });
  return frames;
}

interface FrameMaker {
  readonly object: string;
  readonly tail: object;
  chunk(kind: Frame['kind'], delta: unknown): Frame;
  frame(kind: Frame['kind'], chunk: unknown): Frame;
}

function toolCallFrames(call: Required<ScriptedToolCall>, index: number, make: FrameMaker): readonly Frame[] {
  const piecesOf = typeof call.arguments === 'string' ? [call.arguments] : call.arguments;
  const opening = { index, id: call.id, type: 'function', function: { name: call.name, arguments: '' } };
  const bare = { function: { arguments: '' }, index, id: '', type: 'function' };
  return [
    make.chunk('content', { content: null, tool_calls: [opening], role: 'assistant' }),
    ...piecesOf.map((piece) =>
      make.chunk('content', {
        content: null,
        tool_calls: [{ index, id: '', type: 'function', function: { arguments: piece } }],
      }),
    ),
    // The last continuation's choice names neither finish_reason nor logprobs.
    make.frame('content', {
      choices: [{ delta: { tool_calls: [bare] }, index: 0 }],
      object: make.object,
      usage: null,
      ...make.tail,
    }),
  ];
}

/** What the platform sends when it fails inside a stream. */
function failureFrames(error: ScriptedError, form: BailianScript['failureForm']): readonly Frame[] {
  const { code = 'Throttling.AllocationQuota', message = 'Allocated quota exceeded.', status = 429 } = error;
  const flat = JSON.stringify({ code, message, request_id: 'sim-request' });
  const closing: Frame[] = error.closing === true ? [{ kind: 'closing', data: '[DONE]' }] : [];
  const inText = (content: string): Frame => ({
    kind: 'finish',
    data: JSON.stringify({
      choices: [{ delta: { content }, finish_reason: 'error_finish', index: 0 }],
      object: 'chat.completion.chunk',
      id: 'chatcmpl-sim',
    }),
  });
  switch (form) {
    case 'native':
      return [{ kind: 'finish', event: 'error', data: flat }, ...closing];
    case 'error_finish':
      return [inText(`id:1\nevent:error\n:HTTP_STATUS/${status}\ndata:${flat}`), ...closing];
    case 'error_finish_text':
      return [inText(message), ...closing];
    case 'object':
    case undefined: {
      const body = {
        error: { code, param: null, message, type: error.type ?? code },
        request_id: 'sim-request',
      };
      return [{ kind: 'finish', data: JSON.stringify(body) }, ...closing];
    }
    default:
      throw new Error(`no such form: ${String(form satisfies never)}`);
  }
}

function answerChat(body: unknown, script: BailianScript): Answer {
  const checked = checkChat(body);
  if ('refusal' in checked) return refuse(checked.refusal);
  const said = decide(checked.body, script);
  if (checked.body.stream !== true) return wholeAnswer(said, script);
  const includeUsage = checked.body.stream_options?.include_usage === true;
  return {
    kind: 'stream',
    frames: streamFrames(said, includeUsage, script),
    failure: (error) => failureFrames(error, script.failureForm),
  };
}

/** The number in a text (else its length) comes first, so that a test sees which vector belongs to which input. */
function vector(input: string, dimensions: number): readonly number[] {
  const mark = Number(/\d+/.exec(input)?.[0] ?? input.length);
  return [mark, ...Array.from({ length: dimensions - 1 }, (_, index) => 1 / (index + 2))];
}

function answerEmbeddings(body: unknown): Answer {
  const checked = checkEmbeddings(body);
  if ('refusal' in checked) return refuse(checked.refusal);
  const { model, inputs, dimensions } = checked;
  const tokens = inputs.reduce((sum, input) => sum + Math.max(1, Math.ceil(input.length / 2)), 0);
  return json(200, {
    data: inputs.map((input, index) => ({
      embedding: vector(input, dimensions),
      index,
      object: 'embedding',
    })),
    model,
    object: 'list',
    usage: { prompt_tokens: tokens, total_tokens: tokens },
    id: 'sim-request',
  });
}

const nativeQuirk = z.looseObject({ input: z.unknown().optional() });

/** Listens on 127.0.0.1; everything lies under `/compatible-mode/v1`. */
export async function startBailian(options: BailianOptions = {}): Promise<BailianSimulator> {
  const scripts = createScriptQueue<BailianScript>();
  const apiKey = options.apiKey ?? defaultKey;
  const generations = new Set([`${basePath}/chat/completions`, `${basePath}/embeddings`]);

  const answer = (
    method: string,
    path: string,
    body: unknown,
    text: string,
    script: BailianScript,
  ): Answer => {
    const call = `${method} ${path.slice(basePath.length)}`;
    if (!path.startsWith(`${basePath}/`))
      return json(404, { code: 'NotFound', message: 'Not found', request_id: 'sim' });
    if (Buffer.byteLength(text) > largestBody) {
      return refuse(badRequest(`Exceeded limit on max bytes to request body : ${largestBody}`));
    }
    if (call === 'GET /models') {
      return json(200, {
        object: 'list',
        data: listedModels.map((id) => ({ id, object: 'model', created: 0, owned_by: 'system' })),
      });
    }
    if (call === 'POST /embeddings') return answerEmbeddings(body);
    if (call !== 'POST /chat/completions')
      return json(404, {
        error: { message: 'Not found', type: 'invalid_request_error', param: null, code: 'not_found' },
      });
    // A native body on the compatible path has no messages beside the model.
    if (nativeQuirk.safeParse(body).data?.input !== undefined) {
      return refuse(badRequest('Either "prompt" or "messages" must exist and cannot both be none'));
    }
    return answerChat(body, script);
  };

  const server = await startRecordingServer({
    ...(options.port === undefined ? {} : { port: options.port }),
    isGeneration: (method, path) => method === 'POST' && generations.has(path),
    async handle(exchange) {
      const { method, path, headers, body, text, generation } = exchange.record;
      const script = generation ? (scripts.take() ?? {}) : {};
      if (headers.authorization !== `Bearer ${apiKey}`) return deliver(exchange, refuse(invalidKey));
      return deliver(exchange, answer(method, path, body, text, script), script);
    },
  });
  return Object.assign(server, { baseUrl: `${server.url}${basePath}`, scripts });
}
