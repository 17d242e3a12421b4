/** Who may ask: Host, Origin, CORS and keys, over real sockets. */
import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { jsonOf, type RunningGateway, startGateway } from './gateway.ts';

const adminKey = 'an-admin-key-of-24-characters-or-more';

interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** Sends headers that fetch would not let through, such as Host. */
function ask(
  url: string,
  headers: Record<string, string>,
  method = 'GET',
  setHost = true,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false, setHost }, (answer) => {
      let body = '';
      answer.setEncoding('utf8');
      answer.on('data', (piece: string) => {
        body += piece;
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }));
    });
    sent.on('error', reject);
    sent.end();
  });
}

describe('with AUTH=off on loopback', () => {
  let gateway: RunningGateway;
  beforeAll(async () => {
    gateway = await startGateway();
  });
  afterAll(() => gateway.close());

  it.each(['localhost:8000', '127.0.0.1', '127.1.2.3:99', '[::1]:8000', 'LOCALHOST'])(
    'answers under the Host %s',
    async (host) => {
      expect((await ask(`${gateway.url}/api/llm/models`, { host })).status).toBe(200);
    },
  );

  it.each(['example.com', '192.168.1.2:8000', 'localhost.evil.com', '127.0.0.1.nip.io'])(
    'refuses the Host %j, so that no foreign page reaches it by DNS rebinding',
    async (host) => {
      const answer = await ask(`${gateway.url}/api/llm/models`, { host });
      expect([answer.status, answer.headers['x-error-code']]).toEqual([403, 'FORBIDDEN']);
      expect(JSON.parse(answer.body)).toMatchObject({ code: 403, data: null });
    },
  );

  it.each(['http://localhost:3000', 'http://127.0.0.1:5173', 'https://[::1]:1'])(
    'lets the loopback page %s call',
    async (origin) => {
      const answer = await ask(`${gateway.url}/api/llm/models`, { origin });
      expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([200, origin]);
      expect(answer.headers['access-control-allow-credentials']).toBeUndefined();
      const exposed = String(answer.headers['access-control-expose-headers']).split(', ');
      expect(exposed).toEqual(expect.arrayContaining(['x-request-id', 'x-error-code', 'x-gateway-attempts']));
      expect(exposed.filter((name) => name.startsWith('x-ratelimit-'))).toHaveLength(6);
    },
  );

  it.each(['https://evil.example', 'null', 'http://localhost.evil.com'])(
    'refuses the page %s under /api and /v1',
    async (origin) => {
      for (const path of ['/api/llm/models', '/v1/models', '/api/nothing']) {
        expect((await ask(gateway.url + path, { origin })).status).toBe(403);
      }
    },
  );

  it('refuses the preflight of a page that may not call', async () => {
    const headers = { origin: 'https://evil.example', 'access-control-request-method': 'POST' };
    expect((await ask(`${gateway.url}/api/llm/chat`, headers, 'OPTIONS')).status).toBe(403);
  });

  it('answers a preflight with the methods and the headers that were asked for', async () => {
    const answer = await ask(
      `${gateway.url}/api/llm/chat`,
      {
        origin: 'http://localhost:3000',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type, x-api-key, x-anything',
      },
      'OPTIONS',
    );
    expect(answer.status).toBe(204);
    expect(answer.headers['access-control-allow-methods']).toBe('GET, POST, PUT, PATCH, DELETE');
    expect(answer.headers['access-control-allow-headers']).toBe('content-type, x-api-key, x-anything');
    expect(answer.headers['access-control-max-age']).toBe('600');
    expect(answer.headers['vary']).toBe('Origin, Access-Control-Request-Headers');
  });

  it.each(['/api/llm/models', '/healthz', '/nothing'])(
    'tells caches that %s varies by origin, also where none was named',
    async (path) => {
      const answer = await ask(gateway.url + path, {});
      expect(answer.headers['vary']).toBe('Origin');
      expect(answer.headers['access-control-allow-origin']).toBeUndefined();
    },
  );

  it('names no origin that may not call, on a path that anyone may', async () => {
    const answer = await ask(`${gateway.url}/healthz`, { origin: 'https://evil.example' });
    expect([answer.status, answer.headers['vary']]).toEqual([200, 'Origin']);
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  it.each(['/api/nothing', '/nothing'])('answers the preflight of %s, which no route has', async (path) => {
    const headers = { origin: 'http://localhost:3000', 'access-control-request-method': 'POST' };
    expect((await ask(gateway.url + path, headers, 'OPTIONS')).status).toBe(204);
  });

  it('answers an OPTIONS that does not say which method it asks for', async () => {
    const answer = await ask(`${gateway.url}/api/llm/chat`, { origin: 'http://localhost:3000' }, 'OPTIONS');
    expect([answer.status, answer.body]).toEqual([204, '']);
  });

  it('answers a request without a Host in the envelope, too', async () => {
    const answer = await ask(`${gateway.url}/api/llm/models`, {}, 'GET', false);
    expect([answer.status, answer.headers['x-error-code']]).toEqual([400, 'INVALID_PARAMS']);
    expect(answer.headers['x-request-id']).toMatch(/./);
    expect(JSON.parse(answer.body)).toEqual({
      code: 400,
      message: '参数值超出有效范围:缺少 Host',
      data: null,
    });
  });

  it('refuses a foreign page however it writes the path', async () => {
    const answer = await ask(`${gateway.url}/%61pi/llm/models`, { origin: 'https://evil.example' });
    expect([answer.status, answer.headers['cache-control']]).toEqual([403, 'no-store']);
  });

  it('gives errors the CORS headers too', async () => {
    const answer = await ask(`${gateway.url}/api/nothing`, { origin: 'http://localhost:3000' });
    expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([
      404,
      'http://localhost:3000',
    ]);
  });

  it('lets the gateway’s own pages call, whatever its name is', async () => {
    const { port } = new URL(gateway.url);
    const own = await ask(`${gateway.url}/api/llm/models`, {
      host: `localhost:${port}`,
      origin: `http://localhost:${port}`,
    });
    expect(own.status).toBe(200);
  });
});

describe('with CORS_ORIGINS', () => {
  let gateway: RunningGateway;
  beforeAll(async () => {
    gateway = await startGateway({ CORS_ORIGINS: 'https://app.example, https://b.example' });
  });
  afterAll(() => gateway.close());

  it('lets exactly the listed pages call', async () => {
    const status = async (origin: string) => (await ask(`${gateway.url}/api/llm/models`, { origin })).status;
    expect(await status('https://app.example')).toBe(200);
    expect(await status('https://b.example')).toBe(200);
    expect(await status('http://localhost:3000')).toBe(403);
    expect(await status('https://app.example.evil')).toBe(403);
  });
});

describe('with AUTH=on', () => {
  let gateway: RunningGateway;
  beforeAll(async () => {
    gateway = await startGateway({ AUTH: 'on', ADMIN_API_KEY: adminKey });
  });
  afterAll(() => gateway.close());

  it.each(['/healthz', '/docs', '/redoc', '/openapi.json', '/docs/static/swagger-ui.css'])(
    '%s is open',
    async (path) => {
      expect((await gateway.get(path)).status).toBe(200);
    },
  );

  it.each(['/api/llm/models', '/api/llm/models/x', '/api/nothing', '/nothing', '/api/admin/keys'])(
    '%s without a key is a 401 in the envelope',
    async (path) => {
      const answer = await gateway.get(path);
      expect([answer.status, answer.headers.get('x-error-code')]).toEqual([401, 'UNAUTHORIZED']);
      expect(await jsonOf(answer)).toEqual({ code: 401, message: '未授权:API Key缺失或无效', data: null });
    },
  );

  it('is checked before the body is looked at', async () => {
    expect((await gateway.post('/api/llm/chat', 'no json')).status).toBe(401);
  });

  it.each<Record<string, string>>([
    { authorization: `Bearer ${adminKey}` },
    { authorization: `bearer  ${adminKey}` },
    { 'x-api-key': adminKey },
  ])('the administrator’s key opens with %j', async (headers) => {
    const answer = await gateway.get('/api/llm/models', headers);
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([200, 'no-store']);
  });

  it.each([`Bearer ${adminKey}x`, `Basic ${adminKey}`, 'Bearer', adminKey])(
    'authorization %j does not',
    async (authorization) => {
      expect((await gateway.get('/api/llm/models', { authorization })).status).toBe(401);
    },
  );

  it('needs no key for a preflight', async () => {
    const headers = { origin: 'http://localhost:3000', 'access-control-request-method': 'POST' };
    expect((await ask(`${gateway.url}/api/llm/chat`, headers, 'OPTIONS')).status).toBe(204);
  });
});

describe('request ids', () => {
  let gateway: RunningGateway;
  beforeAll(async () => {
    gateway = await startGateway();
  });
  afterAll(() => gateway.close());

  it('are the caller’s own where they are sane', async () => {
    const answer = await gateway.get('/healthz', { 'x-request-id': 'A.b_c-1' });
    expect(answer.headers.get('x-request-id')).toBe('A.b_c-1');
  });

  it.each(['x'.repeat(129), 'a b', 'a/b', 'é'])('are fresh where the caller sent %j', async (id) => {
    const answer = await gateway.get('/healthz', { 'x-request-id': id });
    expect(answer.headers.get('x-request-id')).toMatch(/^[A-Za-z0-9._-]{1,128}$/);
    expect(answer.headers.get('x-request-id')).not.toBe(id);
  });
});
