import { describe, expect, it } from 'vitest';
import { providerKinds } from '../../src/adapters/index.ts';
import { AdminError, type Administration } from '../../src/admin/administration.ts';
import { syncEnvironmentProviders } from '../../src/admin/environment.ts';
import { addModel, listModels, removeModel, setModel } from '../../src/admin/models.ts';
import {
  addProvider,
  checkProviders,
  listProviders,
  removeProvider,
  setProvider,
  syncProviders,
} from '../../src/admin/providers.ts';
import { addRoute, listRoutes, removeRoute, setRoute } from '../../src/admin/routes.ts';
import { loadConfig } from '../../src/config.ts';
import { readCatalogVersion } from '../../src/store/catalog.ts';
import { updateProvider } from '../../src/store/providers.ts';
import { simulator, workspace } from './workspace.ts';

const nowhere = 'http://127.0.0.1:9';

async function administration(environment: Record<string, string> = {}): Promise<Administration> {
  const space = await workspace({ LMSTUDIO_BASE_URL: nowhere, ...environment });
  const { db } = space.store;
  await syncEnvironmentProviders(db, providerKinds, space.config);
  await space.catalog.load();
  return { db, providerKinds, catalog: space.catalog, discovery: space.discover(), config: space.config };
}

async function expectRefusal(
  doing: Promise<unknown>,
  code: AdminError['code'],
  message: RegExp,
): Promise<void> {
  const error = await doing.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(AdminError);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
}

const studio = { key: 'studio', kind: 'lmstudio', base_url: nowhere };

describe('providers of the environment', () => {
  it('get the address of the server that starts, and keep all else that was set', async () => {
    const admin = await administration();
    await setProvider(admin, 'lmstudio', { max_queue: 3, name: 'Upstairs' });
    const config = loadConfig({ LMSTUDIO_BASE_URL: 'http://127.0.0.1:8/api/v1' });
    await syncEnvironmentProviders(admin.db, providerKinds, config);
    const [row] = (await listProviders(admin)).filter((provider) => provider.key === 'lmstudio');
    expect(row).toMatchObject({ base_url: 'http://127.0.0.1:8', max_queue: 3, name: 'Upstairs' });
  });

  it('have a list of fields that they are passed, which null takes back', async () => {
    const admin = await administration();
    const listed = await setProvider(admin, 'lmstudio', { passthrough: ['grammar', '*'] });
    expect(listed.passthrough).toEqual(['grammar', '*']);
    const known = admin.catalog.providers().find(({ key }) => key === 'lmstudio');
    expect(known?.passthrough).toEqual(['grammar', '*']);
    expect((await setProvider(admin, 'lmstudio', { passthrough: null })).passthrough).toEqual([]);
    await expectRefusal(
      setProvider(admin, 'lmstudio', { passthrough: ['a', ''] }),
      'INVALID_PARAMS',
      /^passthrough/,
    );
  });

  it('are not written again by a start that changes nothing', async () => {
    const admin = await administration();
    const before = await readCatalogVersion(admin.db);
    await syncEnvironmentProviders(admin.db, providerKinds, loadConfig({ LMSTUDIO_BASE_URL: nowhere }));
    expect(await readCatalogVersion(admin.db)).toBe(before);
  });

  it.each([
    ['lmstudio', /^base_url: .*LMSTUDIO_BASE_URL/],
    ['bailian', /^base_url: .*BAILIAN_BASE_URL/],
  ])('keep their address: %s', async (key, message) => {
    const admin = await administration();
    await expectRefusal(setProvider(admin, key, { base_url: 'http://127.0.0.1:7' }), 'CONFLICT', message);
  });

  it('are disabled, not removed', async () => {
    const admin = await administration();
    await expectRefusal(
      removeProvider(admin, 'lmstudio'),
      'CONFLICT',
      /LMSTUDIO_BASE_URL.*disable it instead/,
    );
    expect(await setProvider(admin, 'lmstudio', { enabled: false })).toMatchObject({ enabled: false });
  });
});

