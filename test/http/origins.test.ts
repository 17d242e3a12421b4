/** Which names and which browser pages reach the gateway, over real sockets: raw bytes where a client library would tidy them up. */
import { connect } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { startGateway } from './gateway.ts';
import { spawnGateway } from './spawned.ts';
import { readAnswer } from './wire.ts';

const adminKey = 'an-admin-key-of-24-characters-or-more';

type Environment = Readonly<Record<string, string>>;

/** A gateway that ends with the test. */
async function start(environment: Environment = {}): Promise<number> {
  const gateway = await startGateway(environment);
  onTestFinished(() => gateway.close());
  return Number(new URL(gateway.url).port);
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Sends these lines as the head of a request, each as it is. */
async function send(port: number, ...lines: readonly string[]): Promise<Answer> {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  const answer = readAnswer(socket);
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  const { status, headers } = await answer.head;
  await answer.done;
  return { status, headers, body: answer.body };
}

const get = (port: number, path: string, headers: Environment): Promise<Answer> =>
  send(
    port,
    `GET ${path} HTTP/1.1`,
    ...Object.entries({ host: 'localhost:8000', ...headers }).map(([name, value]) => `${name}: ${value}`),
  );

describe('whom a request is for', () => {
  it.each(['on', 'off'])('two Host headers are a 400 with AUTH=%s, whichever comes first', async (AUTH) => {
    const port = await start({ AUTH, ADMIN_API_KEY: adminKey });
    for (const hosts of [
      ['localhost', 'evil.example'],
      ['evil.example', 'localhost'],
      ['localhost', 'localhost'],
    ]) {
      const lines = hosts.map((host, index) => `${index === 0 ? 'Host' : 'hOST'}: ${host}`);
      const answer = await send(port, 'GET /api/llm/models HTTP/1.1', ...lines, `x-api-key: ${adminKey}`);
      expect([answer.status, answer.headers['x-error-code']]).toEqual([400, 'INVALID_PARAMS']);
      expect(JSON.parse(answer.body)).toMatchObject({ code: 400, data: null });
    }
  });

  it('a target whose authority differs from Host is a 400', async () => {
    const port = await start();
    for (const target of [
      'http://evil.example/api/llm/models',
      'http://localhost@evil.example/v1/models',
      'http://localhost:1/healthz',
      'HTTP://evil.example/nothing',
    ]) {
      const answer = await send(port, `GET ${target} HTTP/1.1`, 'host: localhost');
      expect([target, answer.status]).toEqual([target, 400]);
    }
  });

  it('a target whose authority is the Host is answered as its path is', async () => {
    const port = await start();
    const lines = ['GET http://LocalHost:8000/api/llm/models HTTP/1.1', 'host: localhost:8000'];
    expect((await send(port, ...lines)).status).toBe(200);
  });

  it('HTTP/1.0 without Host is answered on /healthz, and refused where something could be read', async () => {
    const port = await start();
    expect((await send(port, 'GET /healthz HTTP/1.0')).status).toBe(200);
    expect((await send(port, 'GET /api/llm/models HTTP/1.0')).status).toBe(403);
  });

  it('a name under .localhost is this machine', async () => {
    const port = await start();
    const host = 'tauri.localhost:8000';
    expect((await get(port, '/api/llm/models', { host })).status).toBe(200);
    const origin = 'http://app.localhost:3000';
    const answer = await get(port, '/api/llm/models', { origin });
    expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([200, origin]);
  });

  it.each(['localhost.evil.example', 'evillocalhost', '.localhost', 'a..localhost', 'x@a.localhost'])(
    'the name %s is not',
    async (host) => {
      const port = await start();
      expect((await get(port, '/api/llm/models', { host })).status).toBe(403);
    },
  );
});

describe('administration without a key', () => {
  const paths = ['/api/admin/keys', '/metrics'];
  const environments: readonly [string, Environment][] = [
    ['AUTH=off on loopback', {}],
    ['ALLOW_ANONYMOUS', { HOST: '0.0.0.0', AUTH: 'off', ALLOW_ANONYMOUS: 'true' }],
  ];

  describe.each(environments)('with %s', (_name, environment) => {
    const statusOf = async (headers: Environment, ...rest: readonly string[]): Promise<number[]> => {
      const port = await start(environment);
      const statuses: number[] = [];
      for (const path of [...paths, ...rest]) statuses.push((await get(port, path, headers)).status);
      return statuses;
    };

    it.each<[string, Environment]>([
      ['no page', {}],
      ['a person who typed the address', { 'sec-fetch-site': 'none' }],
      ['our own page', { host: '127.0.0.1:8000', origin: 'http://127.0.0.1:8000' }],
      ['our own page, as browsers say of a GET', { host: '[::1]:8000', 'sec-fetch-site': 'same-origin' }],
    ])('%s is let in', async (_who, headers) => {
      expect(await statusOf(headers)).toEqual([200, 200]);
    });

    it.each<[string, Environment]>([
      ['x-forwarded-for', { 'x-forwarded-for': '10.0.0.1' }],
      ['x-forwarded-host', { 'x-forwarded-host': 'localhost' }],
      ['forwarded', { forwarded: 'for=10.0.0.1' }],
      ['x-real-ip', { 'x-real-ip': '127.0.0.1' }],
      ['via', { via: '1.1 proxy' }],
      ['the origin of another port', { host: 'localhost:8000', origin: 'http://localhost:3000' }],
      ['the origin of an app', { host: 'localhost', origin: 'tauri://localhost' }],
      ['another port without an origin', { 'sec-fetch-site': 'same-site' }],
      ['a foreign page without an origin', { 'sec-fetch-site': 'cross-site' }],
      ['a name under .localhost', { host: 'app.localhost:8000' }],
    ])('%s is refused, and may call the inference API', async (_who, headers) => {
      expect(await statusOf(headers, '/api/llm/models')).toEqual([403, 403, 200]);
    });
  });

  it('a page whose name was rebound to this machine does not become administrator of an open gateway', async () => {
    const port = await start({ HOST: '0.0.0.0', AUTH: 'off', ALLOW_ANONYMOUS: 'true' });
    const host = `rebound.example:${port}`;
    const body = '{"name":"mine","scope":"admin"}';
    const answer = await send(
      port,
      'POST /api/admin/keys HTTP/1.1',
      `host: ${host}`,
      `origin: http://${host}`,
      'sec-fetch-site: same-origin',
      'content-type: application/json',
      `content-length: ${body.length}`,
      '',
      body,
    );
    expect([answer.status, answer.headers['x-error-code']]).toEqual([403, 'FORBIDDEN']);
    expect((await get(port, '/metrics', { host })).status).toBe(403);
    expect((await get(port, '/api/llm/models', { host })).status).toBe(200);
  });

  it('is not wanted of the admin scope: that is let in from anywhere', async () => {
    const port = await start({
      HOST: '0.0.0.0',
      AUTH: 'off',
      ALLOW_ANONYMOUS: 'true',
      ADMIN_API_KEY: adminKey,
    });
    const headers = { host: 'gateway.example', via: '1.1 proxy', 'api-key': adminKey };
    expect((await get(port, '/api/admin/keys', headers)).status).toBe(200);
  });
});

describe('the origin of a page', () => {
  const origin = 'https://evil.example';

  it('is judged on every path but health and documentation', async () => {
    const port = await start();
    for (const path of [
      '/metrics',
      '/nothing',
      '/chat/completions',
      '//v1/models',
      '/openai/v1/models',
      '/api/tags',
    ]) {
      expect([path, (await get(port, path, { origin })).status]).toEqual([path, 403]);
    }
    for (const path of ['/healthz', '/docs', '/redoc', '/openapi.json', '/docs/static/swagger-ui.css']) {
      expect([path, (await get(port, path, { origin })).status]).toEqual([path, 200]);
    }
  });

  it.each<[string, readonly string[], readonly string[]]>([
    [
      'https://*.example.com',
      ['https://a.example.com', 'https://a.b.example.com'],
      ['https://example.com', 'http://a.example.com', 'https://a.example.com.evil', 'https://aXexample.com'],
    ],
    ['chrome-extension://*', ['chrome-extension://abcdef'], ['moz-extension://abcdef', 'null']],
    ['http://localhost:*', ['http://localhost:3000'], ['http://localhost', 'http://localhost.evil:1']],
    ['null', ['null'], ['http://localhost:3000']],
    ['*', ['https://anything.example', 'file://'], ['null']],
    ['*, null', ['https://anything.example', 'null'], []],
    ['HTTPS://App.Example:443/', ['https://app.example'], ['https://app.example:8443']],
  ])('CORS_ORIGINS=%s lets in what it stands for and nothing else', async (entry, good, bad) => {
    const port = await start({ CORS_ORIGINS: entry });
    for (const page of good) {
      const answer = await get(port, '/v1/models', { origin: page });
      expect([page, answer.status, answer.headers['access-control-allow-origin']]).toEqual([page, 200, page]);
    }
    for (const page of bad) {
      expect([page, (await get(port, '/v1/models', { origin: page })).status]).toEqual([page, 403]);
    }
  });

  it('may read the headers that the contract lists, and use its methods', async () => {
    const port = await start();
    const { headers } = await get(port, '/v1/models', { origin: 'http://localhost:3000' });
    const exposed = headers['access-control-expose-headers']?.split(', ') ?? [];
    const rates = ['limit', 'remaining', 'reset'].flatMap((what) =>
      ['requests', 'tokens'].map((unit) => `x-ratelimit-${what}-${unit}`),
    );
    const named =
      'x-request-id, x-error-code, retry-after, x-should-retry, x-gateway-provider, x-gateway-model, x-gateway-requested-model, x-gateway-attempts, x-gateway-ignored, x-gateway-usage, x-next-after, request-id';
    expect(exposed.sort()).toEqual([...named.split(', '), ...rates].sort());
  });
});

describe('what the operator is told', () => {
  it('a refused origin and a refused Host are one warning a minute each, with the value', async () => {
    const gateway = await spawnGateway({ LOG_LEVEL: 'info', DATABASE_URL: 'sqlite::memory:' });
    for (let repeat = 0; repeat < 3; repeat += 1) {
      await get(gateway.port, '/v1/models', { origin: 'https://a.example' });
      await get(gateway.port, '/v1/models', { origin: 'https://b.example' });
      await get(gateway.port, '/v1/models', { host: 'gateway.lan\u009b31m' });
    }
    await get(gateway.port, '/v1/models', { origin: 'https://last.example' });
    await vi.waitFor(() =>
      expect(gateway.log.map((line) => line['origin'])).toContain('https://last.example'),
    );
    const told = gateway.log.filter((line) => line['level'] === 'warn' && line['audit'] === 'refusal');
    expect(told.map((line) => line['origin'] ?? line['host'])).toEqual([
      'https://a.example',
      'https://b.example',
      'gateway.lan??31m',
      'https://last.example',
    ]);
    expect(told[0]?.['msg']).toContain('CORS_ORIGINS');
    expect(told[2]?.['msg']).toContain('AUTH=on');
  });
});

describe('credentials', () => {
  it('api-key opens like the others', async () => {
    const port = await start({ AUTH: 'on', ADMIN_API_KEY: adminKey });
    expect((await get(port, '/v1/models', { 'api-key': adminKey })).status).toBe(200);
  });

  it.each<[string, Environment, number]>([
    ['a bearer token before x-api-key', { authorization: 'Bearer wrong', 'x-api-key': adminKey }, 401],
    ['x-api-key before api-key', { 'x-api-key': 'wrong', 'api-key': adminKey }, 401],
    ['a bearer token before api-key', { authorization: `Bearer ${adminKey}`, 'api-key': 'wrong' }, 200],
    ['x-api-key behind another scheme', { authorization: 'Basic abc', 'x-api-key': adminKey }, 200],
  ])('the first that is present is judged: %s', async (_name, headers, status) => {
    const port = await start({ AUTH: 'on', ADMIN_API_KEY: adminKey });
    expect((await get(port, '/api/llm/models', headers)).status).toBe(status);
  });
});
