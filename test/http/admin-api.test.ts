/** The administration over HTTP: rows and their versions, refusals that name what is wrong, and orders to providers. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insertModel } from '../../src/store/models.ts';
import { insertRoute } from '../../src/store/routes.ts';
import { temporaryStore } from '../unit/workspace.ts';
import { type Answer, adminKey, startTeam, type Team, team } from './administrator.ts';
import { chatBody, chatModel } from './prepare.ts';

const nowhere = 'http://127.0.0.1:9';
const anotherStudio = { key: 'studio', kind: 'lmstudio', base_url: nowhere };

const codeOf = (answer: Answer) => [answer.status, answer.headers.get('x-error-code')];

/** The first row of a list that has such a member. */
async function rowWith({ admin }: Team, path: string, member: string, value: unknown) {
  const { body } = await admin('GET', path);
  return body.data.find((row: Record<string, unknown>) => row[member] === value);
}

describe('every answer', () => {
  it('is an envelope whose code is the status, 201 after POST', async () => {
    const { admin } = await team();
    const made = await admin('POST', '/providers', anotherStudio);
    expect(made).toMatchObject({ status: 201, body: { code: 201, message: 'success' } });
    expect(Object.keys(made.body)).toEqual(['code', 'message', 'data']);
    expect(made.headers.get('cache-control')).toBe('no-store');
    const read = await admin('GET', `/providers/${made.body.data.id}`);
    expect(read).toMatchObject({ status: 200, body: { code: 200, data: { key: 'studio', version: 1 } } });
  });

  it.each([
    ['GET', '/providers/999'],
    ['GET', '/models/abc'],
    ['GET', '/routes/0'],
    ['GET', '/nothing'],
    ['POST', '/providers/999/check'],
  ])('to %s %s is a 404', async (method, path) => {
    const { admin } = await team();
    expect(codeOf(await admin(method, path))).toEqual([404, 'NOT_FOUND']);
  });

  it('to another method is a 405 that lists the right ones', async () => {
    const { admin } = await team();
    const answer = await admin('PUT', '/keys/1', {});
    expect(codeOf(answer)).toEqual([405, 'METHOD_NOT_ALLOWED']);
    expect(answer.headers.get('allow')).toBe('DELETE, GET, HEAD, PATCH');
  });

  it('is described in the OpenAPI document under the tag admin', async () => {
    const { ask } = await team();
    const { paths } = (await ask(undefined, 'GET', '/openapi.json')).body;
    const operations = Object.entries<Record<string, { tags: string[] }>>(paths)
      .filter(([path]) => path.startsWith('/api/admin/'))
      .flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, { tags }]) => `${method} ${path} ${tags}`),
      );
    const rows = ['providers', 'models', 'routes', 'keys'].flatMap((name) => [
      `get /api/admin/${name} admin`,
      `post /api/admin/${name} admin`,
      `get /api/admin/${name}/{id} admin`,
      `patch /api/admin/${name}/{id} admin`,
      `delete /api/admin/${name}/{id} admin`,
    ]);
    const orders = ['check', 'sync', 'load', 'unload', 'download'].map(
      (order) => `post /api/admin/providers/{id}/${order} admin`,
    );
    expect(operations).toEqual(expect.arrayContaining([...rows, ...orders, 'get /api/admin/usage admin']));
  });
});