describe('providers', () => {
  it('are added with their address in the form that paths are appended to', async () => {
    const admin = await administration({ SOME_API_KEY: 'secret' });
    const added = await addProvider(admin, {
      ...studio,
      base_url: `${nowhere}/v1/`,
      api_key_env: 'SOME_API_KEY',
    });
    expect(added).toMatchObject({ base_url: nowhere, enabled: true, origin: 'admin', api_key: 'set' });
    expect(JSON.stringify(added)).not.toContain('secret');
  });

  it.each([
    [{ base_url: undefined }, /^base_url: is missing/],
    [{ kind: 'magic' }, /^kind: is not a known kind \(lmstudio/],
    [{ key: 'Big' }, /^key: /],
    [{ base_url: 'studio' }, /^base_url: must be a URL/],
    [{ base_url: 'ftp://a' }, /^base_url: must be an http or https URL/],
    [{ base_url: 'http://me:secret@a' }, /^base_url: must not hold a user name or password/],
    [{ base_url: 'http://a/?b' }, /^base_url: must not have a query/],
    [{ base_url: 'http://169.254.169.254' }, /^base_url: .*metadata/],
    [{ base_url: 'http://2852039166/' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[::ffff:169.254.169.254]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[fe80::1]' }, /^base_url: .*link-local/],
    [{ base_url: 'http://[::ffff:0:169.254.169.254]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[64:ff9b::169.254.169.254]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[64:ff9b:1::a9fe:a9fe]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[64:ff9b:1:a9fe:a9:fe00::]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[64:ff9b::100.100.100.200]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[2002:a9fe:a9fe::1]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[2001:0:1:2:3:4:5601:5601]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[fd12::5efe:169.254.169.254]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://[::169.254.169.254]' }, /^base_url: .*metadata/],
    [{ base_url: 'http://metadata.google.internal./' }, /^base_url: .*metadata/],
    [{ base_url: 'http://metadata.google.internal' }, /^base_url: .*metadata/],
    [{ base_url: 'http://METADATA.goog..' }, /^base_url: .*metadata/],
    [
      { api_key_env: 'AWS_SECRET_ACCESS_KEY' },
      /^api_key_env: AWS_SECRET_ACCESS_KEY does not match PROVIDER_KEY_ENV/,
    ],
    [{ api_key_env: 'OPENAI_API_KEY_2' }, /^api_key_env: OPENAI_API_KEY_2 does not match PROVIDER_KEY_ENV/],
    [{ api_key_env: 'ADMIN_API_KEY' }, /^api_key_env: must not be ADMIN_API_KEY/],
    [{ api_key_env: 'sk-123' }, /^api_key_env: must be the name/],
    [{ max_queue: -1 }, /^max_queue: /],
    [{ idle_timeout_ms: 1.5 }, /^idle_timeout_ms: /],
    [{ color: 'red' }, /^color: is not a known field/],
  ])('are refused with %j', async (wrong, message) => {
    const admin = await administration();
    await expectRefusal(addProvider(admin, { ...studio, ...wrong }), 'INVALID_PARAMS', message);
  });

  it('may have any other address, also one that carries IPv4', async () => {
    const admin = await administration();
    for (const base_url of [
      'http://[64:ff9b::10.0.0.5]:1234',
      'http://[::ffff:10.0.0.5]',
      'http://[fd00::1]',
    ]) {
      expect(await addProvider(admin, { ...studio, key: `at-${base_url.length}`, base_url })).toBeDefined();
    }
  });

  it('may have their key only where PROVIDER_KEY_ENV says so, also when they are changed', async () => {
    const admin = await administration({
      PROVIDER_KEY_ENV: 'STUDIO_*,ADMIN_API_KEY',
      STUDIO_TOKEN: 'secret',
    });
    expect(await addProvider(admin, { ...studio, api_key_env: 'STUDIO_TOKEN' })).toMatchObject({
      api_key: 'set',
    });
    for (const name of ['OPENAI_API_KEY', 'MY_STUDIO_TOKEN', 'PATH', 'ADMIN_API_KEY']) {
      await expectRefusal(
        setProvider(admin, 'studio', { api_key_env: name }),
        'INVALID_PARAMS',
        new RegExp(`^api_key_env: .*${name}`),
      );
    }
    await setProvider(admin, 'studio', { api_key_env: 'DASHSCOPE_API_KEY' });
  });

  it('of which the database names another variable have none, and are not called', async () => {
    const admin = await administration({ AWS_SECRET_ACCESS_KEY: 'secret' });
    const { id } = await addProvider(admin, studio);
    await updateProvider(admin.db, id, { api_key_env: 'AWS_SECRET_ACCESS_KEY' });
    await admin.catalog.load();
    const provider = admin.catalog.providers().find((one) => one.id === id);
    expect(provider).toMatchObject({ apiKey: undefined, missingCredential: true });
    const [report] = await checkProviders(admin, 'studio');
    expect(report).toMatchObject({
      result: 'no-key',
      error: expect.stringMatching(/PROVIDER_KEY_ENV.*AWS_SECRET_ACCESS_KEY/),
    });
  });

  it('are refused where the key is taken', async () => {
    const admin = await administration();
    await addProvider(admin, studio);
    await expectRefusal(addProvider(admin, studio), 'CONFLICT', /^key: there is already a provider studio/);
  });

  it('take settings back by null, and count only real changes', async () => {
    const admin = await administration();
    await addProvider(admin, { ...studio, max_concurrency: 2 });
    expect(await setProvider(admin, 'studio', { max_concurrency: 2, enabled: true })).toMatchObject({
      version: 1,
    });
    expect(await setProvider(admin, 'studio', { max_concurrency: null })).toMatchObject({
      version: 2,
      max_concurrency: null,
    });
  });

  it('that somebody routed to are not removed, and the models are named', async () => {
    const admin = await administration();
    await addProvider(admin, studio);
    await addModel(admin, { title: 'mine', provider: 'studio' });
    await expectRefusal(removeProvider(admin, 'studio'), 'CONFLICT', /used by mine \(route \d+\)/);
    await removeModel(admin, 'mine');
    expect((await removeProvider(admin, 'studio')).models).toEqual([]);
  });

  it('take along what only discovery made for them', async () => {
    const { url } = await simulator({
      models: [
        { id: 'one', type: 'llm' },
        { id: 'two', type: 'llm' },
      ],
    });
    const admin = await administration();
    await addProvider(admin, { ...studio, base_url: url });
    await syncProviders(admin, 'studio');
    await setModel(admin, 'two', { name: 'edited' });
    expect((await removeProvider(admin, 'studio')).models).toEqual(['one']);
    const left = (await listModels(admin)).filter((model) => model.origin === 'discovery');
    expect(left).toMatchObject([{ title: 'two', name: 'edited', available: false, routes: [] }]);
  });

  it('without their key are told apart from those that do not answer', async () => {
    const admin = await administration();
    const reports = await checkProviders(admin);
    const results = Object.fromEntries(reports.map((report) => [report.key, report.result]));
    expect(results).toEqual({ bailian: 'no-key', lmstudio: 'down' });
    expect(reports.find((report) => report.key === 'bailian')?.error).toContain('DASHSCOPE_API_KEY');
  });
});

describe('models', () => {
  it('are added with their route, and can be called at once', async () => {
    const admin = await administration();
    const input = {
      title: 'alias',
      provider: 'lmstudio',
      upstream_model: 'org/one',
      api: 'v0',
      priority: -1,
    };
    expect(await addModel(admin, input)).toMatchObject({
      id: 1000,
      available: true,
      routes: [{ provider: 'lmstudio', upstream_model: 'org/one', api: 'v0', priority: -1, origin: 'admin' }],
    });
    expect(admin.catalog.find('alias')?.routes[0]?.upstreamModel).toBe('org/one');
  });

  it.each([
    [{ title: 'a', api: 'v0' }, 'INVALID_PARAMS', /^provider: is missing/],
    [{ title: 'a', provider: 'nobody' }, 'NOT_FOUND', /there is no provider nobody/],
    [{ title: 'a', provider: 'lmstudio', api: 'v9' }, 'INVALID_PARAMS', /^api: must be one of auto, v0, v1/],
    [{ title: 'a', time: 'yesterday' }, 'INVALID_PARAMS', /^time: must look like/],
    [{ title: '' }, 'INVALID_PARAMS', /^title: must not be empty/],
    [{ title: ' a' }, 'INVALID_PARAMS', /^title: must not begin or end with a blank/],
    [{ title: 'qwen-plus' }, 'CONFLICT', /^title: there is already a model qwen-plus/],
    [{}, 'INVALID_PARAMS', /^title: is missing/],
    [{ title: 'a', colour: 1 }, 'INVALID_PARAMS', /^colour: is not a known field/],
  ] as const)('are refused as %j', async (input, code, message) => {
    const admin = await administration();
    const before = await readCatalogVersion(admin.db);
    await expectRefusal(addModel(admin, input), code, message);
    expect(await readCatalogVersion(admin.db)).toBe(before);
  });

  it('move updated_at only with what API users see', async () => {
    const admin = await administration();
    const hidden = await setModel(admin, 'qwen-turbo', { enabled: false, context_length: 4096 });
    expect(hidden).toMatchObject({ version: 2, updated_at: '2025-01-01T00:00:00', enabled: false });
    const shown = await setModel(admin, 'qwen-turbo', { tag1: 'x' });
    expect(shown.version).toBe(3);
    expect(shown.updated_at).not.toBe('2025-01-01T00:00:00');
  });

  it('do not move the catalog version where nothing differs', async () => {
    const admin = await administration();
    const before = await readCatalogVersion(admin.db);
    await setModel(admin, 'qwen-turbo', { is_featured: true, enabled: true, tag1: '高速' });
    expect(await readCatalogVersion(admin.db)).toBe(before);
  });

  it('are found by title first, then by id', async () => {
    const admin = await administration();
    await addModel(admin, { title: '1001' });
    await addModel(admin, { title: 'other' });
    expect(await setModel(admin, '1001', { name: 'a' })).toMatchObject({ id: 1000 });
    expect(await setModel(admin, 1001, { name: 'b' })).toMatchObject({ title: 'other' });
    await expectRefusal(setModel(admin, 'nothing', {}), 'NOT_FOUND', /there is no model nothing/);
  });

  it('that a provider still lists are disabled by removal and stay away, others are removed', async () => {
    const server = await simulator({ models: [{ id: 'org/one', type: 'llm' }] });
    const admin = await administration({ LMSTUDIO_BASE_URL: server.url });
    await syncProviders(admin);
    expect((await removeModel(admin, 'org/one')).outcome).toBe('disabled');
    await syncProviders(admin);
    expect(admin.catalog.find('org/one')).toBeUndefined();
    expect(await setModel(admin, 'org/one', { enabled: true })).toMatchObject({ available: true });
    server.setModels([]);
    await syncProviders(admin);
    expect((await removeModel(admin, 'org/one')).outcome).toBe('removed');
    await expectRefusal(removeModel(admin, 'org/one'), 'NOT_FOUND', /there is no model/);
  });
});

describe('routes', () => {
  it('are added, changed, listed by model and removed', async () => {
    const admin = await administration();
    await addModel(admin, { title: 'mine' });
    const { id } = await addRoute(admin, { model: 'mine', provider: 'lmstudio', weight: 3 });
    await setRoute(admin, id, { idle_timeout_ms: 0 });
    expect(await listRoutes(admin, 'mine')).toMatchObject([
      { id, model: 'mine', provider: 'lmstudio', upstream_model: 'mine', weight: 3, idle_timeout_ms: 0 },
    ]);
    expect((await removeRoute(admin, id)).outcome).toBe('removed');
    expect(await listRoutes(admin, 'mine')).toEqual([]);
    expect(admin.catalog.find('mine')).toBeUndefined();
  });

  it('that exist are refused, with their id', async () => {
    const admin = await administration();
    await expectRefusal(
      addRoute(admin, { model: 'qwen-plus', provider: 'bailian' }),
      'CONFLICT',
      /exists already, as route \d+/,
    );
  });

  it('that discovery made are disabled by removal, and taken over by adding them', async () => {
    const server = await simulator({ models: [{ id: 'org/one', type: 'llm' }] });
    const admin = await administration({ LMSTUDIO_BASE_URL: server.url });
    await syncProviders(admin);
    const id = admin.catalog.find('org/one')?.routes[0]?.id ?? 0;
    expect((await removeRoute(admin, id)).outcome).toBe('disabled');
    await syncProviders(admin);
    expect(admin.catalog.find('org/one')).toBeUndefined();
    const again = await addRoute(admin, { model: 'org/one', provider: 'lmstudio', priority: 2 });
    expect(again).toMatchObject({ id, priority: 2, enabled: true, origin: 'discovery' });
    expect(admin.catalog.find('org/one')?.routes[0]?.priority).toBe(2);
  });
});
