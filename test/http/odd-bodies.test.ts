/** Answers whose body is not what its head says, or comes in a form that was not asked for: what can be read is read. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import zlib from 'node:zlib';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { startGateway } from './gateway.ts';
import { since, stage } from './stage.ts';
import { readEvents } from './wire.ts';

const usage = { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 };
const whole = JSON.stringify({
  model: 'm',
  choices: [{ index: 0, message: { role: 'assistant', content: '你好。' }, finish_reason: 'stop' }],
  usage,
});
const chunk = (delta: object, finish: string | null = null, more: object = {}): string =>
  `data: ${JSON.stringify({ model: 'm', choices: [{ index: 0, delta, finish_reason: finish }], ...more })}\n\n`;
const events = `${chunk({ content: '你好' })}${chunk({ content: '。' })}${chunk({}, 'stop', { usage })}data: [DONE]\n\n`;

const randomly = Buffer.from(Array.from({ length: 300 }, (_, index) => (index * 7919) % 251));

interface Sent {
  readonly body: string | Uint8Array;
  /** None for an empty text. */
  readonly type?: string;
  readonly coding?: string;
  readonly status?: number;
}

/** What the client is told where the upstream answers so. */
async function told({ body, type, coding, status }: Sent, stream: boolean) {
  const scene = await stage({ environment: { UPSTREAM_MAX_RETRIES: '0' } });
  const headers = {
    ...(type ? { 'content-type': type } : {}),
    ...(coding === undefined ? {} : { 'content-encoding': coding }),
  };
  scene.studio.next({ raw: { ...(status === undefined ? {} : { status }), headers, pieces: [body] } });
  const answer = scene.chat({ stream });
  const head = await answer.head;
  await answer.done;
  return { status: head.status, body: answer.body };
}

async function expectAnswer(sent: Sent, stream: boolean): Promise<void> {
  const { status, body } = await told(sent, stream);
  expect(status, body).toBe(200);
  if (stream) expect(readEvents(body).text).toBe('你好。');
  else expect(JSON.parse(body).data.content).toBe('你好。');
  expect(body).toContain('"usage":{"input_tokens":7,"output_tokens":5,"total_tokens":12}');
}

describe.each([
  ['gzip', 'gzip', zlib.gzipSync],
  ['gzip that nobody declares', undefined, zlib.gzipSync],
  ['deflate', 'deflate', zlib.deflateSync],
  ['br', 'br', zlib.brotliCompressSync],
])('an upstream that answers in %s', (_name, coding, compress) => {
  const compressed = (text: string, more: Partial<Sent>): Sent => ({
    body: compress(Buffer.from(text)),
    ...(coding === undefined ? {} : { coding }),
    ...more,
  });

  it('streams to its client', () => expectAnswer(compressed(events, { type: 'text/event-stream' }), true));

  it('answers its client', () => expectAnswer(compressed(whole, { type: 'application/json' }), false));

  it.each([true, false])('tells its client why it refuses (stream: %s)', async (stream) => {
    const refusal = compressed('{"error":{"message":"temperature must be <= 1"}}', { status: 400 });
    const { status, body } = await told(refusal, stream);
    expect(status).toBe(400);
    expect(body).toContain('参数值超出有效范围:LM Studio返回错误:temperature must be <= 1');
  });
});

it.each([200, 500])('bytes that nobody can decode are told to nobody (status %i)', async (status) => {
  const answer = await told({ body: randomly, coding: 'br', status }, false);
  expect(answer.status).toBe(502);
  expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:响应格式错误');
});

