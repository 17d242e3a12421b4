/** More requests on one connection than any honest client sends, and pages that are asked for again and again. */
import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { expect, it, onTestFinished, vi } from 'vitest';
import { chatBody } from './prepare.ts';
import { type SpawnedGateway, spawnGateway } from './spawned.ts';
import { stage } from './stage.ts';
import { requestBytes } from './wire.ts';

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`;

/** A gateway that wants a key, with little memory. */
const guarded = (): Promise<SpawnedGateway> =>
  spawnGateway(
    { AUTH: 'on', ADMIN_API_KEY: 'a'.repeat(32), DATABASE_URL: 'sqlite::memory:', LOG_LEVEL: 'info' },
    ['--max-old-space-size=192'],
  );

/** Sends the same request again and again over one connection. */
function repeat(port: number, path: string, times: number) {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  const errors: Error[] = [];
  socket.on('error', (error) => errors.push(error));
  socket.write(get(path).repeat(times));
  return { socket, errors };
}

it('3,000 documents asked for on one connection all come, in the memory of a few', {
  timeout: 60_000,
}, async () => {
  const gateway = await guarded();
  const { body, headers } = await fetch(`${gateway.url}/openapi.json`).then(async (answer) => ({
    body: Buffer.from(await answer.arrayBuffer()),
    headers: answer.headers,
  }));
  expect(headers.get('etag')).toMatch(/^"[\w-]+"$/);
  const { socket, errors } = repeat(gateway.port, '/openapi.json', 3000);
  // Nothing is read at first: all that the process would hold it has to hold.
  let answers = 0;
  let bytes = 0;
  await vi.waitFor(async () => expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200));
  socket.on('data', (data: Buffer) => {
    bytes += data.length;
    for (let at = data.indexOf('HTTP/1.1 200'); at >= 0; at = data.indexOf('HTTP/1.1 200', at + 1))
      answers += 1;
  });
  await vi.waitFor(() => expect(bytes).toBeGreaterThan(3000 * body.length), {
    timeout: 50_000,
    interval: 50,
  });
  expect(errors).toEqual([]);
  expect(answers).toBeGreaterThan(2900);
});

it('1,400 files of a page asked for on one connection hold no descriptors', { timeout: 30_000 }, async () => {
  const gateway = await guarded();
  const descriptors = (): number => readdirSync(`/proc/${gateway.pid}/fd`).length;
  await (await fetch(`${gateway.url}/docs/static/swagger-ui-bundle.js`)).arrayBuffer();
  const before = descriptors();
  const { socket } = repeat(gateway.port, '/docs/static/swagger-ui-bundle.js', 1400);
  socket.once('data', () => socket.pause());
  await vi.waitFor(() => expect(socket.isPaused()).toBe(true));
  for (let round = 0; round < 5; round += 1) {
    expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);
    expect(descriptors()).toBeLessThan(before + 20);
  }
});

it('a connection has sixteen calls at work at once, and the rest in their order', async () => {
  const scene = await stage({ providers: [{ max_concurrency: 0 }] });
  const socket = connect(scene.port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  let text = '';
  socket.setEncoding('latin1').on('data', (data: string) => {
    text += data;
  });
  const ids = Array.from({ length: 40 }, (_, position) => `call-${position}`);
  socket.write(
    Buffer.concat(
      ids.map((id) => requestBytes('/api/llm/chat', { body: chatBody(), headers: { 'x-request-id': id } })),
    ),
  );
  let most = 0;
  await vi.waitFor(
    () => {
      most = Math.max(most, scene.studio.running);
      expect(text.match(/x-request-id: /g)).toHaveLength(ids.length);
    },
    { timeout: 10_000, interval: 1 },
  );
  expect([...text.matchAll(/x-request-id: (\S+)/g)].map(([, id]) => id)).toEqual(ids);
  expect(most).toBeLessThanOrEqual(16);
});

it.each([
  '/openapi.json',
  '/docs/json',
  '/docs/yaml',
  '/docs/',
  '/redoc',
  '/redoc/redoc.standalone.js',
  '/docs/static/swagger-ui.css',
  '/docs/static/swagger-initializer.js',
])('a browser that has %s is not sent it again', async (path) => {
  const { url } = await stage();
  const first = await fetch(url + path);
  const tag = first.headers.get('etag') ?? '';
  expect([first.status, tag]).toEqual([200, expect.stringMatching(/^"[\w-]{27}"$/)]);
  const second = await fetch(url + path, { headers: { 'if-none-match': `"other", W/${tag}` } });
  expect([second.status, await second.text()]).toEqual([304, '']);
});

it.each(['/docs/static/package.json', '/docs/static/..%2fpackage.json', '/docs/static/nothing.js'])(
  '%s is no file of the pages',
  async (path) => {
    const { url } = await stage();
    expect((await fetch(url + path)).status).toBe(404);
  },
);
