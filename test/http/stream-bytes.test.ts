/** The unified event stream, to the byte, as it leaves the gateway's socket. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { chatModel } from './prepare.ts';
import { type Stage, since, startStage } from './stage.ts';
import { deferred, type EventReading, readEvents, type WireAnswer } from './wire.ts';

let scene: Stage;

beforeAll(async () => {
  scene = await startStage({ environment: { UPSTREAM_MAX_RETRIES: '0' } });
});
afterAll(() => scene.close());
beforeEach(() => scene.studio.reset());

/** A stream under a script, to its end. */
async function stream(
  script: LmStudioScript,
  body: Readonly<Record<string, unknown>> = {},
): Promise<EventReading & { readonly answer: WireAnswer }> {
  scene.studio.next(script);
  const answer = scene.chat({ stream: true, ...body });
  expect(await answer.done).toBe('complete');
  return { ...readEvents(answer.body), answer };
}

const chunk = (choice: object, rest: object = {}): string =>
  `data: ${JSON.stringify({ id: 'c', model: chatModel, choices: [{ index: 0, finish_reason: null, ...choice }], ...rest })}\n\n`;
const delta = (content: string): string => chunk({ delta: { content } });
const finish = (rest: object = {}): string => chunk({ delta: {}, finish_reason: 'stop' }, rest);
const done = 'data: [DONE]\n\n';
const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
const unified = { input_tokens: 3, output_tokens: 2, total_tokens: 5 };
const raw = (...pieces: readonly (string | Uint8Array | Promise<unknown>)[]): LmStudioScript => ({
  raw: { pieces },
});

describe('what is written', () => {
  it('is one data line of compact JSON and one blank line for each delta, LF only', async () => {
    const { answer } = await stream(raw(delta('你'), delta('好"\n\r\u2028'), finish({ usage }), done));
    expect(answer.body).toBe(
      [
        'data: {"content":"你","finish_reason":null}\n\n',
        'data: {"content":"好\\"\\n\\r\u2028","finish_reason":null}\n\n',
        `data: {"content":"","finish_reason":"stop","usage":${JSON.stringify(unified)}}\n\n`,
        done,
      ].join(''),
    );
  });

  it('comes under the headers of an event stream that nobody may hold back', async () => {
    const { answer } = await stream(raw(delta('你'), finish(), done));
    const { status, headers } = await answer.head;
    expect(status).toBe(200);
    expect(headers).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'x-gateway-provider': 'lmstudio',
      'x-gateway-model': chatModel,
      'x-gateway-requested-model': chatModel,
      'x-gateway-attempts': '1',
    });
    expect(headers['content-encoding']).toBeUndefined();
    expect(headers['x-request-id']).toMatch(/^[A-Za-z0-9._-]{1,128}$/);
  });

  it('never merges deltas and never splits one', async () => {
    const pieces = ['你', '好', '!', 'a', 'bc', ' ', '\n', '😀🎉', 'def'.repeat(500)];
    expect((await stream({ text: pieces, gapMs: 0 })).deltas).toEqual(pieces);
  });

  it('has no chunk for an empty delta', async () => {
    const reading = await stream(
      raw(
        chunk({ delta: { role: 'assistant', content: '' } }),
        delta(''),
        delta('你'),
        delta(''),
        finish(),
        done,
      ),
    );
    expect(reading.chunks.map(({ content }) => content)).toEqual(['你', '']);
  });

  it('is one write for the deltas of one read', async () => {
    const { answer, deltas } = await stream(
      raw([delta('你'), delta('好'), delta('!')].join('') + finish() + done),
    );
    expect(deltas).toEqual(['你', '好', '!']);
    expect(answer.chunks).toHaveLength(1);
  });

  it('leaves as soon as it arrives', async () => {
    const second = deferred();
    scene.studio.next(raw(delta('你'), second.promise, delta('好') + finish() + done));
    const answer = scene.chat({ stream: true });
    await answer.until((body) => body.includes('你'));
    expect(answer.body).toBe('data: {"content":"你","finish_reason":null}\n\n');
    second.resolve();
    await answer.done;
    expect(answer.chunks).toHaveLength(2);
  });

  it('joins the halves of a character that the upstream split between two deltas', async () => {
    const { deltas } = await stream({ text: ['a\ud83d', '\ude00b', '\ud83d', '\ude01'], gapMs: 0 });
    expect(deltas).toEqual(['a', '😀b', '😁']);
  });

  it('makes half a character that never met its other half U+FFFD', async () => {
    expect((await stream({ text: ['a', '\ud83d'], gapMs: 0 })).text).toBe('a\ufffd');
  });

  it('puts reasoning and tool calls on chunks without content', async () => {
    const { chunks } = await stream(
      raw(
        chunk({ delta: { reasoning_content: '想' } }),
        chunk({
          delta: {
            tool_calls: [{ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }],
          },
        }),
        chunk({ delta: {}, finish_reason: 'tool_calls' }),
        done,
      ),
    );
    expect(chunks).toEqual([
      { content: '', finish_reason: null, reasoning_content: '想' },
      {
        content: '',
        finish_reason: null,
        tool_calls: [{ index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }],
      },
      { content: '', finish_reason: 'tool_calls', usage: null },
    ]);
  });
});

