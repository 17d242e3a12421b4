/** Answers whose body is not what its head says, or comes in a form that was not asked for: what can be read is read. */
import zlib from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { stage } from './stage.ts';
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