describe('a wrong body', () => {
  let admin: Team['admin'];
  let close: Team['close'];
  beforeAll(async () => {
    ({ admin, close } = await startTeam());
  });
  afterAll(() => close());

  it.each([
    ['/providers', {}, 'base_url: is missing'],
    ['/providers', { ...anotherStudio, key: 'Big' }, 'key: must be'],
    ['/providers', { ...anotherStudio, kind: 'nobody' }, 'kind: is not a known kind'],
    ['/providers', { ...anotherStudio, colour: 1 }, 'colour: is not a known field'],
    ['/providers', { ...anotherStudio, api_key_env: 'ADMIN_API_KEY' }, 'api_key_env: must not be'],
    ['/providers', { ...anotherStudio, max_queue: -1 }, 'max_queue: '],
    ['/models', { title: '' }, 'title: must not be empty'],
    ['/models', { title: 'x', time: 'today' }, 'time: must look like'],
    ['/routes', { provider: 'lmstudio' }, 'model: is missing'],
    ['/routes', { model: chatModel, provider: 'lmstudio', api: 'v7' }, 'api: must be one of'],
    ['/keys', {}, 'name: is missing'],
    ['/keys', { name: ' ' }, 'name: must not be empty'],
    ['/keys', { name: 'a', scope: 'root' }, 'scope: '],
    ['/keys', { name: 'a', models: [] }, 'models: must not be empty'],
    ['/keys', { name: 'a', rpm: 1.5 }, 'rpm: '],
    ['/keys', { name: 'a', expires_at: 'soon' }, 'expires_at: must look like'],
    ['/keys', { name: 'a', expires_at: '2027-13-45' }, 'expires_at: is no such'],
    ['/keys', { name: 'a', expires: '9y' }, 'expires: must look like'],
    ['/keys', { name: 'a', expires: '9d', expires_at: '2030-01-01' }, 'expires: contradicts'],
    ['/keys', { name: 'a', key: 'sk-gw-mine' }, 'key: is not a known field'],
  ])('to %s, %j, is a 400 that names the field: %s', async (path, body, words) => {
    const answer = await admin('POST', path, body);
    expect(codeOf(answer)).toEqual([400, 'INVALID_PARAMS']);
    expect(answer.body.message.startsWith(`参数值超出有效范围:${words}`), answer.body.message).toBe(true);
  });

  it.each(['{', '[]', '"text"', 'null', '', '{"__proto__":{}}'])('that reads %j is a 400', async (body) => {
    expect(codeOf(await admin('POST', '/keys', body))).toEqual([400, 'INVALID_PARAMS']);
  });
});

describe('a base URL', () => {
  let admin: Team['admin'];
  let close: Team['close'];
  beforeAll(async () => {
    ({ admin, close } = await startTeam());
  });
  afterAll(() => close());

  it.each([
    'ftp://example.com',
    'file:///etc/passwd',
    'nonsense',
    'http://user:password@example.com',
    'http://example.com/?key=1',
    'http://169.254.169.254/latest',
    'http://169.254.1.1',
    'http://0xa9fea9fe',
    'http://2852039166',
    'http://0251.0376.0251.0376',
    'http://169.254.43518',
    'http://169.254.169.254.',
    'http://①⑥⑨.254.169.254',
    'http://[::ffff:169.254.169.254]',
    'http://[0:0:0:0:0:ffff:a9fe:a9fe]',
    'http://[64:ff9b::169.254.169.254]',
    'http://[2002:a9fe:a9fe::]',
    'http://[fe80::1]',
    'http://[febf::1]',
    'http://[fd00:ec2::254]',
    'http://metadata.google.internal',
    'http://METADATA.google.internal./computeMetadata',
    'http://100.100.100.200',
  ])('such as %s is refused by name', async (base_url) => {
    const answer = await admin('POST', '/providers', { ...anotherStudio, base_url });
    expect(codeOf(answer)).toEqual([400, 'INVALID_PARAMS']);
    expect(answer.body.message).toContain('base_url: must');
  });

  it.each([
    'http://127.0.0.1:1234',
    'http://[::1]:1234',
    'http://192.168.1.20:1234/api/v1',
    'https://models.example.com/v1',
  ])('such as %s is taken', async (base_url) => {
    const scene = await team();
    expect((await scene.admin('POST', '/providers', { ...anotherStudio, base_url })).status).toBe(201);
  });

  it('is checked when it is changed, too', async () => {
    const { change, ...scene } = await team();
    const { id } = (await scene.admin('POST', '/providers', anotherStudio)).body.data;
    const answer = await change('PATCH', `/providers/${id}`, 1, { base_url: 'http://169.254.169.254' });
    expect(codeOf(answer)).toEqual([400, 'INVALID_PARAMS']);
  });
});