describe('the end', () => {
  it('is one terminal chunk that alone carries usage and stats, then [DONE]', async () => {
    const reading = await stream({ text: ['你', '好'], gapMs: 0, usage: { input: 3, output: 2 } });
    expect(reading.terminal).toMatchObject({ content: '', finish_reason: 'stop', usage: unified });
    expect(reading.terminal).toHaveProperty('stats.stop_reason', 'eosFound');
    expect(reading.chunks.filter((one) => 'usage' in one || 'stats' in one)).toHaveLength(1);
    expect(reading.done).toBe(true);
  });

  it.each([
    [
      'after the finish',
      raw(delta('你'), finish(), `data: ${JSON.stringify({ choices: [], usage })}\n\n`, done),
    ],
    ['with the finish', raw(delta('你'), finish({ usage }), done)],
    ['before the finish', raw(chunk({ delta: { content: '你' } }, { usage }), finish(), done)],
  ])('has the usage that came %s', async (_where, script) => {
    expect((await stream(script)).terminal).toEqual({ content: '', finish_reason: 'stop', usage: unified });
  });

  it('has usage null where the upstream reported none', async () => {
    const { terminal } = await stream({ ...faults.noUsage(), text: ['你'] });
    expect(terminal).toMatchObject({ finish_reason: 'stop', usage: null });
  });

  it('keeps the text of a delta that also tells the finish', async () => {
    const reading = await stream({ ...faults.finishWithText(), text: ['你', '好'], gapMs: 0 });
    expect(reading.deltas).toEqual(['你', '好']);
    expect(reading.terminal?.finish_reason).toBe('stop');
  });

  it('does not wait for the upstream to close', async () => {
    scene.studio.next({ raw: { pieces: [delta('你'), finish({ usage }), done], ending: 'hang' } });
    const answer = scene.chat({ stream: true });
    const { receivedAt } = await scene.studio.waitForRequest();
    expect(await answer.done).toBe('complete');
    expect(since(receivedAt)).toBeLessThan(500);
    expect(readEvents(answer.body).terminal?.finish_reason).toBe('stop');
  });

  it('ignores what follows [DONE]', async () => {
    expect((await stream(raw(delta('你') + finish() + done + delta('好')))).text).toBe('你');
  });

  it.each(['destroy', 'reset', 'end'] as const)(
    'is good where the upstream said so and then went away: %s',
    async (ending) => {
      const { terminal } = await stream({ raw: { pieces: [delta('你'), finish()], ending } });
      expect(terminal).toEqual({ content: '', finish_reason: 'stop', usage: null });
    },
  );

  it('does not wait for long for the usage that is owed', async () => {
    scene.studio.next({ raw: { pieces: [delta('你'), finish()], ending: 'hang' } });
    const answer = scene.chat({ stream: true });
    const { receivedAt } = await scene.studio.waitForRequest();
    expect(await answer.done).toBe('complete');
    expect(since(receivedAt)).toBeLessThan(3000);
    expect(readEvents(answer.body).terminal).toEqual({ content: '', finish_reason: 'stop', usage: null });
  });

  it('is an error where [DONE] comes without a finish reason', async () => {
    const { terminal } = await stream(raw(delta('你'), done));
    expect(terminal).toEqual({
      content: '',
      finish_reason: 'error',
      error: { code: 502, type: 'UPSTREAM_ERROR', message: 'LM Studio返回错误:连接中断' },
    });
  });

  it.each([['modelUnloaded'], ['failed'], ['userStopped']])(
    'is an error for stop_reason %s',
    async (word) => {
      const { terminal } = await stream({ ...faults.stopped(word), text: ['你'] });
      expect(terminal).toMatchObject({
        finish_reason: 'error',
        error: { code: 502, type: 'UPSTREAM_ERROR' },
      });
    },
  );

  it.each([['contextLengthReached'], ['maxPredictedTokensReached']])(
    'is length for stop_reason %s',
    async (word) => {
      expect((await stream({ ...faults.stopped(word), text: ['你'] })).terminal?.finish_reason).toBe(
        'length',
      );
    },
  );
});

