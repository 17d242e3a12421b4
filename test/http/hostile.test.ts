/** Input that no honest client sends: the process stays up, says what is wrong, and answers others meanwhile. */
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { ask } from './ask.ts';
import { chatBody } from './prepare.ts';
import { type Stage, since, startStage } from './stage.ts';
import { deferred, readAnswer, readEvents, requestBytes, type WireAnswer } from './wire.ts';

const megabyte = 1024 * 1024;

let scene: Stage;

beforeAll(async () => {
  scene = await startStage({
    environment: { UPSTREAM_MAX_RETRIES: '0' },
    providers: [{ max_concurrency: 0 }],
  });
});
afterAll(() => scene.close());

/** Everybody else is served as ever, whatever a test did. */
afterEach(async () => {
  const start = performance.now();
  const answer = ask(scene.port, '/api/llm/chat', { body: chatBody() });
  expect((await answer.head).status).toBe(200);
  answer.leave();
  expect(since(start)).toBeLessThan(2000);
});

function open(): Socket {
  const socket = connect(scene.port, '127.0.0.1');
  socket.on('error', () => {});
  onTestFinished(() => void socket.destroy());
  return socket;
}

/** Sends bytes as they are. */
function send(...pieces: readonly (string | Buffer)[]): WireAnswer {
  const socket = open();
  const answer = readAnswer(socket);
  for (const piece of pieces) socket.write(piece);
  return answer;
}

const post = (body: string | Buffer, headers: Readonly<Record<string, string>> = {}): WireAnswer =>
  ask(scene.port, '/api/llm/chat', { body, headers });

async function expectRefusal(answer: WireAnswer, status: number, code: string): Promise<void> {
  const head = await answer.head;
  await answer.done;
  expect({ status: head.status, code: head.headers['x-error-code'] }).toEqual({ status, code });
  expect(JSON.parse(answer.body)).toMatchObject({ code: status, data: null });
}