describe('what a body is, its first bytes tell and not its head', () => {
  const streamType = 'text/event-stream; charset=utf-8';
  const mark = '\ufeff';

  it.each([
    ['application/json', events],
    ['text/plain; charset=utf-8', events],
    ['application/octet-stream', events],
    ['', events],
    ['text/event-stream, text/event-stream', events],
    ['application/json', `\r\n\n: hello\n\n${events}`],
    ['application/json', `${mark}${events}`],
    ['application/json', `event: message\n${events}`],
  ])('events under the type %j are streamed', (type, body) => expectAnswer({ type, body }, true));

  it.each([
    ['application/json', whole],
    [streamType, whole],
    ['application/octet-stream', whole],
    ['', whole],
    [streamType, `\n\n  ${whole}\n\n`],
    [streamType, `${mark}${whole}`],
  ])('JSON under the type %j answers who asked for a stream', (type, body) =>
    expectAnswer({ type, body }, true),
  );

  it.each([
    [streamType, events],
    ['application/json', events],
    ['application/json', `${mark}\n: hello\n\n${events}`],
    ['', `event: message\n${events}`],
    ['application/json', `${mark}${whole}`],
    [streamType, whole],
  ])('under the type %j either is a whole answer', (type, body) => expectAnswer({ type, body }, false));

  it('is told where its bytes come one by one', async () => {
    const scene = await stage();
    scene.studio.next({
      raw: { headers: { 'content-type': 'application/json' }, pieces: [`${mark}\n${events}`] },
      bytesPerWrite: 1,
    });
    const answer = scene.chat({ stream: true });
    await answer.done;
    expect(readEvents(answer.body).text).toBe('你好。');
  });

  it('an error is found in JSON under the type of a stream', async () => {
    const body = '{"error":{"message":"the model has crashed"}}\n';
    const answer = await told({ type: streamType, body }, true);
    expect(answer.status).toBe(502);
    expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:the model has crashed');
  });

  it('an error is found in events where a whole answer was asked for', async () => {
    const body = `${chunk({ content: '你' })}data: {"error":{"message":"the model has crashed"}}\n\n`;
    const answer = await told({ type: streamType, body }, false);
    expect(answer.status).toBe(502);
    expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:the model has crashed');
  });

  it('events without a finish are no whole answer', async () => {
    const answer = await told({ type: streamType, body: chunk({ content: '你' }) }, false);
    expect(answer.status).toBe(502);
    expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:连接中断');
  });

  it.each(['', ' \n', '<html></html>', 'internal error', 'maintenance'])(
    '%j is malformed under any other type',
    async (body) => {
      const answer = await told({ type: 'text/html', body }, true);
      expect(answer.status).toBe(502);
      expect(JSON.parse(answer.body).message).toBe('LM Studio返回错误:响应格式错误');
    },
  );
});

it.each([
  ['in gzip', 'gzip', zlib.gzipSync],
  ['in gzip that nobody declares', undefined, zlib.gzipSync],
  ['in br', 'br', zlib.brotliCompressSync],
  ['behind a byte order mark', undefined, (text: string) => Buffer.from(`\ufeff${text}`)],
])('a model list %s is read', async (_how, coding, made) => {
  const list = JSON.stringify({ data: [{ id: 'squeezed-7b', object: 'model', type: 'llm' }] });
  const server = http.createServer((request, response) => {
    if (request.url !== '/api/v0/models') {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, coding === undefined ? {} : { 'content-encoding': coding }).end(made(list));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const gateway = await startGateway({
    LMSTUDIO_BASE_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  });
  onTestFinished(() => gateway.close());
  await vi.waitFor(async () => {
    const models = await (await gateway.get('/api/llm/models')).text();
    expect(models).toContain('"title":"squeezed-7b"');
  });
});

it('what follows a finish counts as long as no 2 s are silent, and is not waited for longer', async () => {
  const scene = await stage();
  const finish = chunk({}, 'stop');
  const pieces = [chunk({ content: '你好' }), finish, 1500, chunk({ content: '。' }), 1500];
  const late = `data: ${JSON.stringify({ model: 'm', choices: [], usage })}\n\n`;
  scene.studio.next({ raw: { pieces: [...pieces, late], ending: 'hang' } });
  const start = performance.now();
  const answer = scene.chat({ stream: true });
  expect(await answer.done).toBe('complete');
  expect(since(start)).toBeGreaterThan(3000);
  expect(since(start)).toBeLessThan(6000);
  expect(readEvents(answer.body).text).toBe('你好。');
  expect(answer.body).toContain('"usage":{"input_tokens":7,"output_tokens":5,"total_tokens":12}');
});