describe('the framing of the upstream', () => {
  const pieces = ['你', '好,', '😀', '世界é'];

  it.each<[string, LmStudioScript]>([
    ['a write for every byte', faults.splitBytes(1)],
    ['writes of three bytes', faults.splitBytes(3)],
    ['CRLF', faults.crlf()],
    ['CRLF, a write for every byte', { ...faults.crlf(), ...faults.splitBytes(1) }],
    ['CR', { newline: '\r' }],
    ['a byte order mark', faults.bom()],
    ['a byte order mark, a write for every byte', { ...faults.bom(), ...faults.splitBytes(1) }],
    ['everything in one write', faults.manyPerWrite()],
  ])('may be %s', async (_name, script) => {
    const { deltas, answer, terminal } = await stream({ ...script, text: pieces, gapMs: 0 });
    expect(deltas).toEqual(pieces);
    expect(terminal?.finish_reason).toBe('stop');
    expect(answer.body).not.toContain('\r');
  });

  it('may hold comments, unknown fields and data without a blank after the colon', async () => {
    const { deltas } = await stream(
      raw(
        ': ping\n\n:\nid: 7\nretry: 10\nfoo: bar\n',
        delta('你').replace('data: ', 'data:'),
        ': x\n',
        delta('好'),
        finish(),
        done,
      ),
    );
    expect(deltas).toEqual(['你', '好']);
  });

  it('may lack the last blank line', async () => {
    const { terminal } = await stream(raw(delta('你'), finish({ usage }).trimEnd()));
    expect(terminal?.finish_reason).toBe('stop');
  });

  it('may have a line of a MiB', async () => {
    const { deltas } = await stream(faults.giantDelta(350_000));
    expect(deltas).toEqual(['好'.repeat(350_000)]);
  });

  it('may not have a line of 17 MiB: the stream ends with a clear error', async () => {
    const { text, terminal } = await stream({
      ...faults.endlessLine(17 * 1024 * 1024),
      text: ['你', '好'],
      gapMs: 0,
    });
    expect(text).toBe('你');
    expect(terminal).toMatchObject({
      finish_reason: 'error',
      error: { code: 502, type: 'UPSTREAM_ERROR', message: 'LM Studio返回错误:响应格式错误' },
    });
  });
});

