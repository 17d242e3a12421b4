/** Bodies that are compressed, too many, or made of more than anybody would send: each is judged at once, and others are served. */
import { connect } from 'node:net';
import zlib from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { ask } from './ask.ts';
import { chatBody, chatModel } from './prepare.ts';
import { type Stage, since, stage, startStage } from './stage.ts';
import type { WireAnswer } from './wire.ts';

let scene: Stage;
beforeAll(async () => {
  scene = await startStage({ providers: [{ max_concurrency: 0 }] });
});
afterAll(() => scene.close());

const post = (
  body: string | Buffer,
  headers: Readonly<Record<string, string>> = {},
  path = '/api/llm/chat',
) => ask(scene.port, path, { body, headers });

async function refusalOf(answer: WireAnswer): Promise<{ code: string | undefined; message: string }> {
  const { headers } = await answer.head;
  await answer.done;
  return { code: headers['x-error-code'], message: JSON.parse(answer.body).message };
}

describe('compressed bodies', () => {
  const plain = JSON.stringify(chatBody());
  it.each([
    ['gzip', zlib.gzipSync(plain)],
    ['deflate', zlib.deflateSync(plain)],
    ['br', zlib.brotliCompressSync(plain)],
    ['identity', Buffer.from(plain)],
  ])('in %s are read', async (encoding, body) => {
    expect((await post(body, { 'content-encoding': encoding }).head).status).toBe(200);
  });

  it('in chunks without a length are read', async () => {
    const body = zlib.gzipSync(plain);
    const socket = connect(scene.port, '127.0.0.1');
    onTestFinished(() => void socket.destroy());
    const head =
      'POST /api/llm/chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n';
    socket.write(
      Buffer.concat([
        Buffer.from(`${head}${body.length.toString(16)}\r\n`),
        body,
        Buffer.from('\r\n0\r\n\r\n'),
      ]),
    );
    const text = await new Promise<string>((resolve) =>
      socket.once('data', (data) => resolve(data.toString())),
    );
    expect(text).toContain('HTTP/1.1 200');
  });

  it('that unpack to 300 MB are a 413 at once', async () => {
    const bomb = zlib.gzipSync(Buffer.alloc(300 * 1024 * 1024, 0x20));
    const start = performance.now();
    expect(await refusalOf(post(bomb, { 'content-encoding': 'gzip' }))).toMatchObject({
      code: 'PAYLOAD_TOO_LARGE',
    });
    expect(since(start)).toBeLessThan(2000);
  });

  it('in another encoding are a 415 that says what is taken', async () => {
    const answer = post(plain, { 'content-encoding': 'compress' });
    expect((await answer.head).headers['accept-encoding']).toMatch(/^gzip, deflate, br/);
    expect(await refusalOf(answer)).toMatchObject({
      code: 'UNSUPPORTED_MEDIA_TYPE',
      message: expect.stringMatching(/application\/json, .*gzip, deflate, br/),
    });
  });

  it.each([
    ['cut', zlib.gzipSync(plain).subarray(0, 30)],
    ['not what they say', Buffer.from(plain)],
  ])('that are %s are a 400', async (_name, body) => {
    expect(await refusalOf(post(body, { 'content-encoding': 'gzip' }))).toMatchObject({
      code: 'INVALID_PARAMS',
    });
  });

  it('of another type are a 415 that says which is taken', async () => {
    expect((await refusalOf(post(plain, { 'content-type': 'text/plain' }))).message).toBe(
      '不支持的媒体类型:请求体须为 application/json, content-encoding 可用 gzip, deflate, br' +
        ('createZstdDecompress' in zlib ? ', zstd' : ''),
    );
  });
});