describe('the version of a row', () => {
  it('is wanted by PATCH and DELETE', async () => {
    const scene = await team();
    const { id } = (await scene.admin('POST', '/providers', anotherStudio)).body.data;
    for (const method of ['PATCH', 'DELETE']) {
      for (const version of [undefined, '*', 'one']) {
        const headers: Record<string, string> = version === undefined ? {} : { 'if-match': version };
        const answer = await scene.admin(method, `/providers/${id}`, { name: 'x' }, headers);
        expect(codeOf(answer)).toEqual([400, 'INVALID_PARAMS']);
        expect(answer.body.message).toContain('if-match');
      }
    }
  });

  it.each([
    ['providers', anotherStudio, { name: 'Upstairs' }],
    ['models', { title: 'mine', provider: 'lmstudio', upstream_model: chatModel }, { name: 'Mine' }],
    ['routes', { model: chatModel, provider: 'bailian' }, { priority: 7 }],
    ['keys', { name: 'a' }, { rpm: 7 }],
  ])('of %s counts changes, and another than the present one is a 409', async (name, body, settings) => {
    const { admin, change } = await team();
    const { id, version } = (await admin('POST', `/${name}`, body)).body.data;
    const changed = await change('PATCH', `/${name}/${id}`, version, settings);
    expect(changed).toMatchObject({ status: 200, body: { data: { ...settings, version: version + 1 } } });
    expect(codeOf(await change('PATCH', `/${name}/${id}`, version, settings))).toEqual([409, 'CONFLICT']);
    expect(codeOf(await change('DELETE', `/${name}/${id}`, version))).toEqual([409, 'CONFLICT']);
    expect((await change('DELETE', `/${name}/${id}`, version + 1)).status).toBe(200);
  });

  it('may stand in quotes, as an entity tag does', async () => {
    const { admin, createKey } = await team();
    const { id } = await createKey();
    const answer = await admin('PATCH', `/keys/${id}`, { rpm: 1 }, { 'if-match': '"1"' });
    expect(answer.body.data.version).toBe(2);
  });

  it('lets one of two writers win', async () => {
    const { change, createKey } = await team();
    const { id } = await createKey();
    const answers = await Promise.all([1, 2, 3].map((rpm) => change('PATCH', `/keys/${id}`, 1, { rpm })));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409, 409]);
  });

  it('stays where nothing changes, as updated_at does', async () => {
    const scene = await team();
    const before = await rowWith(scene, '/models', 'title', 'qwen-plus');
    const { body } = await scene.change('PATCH', `/models/${before.id}`, 1, { name: before.name });
    expect(body.data).toEqual(before);
  });
});

describe('updated_at of a model', () => {
  it('moves with what callers see, and with nothing else', async () => {
    const scene = await team();
    const { id, updated_at } = await rowWith(scene, '/models', 'title', 'qwen-plus');
    const hidden = await scene.change('PATCH', `/models/${id}`, 1, { context_length: 5 });
    expect(hidden.body.data).toMatchObject({ version: 2, updated_at });
    const shown = await scene.change('PATCH', `/models/${id}`, 2, { name: 'Another' });
    expect(shown.body.data.updated_at > updated_at).toBe(true);
  });
});

describe('what is used', () => {
  it('keeps its provider, and the refusal says what uses it', async () => {
    const { admin, change } = await team();
    const provider = (await admin('POST', '/providers', anotherStudio)).body.data;
    await admin('POST', '/models', { title: 'mine', provider: 'studio', upstream_model: 'x' });
    const answer = await change('DELETE', `/providers/${provider.id}`, provider.version);
    expect(codeOf(answer)).toEqual([409, 'CONFLICT']);
    expect(answer.body.message).toMatch(/^资源冲突:studio is used by mine \(route \d+\)/);
  });

  it('is told for a provider of the environment, whose variable would bring it back', async () => {
    const scene = await team();
    const { id, version } = await rowWith(scene, '/providers', 'key', 'lmstudio');
    const answer = await scene.change('DELETE', `/providers/${id}`, version);
    expect(answer.body.message).toContain('LMSTUDIO_BASE_URL');
  });

  it('and is still listed by its provider is disabled instead of removed', async () => {
    const scene = await team();
    const { id, version } = await rowWith(scene, '/models', 'title', chatModel);
    const answer = await scene.change('DELETE', `/models/${id}`, version);
    expect(answer.body.data).toEqual({ id, outcome: 'disabled' });
    expect((await scene.ask(adminKey, 'GET', `/api/llm/models/${chatModel}`)).status).toBe(404);
  });

  it('is twice the same is a 409', async () => {
    const { admin } = await team();
    await admin('POST', '/providers', anotherStudio);
    expect(codeOf(await admin('POST', '/providers', anotherStudio))).toEqual([409, 'CONFLICT']);
    expect(codeOf(await admin('POST', '/models', { title: 'qwen-plus' }))).toEqual([409, 'CONFLICT']);
  });
});