describe('a failure after the first text', () => {
  it.each<[string, LmStudioScript, object]>([
    ['an event that is not JSON', faults.garbage(), { code: 502, message: 'LM Studio返回错误:响应格式错误' }],
    ['a cut', faults.cut(), { code: 502, message: 'LM Studio返回错误:连接中断' }],
    ['a reset', faults.reset(), { code: 502, message: 'LM Studio返回错误:连接中断' }],
    [
      'an end without a word',
      faults.endsEarly('after-text'),
      { code: 502, message: 'LM Studio返回错误:连接中断' },
    ],
    [
      'an error event',
      faults.errorFrame({ message: '显存不足' }),
      { code: 502, message: 'LM Studio返回错误:显存不足' },
    ],
    [
      'an error of text',
      faults.errorFrame({ message: '显存不足', shape: 'string', named: true }),
      { message: 'LM Studio返回错误:显存不足' },
    ],
    [
      'an error as the last word',
      faults.errorFrame({ message: '显存不足', closing: false }),
      { message: 'LM Studio返回错误:显存不足' },
    ],
  ])('is the terminal chunk: %s', async (_name, script, error) => {
    const reading = await stream({ ...script, text: ['你', '好'], gapMs: 0 });
    expect(reading.text).toBe('你');
    expect(reading.terminal).toMatchObject({
      content: '',
      finish_reason: 'error',
      error: { type: 'UPSTREAM_ERROR', ...error },
    });
    expect(reading.terminal).not.toHaveProperty('usage');
    expect(reading.done).toBe(true);
  });
});

describe('a failure before the first text is an ordinary HTTP error, though a stream was asked for', () => {
  it.each<[string, LmStudioScript, number, string, string]>([
    ['HTML with a 200', faults.html(200), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:响应格式错误'],
    ['HTML with a 502', faults.html(502), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:响应格式错误'],
    ['a 400', faults.status(400), 400, 'INVALID_PARAMS', '参数值超出有效范围:LM Studio返回错误:Bad request'],
    ['a 401', faults.status(401), 401, 'UNAUTHORIZED', '未授权:API Key缺失或无效(lmstudio)'],
    ['a 404', faults.status(404), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:Not found'],
    [
      'a 429',
      faults.rateLimited('7'),
      429,
      'RATE_LIMITED',
      '请求频率超限:LM Studio返回错误:Too many requests',
    ],
    ['a 500', faults.status(500), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:Internal server error'],
    [
      'an error with a 200',
      faults.errorIn200('模型没有加载'),
      502,
      'UPSTREAM_ERROR',
      'LM Studio返回错误:模型没有加载',
    ],
    [
      'an error event',
      faults.errorFrame({ at: 'before-text', message: '显存不足' }),
      502,
      'UPSTREAM_ERROR',
      'LM Studio返回错误:显存不足',
    ],
    ['garbage', faults.garbage('before-text'), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:响应格式错误'],
    ['a stream without any delta', faults.noDelta(), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:连接中断'],
    ['an answer of nothing', faults.emptyAnswer(), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:空响应'],
    ['a closed socket', faults.refuse(), 502, 'UPSTREAM_ERROR', 'LM Studio返回错误:连接中断'],
  ])('%s', async (_name, script, status, code, message) => {
    scene.studio.next(script);
    const answer = scene.chat({ stream: true });
    const head = await answer.head;
    expect(await answer.done).toBe('complete');
    expect(head.status).toBe(status);
    expect(head.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(head.headers['x-error-code']).toBe(code);
    expect(JSON.parse(answer.body)).toEqual({ code: status, message, data: null });
  });
});

describe('the examples of the documentation', () => {
  const example = (name: string): string =>
    readFileSync(new URL(`../fixtures/examples/${name}`, import.meta.url), 'utf8')
      .replace('http://localhost:8000', scene.url)
      .replace('qwen-turbo', chatModel);

  /** Runs a script as the body of an async function; returns what it printed. */
  async function run(source: string): Promise<unknown[]> {
    const printed: unknown[] = [];
    const log = vi.spyOn(console, 'log').mockImplementation((line) => void printed.push(line));
    try {
      const AsyncFunction: FunctionConstructor = Object.getPrototypeOf(async () => {}).constructor;
      await new AsyncFunction(source)();
    } finally {
      log.mockRestore();
    }
    return printed;
  }

  it('runs the plain one', async () => {
    scene.studio.next({ text: '你好!我是AI助手。' });
    expect(await run(example('plain.js.txt'))).toEqual(['你好!我是AI助手。']);
  });

  it('runs the streamed one', async () => {
    scene.studio.next({ text: ['你好', '!', '我是AI助手', '。'], gapMs: 2 });
    const printed = await run(example('streamed.js.txt'));
    expect(printed.filter((line) => line !== '')).toEqual(['你好', '!', '我是AI助手', '。', '流式响应结束']);
  });
});