describe('heads', () => {
  const start = 'POST /api/llm/chat HTTP/1.1\r\nhost: localhost\r\n';

  it.each([
    ['one header of 20 KB', `${start}x-long: ${'a'.repeat(20_000)}\r\n\r\n`],
    [
      '3,000 headers',
      `${start}${Array.from({ length: 3000 }, (_, index) => `x-${index}: 1\r\n`).join('')}\r\n`,
    ],
  ])('%s: 431', async (_name, bytes) => {
    const answer = send(bytes);
    expect((await answer.head).status).toBe(431);
  });

  it.each([
    ['no HTTP at all', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n'],
    ['a length and chunks', `${start}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['two lengths', `${start}content-length: 5\r\ncontent-length: 6\r\n\r\nabcde`],
    ['a blank before the colon', `${start}content-length : 5\r\n\r\nabcde`],
    ['a NUL in a header', `${start}x-a: a\0b\r\n\r\n`],
    [
      'an encoding that nobody knows',
      `${start}transfer-encoding: magic\r\ncontent-type: application/json\r\n\r\nabcde`,
    ],
    [
      'a chunk that lies about its size',
      `${start}transfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n{}\r\n`,
    ],
  ])('%s: 400, and the connection is closed', async (_name, bytes) => {
    const answer = send(bytes);
    expect((await answer.head).status).toBe(400);
    await answer.done;
    expect(JSON.parse(answer.body)).toMatchObject({ code: 400, data: null });
    await new Promise((resolve) => answer.socket.once('close', resolve));
  });

  it('garbage behind a good request: the good one is answered', async () => {
    const good = requestBytes('/healthz', { method: 'GET' });
    const answer = send(Buffer.concat([good, Buffer.from('\0\x01garbage\r\n\r\n')]));
    expect((await answer.head).status).toBe(200);
    await new Promise((resolve) => answer.socket.once('close', resolve));
  });

  it('garbage in the middle of a streamed answer does not get into it', async () => {
    const rest = deferred();
    scene.studio.next({ ...faults.stall('after-text', rest.promise), text: ['你', '好'], gapMs: 0 });
    const answer = ask(scene.port, '/api/llm/chat', { body: chatBody({ stream: true }) });
    await answer.until((body) => body.includes('你'));
    answer.socket.write('\0\x01garbage\r\n\r\n');
    rest.resolve();
    expect(await answer.done).toBe('complete');
    expect(readEvents(answer.body)).toMatchObject({ text: '你好', terminal: { finish_reason: 'stop' } });
    await new Promise((resolve) => answer.socket.once('close', resolve));
  });

  it('a hundred requests at once on one connection are all answered', async () => {
    const good = requestBytes('/healthz', { method: 'GET' });
    const socket = open();
    let text = '';
    const all = new Promise<void>((resolve) => {
      socket.on('data', (data) => {
        text += data.toString('latin1');
        if (text.split('HTTP/1.1 200').length === 101) resolve();
      });
    });
    socket.write(Buffer.concat(Array.from({ length: 100 }, () => good)));
    await all;
  });

  it.each([
    '/api/admin/keys/',
    '/api/admin/providers/',
    '/api/admin/models/',
    '/api/admin/routes/',
    '/api/llm/models/',
    '/v1/models/',
  ])('an id of 2 and of 12 KB behind %s is a 404', async (path) => {
    for (const length of [2000, 12_000]) {
      const answer = await fetch(`${scene.url}${path}${'9'.repeat(length)}`);
      expect([answer.status, answer.headers.get('x-error-code')]).toEqual([404, 'NOT_FOUND']);
      await answer.text();
    }
  });

  it('a request id that could break a log is replaced', async () => {
    const answer = ask(scene.port, '/healthz', {
      method: 'GET',
      headers: { 'x-request-id': 'a"b{}<script>' },
    });
    expect((await answer.head).headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('bodies', () => {
  const content = (value: string): string =>
    `{"model":"qwen2.5-7b-instruct","messages":[{"role":"user","content":${value}}]}`;
  const deep = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);

  it.each([
    ['nothing', ''],
    ['half of it', '{"model":'],
    ['an array', '[]'],
    ['a number', '1e999'],
    ['__proto__', '{"__proto__":{"a":1},"model":"m","messages":[]}'],
    ['__proto__ further down', content('"a"').replace('{"role"', '{"__proto__":{},"role"')],
    ['__proto__ in disguise', '{"\\u005f_proto__":{"a":1}}'],
    ['constructor.prototype', '{"constructor":{"prototype":{"a":1}}}'],
  ])('%s: INVALID_PARAMS', async (_name, body) => {
    await expectRefusal(post(body), 400, 'INVALID_PARAMS');
  });

  it.each([
    ['content', content(deep(100_000)), 'INVALID_MESSAGES'],
    ['an unknown field', content('"a"').replace('{', `{"x":${deep(100_000)},`), 'INVALID_PARAMS'],
    [
      'the schema of a tool',
      content('"a"').replace(
        '{',
        `{"tools":[{"type":"function","function":{"name":"f","parameters":{"a":${deep(100_000)}}}}],`,
      ),
      'INVALID_PARAMS',
    ],
    [
      'the schema of an answer',
      content('"a"').replace(
        '{',
        `{"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"a":${deep(100_000)}}}},`,
      ),
      'INVALID_PARAMS',
    ],
  ])('100,000 levels deep in %s: 400', async (_name, body, code) => {
    await expectRefusal(post(body), 400, code);
  });

  it('more than BODY_LIMIT_BYTES: 413', async () => {
    await expectRefusal(post(content(`"${'a'.repeat(20 * megabyte)}"`)), 413, 'PAYLOAD_TOO_LARGE');
  });

  it('more than BODY_LIMIT_BYTES in chunks without a length: 413', async () => {
    const socket = open();
    const answer = readAnswer(socket);
    socket.write(
      'POST /api/llm/chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n',
    );
    const piece = `100000\r\n${'a'.repeat(megabyte)}\r\n`;
    for (let sent = 0; sent < 21; sent += 1) socket.write(piece);
    expect((await answer.head).status).toBe(413);
  });

  it('of nearly 20 MiB are read, and answered', async () => {
    const answer = post(content(`"${'a'.repeat(19 * megabyte)}"`));
    const { status } = await answer.head;
    // The simulated model has no room for so long a prompt.
    expect(status).toBe(400);
    await answer.done;
    expect(answer.body).toContain('Context size');
  });

  it('of invalid UTF-8 make no error of the server', async () => {
    const body = Buffer.concat([
      Buffer.from(content('"')).subarray(0, -2),
      Buffer.from([0xff, 0xfe, 0xc3, 0x28]),
      Buffer.from('"}]}'),
    ]);
    const { status } = await post(body).head;
    expect([200, 400]).toContain(status);
  });

  it.each([
    ['half a character', '"\\ud800"'],
    ['a NUL', '"a\\u0000b"'],
  ])('with %s in a text make no error of the server', async (_name, value) => {
    const { status } = await post(content(value)).head;
    expect([200, 400]).toContain(status);
  });

  it('of 50,000 messages make no error of the server', async () => {
    const messages = Array.from({ length: 50_000 }, () => ({ role: 'user', content: 'a' }));
    const { status } = await post(JSON.stringify({ model: 'qwen2.5-7b-instruct', messages })).head;
    expect(status).toBeLessThan(500);
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'])(
    'of %s: 415',
    async (type) => {
      await expectRefusal(post(content('"a"'), { 'content-type': type }), 415, 'UNSUPPORTED_MEDIA_TYPE');
    },
  );

  it('shorter than their length, then a closed connection, make no call', async () => {
    const before = scene.studio.requests.length;
    const socket = open();
    socket.write(
      requestBytes('/api/llm/chat', { body: content('"a"'), headers: { 'content-length': '5000' } }),
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.destroy();
    expect(scene.studio.requests.length).toBe(before);
  });
});

describe('crowds', () => {
  it.each([
    ['say nothing', ''],
    ['never finish their head', 'POST /api/llm/chat HTTP/1.1\r\nhost: loc'],
    [
      'never finish their body',
      'POST /api/llm/chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"model"',
    ],
  ])('2,000 connections that %s keep nobody else waiting', async (_name, bytes) => {
    const sockets = Array.from({ length: 2000 }, () => open());
    await Promise.all(
      sockets.map(
        (socket) =>
          new Promise<void>((resolve) => {
            socket.once('connect', () => {
              if (bytes === '') resolve();
              else socket.write(bytes, () => resolve());
            });
          }),
      ),
    );
    const start = performance.now();
    const answer = ask(scene.port, '/api/llm/chat', { body: chatBody({ stream: true }) });
    expect((await answer.head).status).toBe(200);
    await answer.done;
    expect(since(start)).toBeLessThan(1500);
    for (const socket of sockets) socket.destroy();
  });
});