describe('a change', () => {
  it('is in force for the next request', async () => {
    const { admin, ask } = await team();
    const made = await admin('POST', '/models', {
      title: 'my-assistant',
      provider: 'lmstudio',
      upstream_model: chatModel,
    });
    expect(made.body.data).toMatchObject({ available: true, routes: [{ provider: 'lmstudio' }] });
    const answer = await ask(adminKey, 'POST', '/api/llm/chat', chatBody({ model: 'my-assistant' }));
    expect([answer.status, answer.headers.get('x-gateway-model')]).toEqual([200, chatModel]);
  });

  it('of a provider that is switched off takes its models away', async () => {
    const scene = await team();
    const { id, version } = await rowWith(scene, '/providers', 'key', 'lmstudio');
    await scene.change('PATCH', `/providers/${id}`, version, { enabled: false });
    expect((await scene.ask(adminKey, 'GET', '/api/llm/models')).body.data).toEqual([]);
  });

  it('of a revoked key is a 409', async () => {
    const { change, createKey } = await team();
    const { id } = await createKey();
    await change('DELETE', `/keys/${id}`, 1);
    expect(codeOf(await change('PATCH', `/keys/${id}`, 2, { rpm: 1 }))).toEqual([409, 'CONFLICT']);
    expect((await change('DELETE', `/keys/${id}`, 2)).body.data).toEqual({ id, outcome: 'revoked' });
  });
});

describe('an order to a provider', () => {
  const order = async (scene: Team, name: string, body?: unknown, key = 'lmstudio'): Promise<Answer> => {
    const { id } = await rowWith(scene, '/providers', 'key', key);
    return scene.admin('POST', `/providers/${id}/${name}`, body);
  };

  it('check tells whether it answers, with or without a body', async () => {
    const scene = await team();
    for (const body of [undefined, '', {}]) {
      const { status, body: answer } = await order(scene, 'check', body);
      expect([status, answer.data.result, answer.data.apis]).toEqual([201, 'up', ['v0', 'v1']]);
    }
    expect((await order(scene, 'check', undefined, 'bailian')).body.data.result).toBe('no-key');
  });

  it('sync brings new models into the catalog', async () => {
    const scene = await team();
    scene.studio.setModels([{ id: 'brand/new', type: 'llm' }]);
    const { body } = await order(scene, 'sync');
    expect(body.data).toMatchObject({ result: 'up', added: ['brand/new'] });
    expect((await scene.ask(adminKey, 'GET', '/api/llm/models/brand/new')).status).toBe(200);
  });

  it('load and unload change what is in memory', async () => {
    const scene = await team();
    const model = 'qwen/qwen3-8b';
    scene.studio.setModels([{ id: model, type: 'llm' }]);
    const loaded = await order(scene, 'load', { model, context_length: 2048 });
    expect(loaded).toMatchObject({ status: 201, body: { data: { model, context_length: 2048 } } });
    const { id } = await rowWith(scene, '/providers', 'key', 'lmstudio');
    const { body } = await scene.admin('GET', `/providers/${id}/loaded`);
    expect(body.data).toMatchObject([{ model, context_length: 2048 }]);
    expect((await order(scene, 'unload', { model })).body.data).toEqual([loaded.body.data.id]);
    expect((await scene.admin('GET', `/providers/${id}/loaded`)).body.data).toEqual([]);
  });

  it('download begins one, and its news can be asked for', async () => {
    const scene = await team();
    const { status, body } = await order(scene, 'download', { model: 'brand/new' });
    expect([status, body.data.status]).toEqual([201, 'downloading']);
    const { id } = await rowWith(scene, '/providers', 'key', 'lmstudio');
    const news = await scene.admin('GET', `/providers/${id}/download/${body.data.id}`);
    expect(news.body.data).toMatchObject({ id: body.data.id, status: 'downloading' });
    expect(news.body.data.downloaded_bytes).toBeGreaterThan(0);
  });

  it('that the provider refuses is a 502 in its words', async () => {
    const answer = await order(await team(), 'load', { model: 'nobody' });
    expect(codeOf(answer)).toEqual([502, 'UPSTREAM_ERROR']);
    expect(answer.body.message).toMatch(/^LM Studio返回错误:.*nobody/);
  });

  it('that never reaches it is a 502 without its address', async () => {
    const scene = await team();
    await scene.admin('POST', '/providers', anotherStudio);
    const answer = await order(scene, 'load', { model: 'x' }, 'studio');
    expect(codeOf(answer)).toEqual([502, 'UPSTREAM_ERROR']);
    expect(answer.body.message).not.toContain('127.0.0.1');
  });

  it('of a kind that takes none is a 400', async () => {
    const answer = await order(await team(), 'load', { model: 'x' }, 'bailian');
    expect(codeOf(answer)).toEqual([400, 'INVALID_PARAMS']);
  });
});