describe('bodies of more than anybody would send', () => {
  const many = (unit: string, times: number): string => Array.from({ length: times }, () => unit).join(',');
  const message = '{"role":"user","content":"hi"}';
  const rest = `{"model":"${chatModel}","messages":[${message}]`;
  const members = Array.from({ length: 200_000 }, (_, position) => `"k${position}":"x"`).join(',');

  it.each([
    [
      'ten million numbers for messages',
      `{"model":"m","messages":[${many('1', 10_000_000)}]}`,
      'INVALID_PARAMS',
    ],
    ['as many for tools', `${rest},"tools":[${many('1', 10_000_000)}]}`, 'INVALID_PARAMS'],
    ['as many for integrations', `${rest},"integrations":[${many('1', 10_000_000)}]}`, 'INVALID_PARAMS'],
    [
      'as many for parts',
      `{"model":"m","messages":[{"role":"user","content":[${many('1', 10_000_000)}]}]}`,
      'INVALID_PARAMS',
    ],
    ['six million empty objects', `{"model":"m","messages":[${many('{}', 6_000_000)}]}`, 'INVALID_PARAMS'],
    ['an object of 200,000 members', `${rest},"logit_bias":{${members}}}`, 'INVALID_PARAMS'],
    ['499,000 numbers for messages', `{"model":"m","messages":[${many('1', 499_000)}]}`, 'INVALID_MESSAGES'],
    ['100,001 messages', `{"model":"m","messages":[${many(message, 100_001)}]}`, 'INVALID_MESSAGES'],
    ['90,000 wrong messages', `{"model":"m","messages":[${many('{"role":1}', 90_000)}]}`, 'INVALID_MESSAGES'],
    [
      '10,001 parts',
      `{"model":"m","messages":[{"role":"user","content":[${many('{"type":"text","text":"a"}', 10_001)}]}]}`,
      'INVALID_MESSAGES',
    ],
    [
      '10,001 tools',
      `${rest},"tools":[${many('{"type":"function","function":{"name":"a"}}', 10_001)}]}`,
      'INVALID_PARAMS',
    ],
    ['65 integrations', `${rest},"integrations":[${many('"mcp/a"', 65)}]}`, 'INVALID_PARAMS'],
    ['490,000 wrong stops', `${rest},"stop":[${many('1', 490_000)}]}`, 'INVALID_PARAMS'],
  ])('%s are refused soon, and nobody waits for it', async (_name, body, code) => {
    let longest = 0;
    let before = performance.now();
    const watch = setInterval(() => {
      longest = Math.max(longest, performance.now() - before);
      before = performance.now();
    }, 5);
    onTestFinished(() => clearInterval(watch));
    before = performance.now();
    const answer = ask(scene.port, '/api/llm/chat', { body });
    expect((await refusalOf(answer)).code).toBe(code);
    // 300 ms on a machine of its own, client and server in one process; seconds at best without the bounds.
    expect(longest).toBeLessThan(3000);
  });

  it.each(['/api/llm/chat', '/v1/chat/completions'])(
    '400,000 values in the schema of a tool are no error of %s',
    async (path) => {
      const schema = `{"enum":[${many('1', 400_000)}]}`;
      const answer = post(
        `${rest},"tools":[{"type":"function","function":{"name":"a","parameters":${schema}}}]}`,
        {},
        path,
      );
      expect((await answer.head).status).toBe(200);
    },
  );

  it('an unknown field of 1 MB makes an error of no more than 2 KB', async () => {
    const { message } = await refusalOf(post(`${rest},"${'字'.repeat(350_000)}":1}`));
    expect(message).toContain('字字');
    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(2048);
  });
});

describe('requests a minute', () => {
  it('count malformed calls, and once they are spent no body is read', async () => {
    const limited = await stage({ environment: { RATE_LIMIT_RPM: '2' } });
    for (const body of ['{', '{"model":1}']) {
      expect((await ask(limited.port, '/api/llm/chat', { body }).head).status).toBe(400);
    }
    // Of this body nothing ever comes.
    const answer = ask(limited.port, '/api/llm/chat', {
      headers: { 'content-type': 'application/json', 'content-length': '1000' },
    });
    expect((await answer.head).status).toBe(429);
  });
});

describe('bodies in flight', () => {
  it('beyond the bound are refused unread, and taken again when others were let go', async () => {
    const bounded = await stage({
      environment: { BODY_LIMIT_BYTES: '1000000', BODIES_IN_FLIGHT_BYTES: '1000000' },
      providers: [{ max_concurrency: 0 }],
    });
    const long = chatBody({ user: 'x'.repeat(600_000) });
    bounded.studio.always(faults.stall('start'));
    const first = bounded.chat(long);
    await vi.waitFor(() => expect(bounded.studio.running).toBe(1));
    const second = bounded.chat(long);
    const { status, headers } = await second.head;
    expect([status, headers['x-error-code'], headers['retry-after']]).toEqual([503, 'OVERLOADED', '1']);
    first.leave();
    bounded.studio.always({});
    await vi.waitFor(async () => expect((await bounded.chat(long).head).status).toBe(200), { timeout: 3000 });
  });

  it('are let go with the first part of a stream, and with the end of an answer', async () => {
    const bounded = await stage({
      environment: { BODY_LIMIT_BYTES: '1000000', BODIES_IN_FLIGHT_BYTES: '1000000' },
      providers: [{ max_concurrency: 0 }],
    });
    const user = 'x'.repeat(600_000);
    bounded.studio.next(faults.stall('after-text'));
    const first = bounded.chat({ user, stream: true });
    await first.until((body) => body.includes('"content":"'));
    for (let round = 0; round < 3; round += 1) {
      const answer = bounded.chat({ user });
      expect((await answer.head).status).toBe(200);
      await answer.done;
    }
  });
});