describe('the usage report', () => {
  it('sums what each key has used', async () => {
    const { admin, ask, createKey, usageOf } = await team();
    const { key } = await createKey({ name: 'blue' });
    await ask(key, 'POST', '/api/llm/chat', chatBody(), { 'x-request-id': 'blue-1' });
    await usageOf('blue-1');
    const { body } = await admin('GET', '/usage?by=key&since=1h');
    expect(body.data).toMatchObject([{ group: `blue (${key.slice(0, 12)})`, requests: 1 }]);
  });

  it('refuses a grouping that there is none by name', async () => {
    const { admin } = await team();
    const answer = await admin('GET', '/usage?by=colour');
    expect(codeOf(answer)).toEqual([400, 'INVALID_PARAMS']);
    expect(answer.body.message).toContain('by: ');
  });
});

describe('long lists', () => {
  it('come page by page, each naming the next', async () => {
    const { ask } = await team();
    const seen: number[] = [];
    let after = '0';
    let pages = 0;
    for (;;) {
      const { status, body, headers } = await ask(
        adminKey,
        'GET',
        `/api/admin/models?limit=3&after=${after}`,
      );
      expect(status).toBe(200);
      expect(body.data.length).toBeLessThanOrEqual(3);
      seen.push(...body.data.map(({ id }: { id: number }) => id));
      pages += 1;
      const next = headers.get('x-next-after');
      if (next === null) break;
      after = next;
    }
    const all = (await ask(adminKey, 'GET', '/api/admin/models')).body.data;
    expect(pages).toBeGreaterThan(2);
    expect(seen).toEqual(all.map(({ id }: { id: number }) => id));
  });

  it.each(['providers', 'models', 'routes', 'keys'])(
    'of %s have their rows at their own paths too',
    async (name) => {
      const { ask, createKey } = await team();
      await createKey();
      const { data } = (await ask(adminKey, 'GET', `/api/admin/${name}?limit=1`)).body;
      expect((await ask(adminKey, 'GET', `/api/admin/${name}/${data[0].id}`)).body.data).toEqual(data[0]);
      expect((await ask(adminKey, 'GET', `/api/admin/${name}/999999`)).status).toBe(404);
    },
  );

  it.each(['limit=0', 'limit=1001', 'limit=x', 'after=-1', 'page=2'])('refuse %s by name', async (query) => {
    const { ask } = await team();
    const { status, body } = await ask(adminKey, 'GET', `/api/admin/models?${query}`);
    expect(status).toBe(400);
    expect(body.message).toContain(query.split('=')[0]);
  });

  it('of 5,000 models take less than 50 ms a page', async () => {
    const { ask, file } = await team();
    const store = await temporaryStore(file);
    await store.db.transaction().execute(async (transaction) => {
      for (let model = 0; model < 5000; model += 1) {
        const { id } = await insertModel(transaction, {
          title: `filler-${model}`,
          origin: 'admin',
          time: '',
        });
        await insertRoute(transaction, {
          model_id: id,
          provider_id: 1,
          upstream_model: `filler-${model}`,
          origin: 'admin',
        });
      }
    });
    const page = '/api/admin/models?limit=100&after=3000';
    // The first reads the catalog anew.
    await ask(adminKey, 'GET', page);
    let fastest = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 5; round += 1) {
      const start = performance.now();
      expect((await ask(adminKey, 'GET', page)).body.data).toHaveLength(100);
      fastest = Math.min(fastest, performance.now() - start);
    }
    expect(fastest).toBeLessThan(50);
  });
});
