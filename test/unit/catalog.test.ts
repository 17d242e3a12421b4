import { describe, expect, it } from 'vitest';
import { insertModel, updateModel } from '../../src/store/models.ts';
import { insertProvider, updateProvider } from '../../src/store/providers.ts';
import { insertRoute, updateRoute } from '../../src/store/routes.ts';
import type { NewModelRow, NewRouteRow } from '../../src/store/schema.ts';
import { temporaryStore, until, type Workspace, workspace } from './workspace.ts';

async function addModel(
  { store: { db }, catalog }: Workspace,
  title: string,
  routes: readonly (Pick<NewRouteRow, 'provider_id'> & Partial<NewRouteRow>)[],
  columns: Partial<NewModelRow> = {},
) {
  const model = await insertModel(db, { title, origin: 'admin', ...columns });
  const made = [];
  for (const route of routes) {
    made.push(
      await insertRoute(db, { upstream_model: title, origin: 'admin', ...route, model_id: model.id }),
    );
  }
  await catalog.load();
  return { model, routes: made };
}

const titles = ({ catalog }: Workspace, type?: number): string[] =>
  catalog.list(type).map((model) => model.card.title);

describe('the catalog', () => {
  it('shows a card with exactly the keys of the API', async () => {
    const space = await workspace();
    const provider = await space.addProvider('studio', 'http://127.0.0.1:1');
    await addModel(space, 'a', [{ provider_id: provider.id }], { is_featured: 1, time: '2025-01-01' });
    const card = space.catalog.find('a')?.card;
    expect(card).toEqual({
      id: 1000,
      title: 'a',
      img: '',
      name: '',
      description: '',
      keyword: '',
      time: '2025-01-01',
      tag1: '',
      tag2: '',
      type: 0,
      is_featured: true,
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/),
      updated_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/),
    });
  });

  it('lists featured models first, then by id, of one type where asked', async () => {
    const space = await workspace();
    const provider = await space.addProvider('studio', 'http://127.0.0.1:1');
    const to = [{ provider_id: provider.id }];
    await addModel(space, 'a', to);
    await addModel(space, 'b', to, { is_featured: 1 });
    await addModel(space, 'c', to, { type: 1 });
    await addModel(space, 'd', to, { is_featured: 1 });
    expect(titles(space)).toEqual(['b', 'd', 'a', 'c']);
    expect(titles(space, 0)).toEqual(['b', 'd', 'a']);
    expect(titles(space, 1)).toEqual(['c']);
  });

  it('orders routes by priority, then by id, and leaves out what cannot be used', async () => {
    const space = await workspace();
    const on = await space.addProvider('on', 'http://127.0.0.1:1');
    const second = await space.addProvider('second', 'http://127.0.0.1:2');
    const off = await space.addProvider('off', 'http://127.0.0.1:3');
    await updateProvider(space.store.db, off.id, { enabled: 0 });
    const { routes } = await addModel(space, 'a', [
      { provider_id: on.id, priority: 1 },
      { provider_id: second.id },
      { provider_id: off.id },
      { provider_id: on.id, upstream_model: 'b', vanished: 1 },
      { provider_id: on.id, upstream_model: 'c', enabled: 0 },
    ]);
    expect(space.catalog.find('a')?.routes.map((route) => route.id)).toEqual([routes[1]?.id, routes[0]?.id]);
  });

  it('does not find models that are disabled, vanished or without a provider', async () => {
    const space = await workspace();
    const provider = await space.addProvider('studio', 'http://127.0.0.1:1');
    const { model } = await addModel(space, 'disabled', [{ provider_id: provider.id }]);
    await updateModel(space.store.db, model.id, { enabled: 0 }, { touch: false });
    await addModel(space, 'vanished', [{ provider_id: provider.id, vanished: 1 }]);
    await addModel(space, 'alone', []);
    expect(['disabled', 'vanished', 'alone', 'never'].map((title) => space.catalog.find(title))).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('finds but does not list a model whose provider lacks its credential', async () => {
    const space = await workspace();
    const qwen = space.catalog.find('qwen-plus');
    expect(qwen?.available).toBe(false);
    expect(qwen?.routes[0]?.provider).toMatchObject({
      missingCredential: true,
      apiKeyEnv: 'DASHSCOPE_API_KEY',
    });
    expect(titles(space)).not.toContain('qwen-plus');
  });

  it('lists it when the credential is there', async () => {
    const space = await workspace({ DASHSCOPE_API_KEY: 'sk-for-a-test' });
    expect(titles(space)).toContain('qwen-plus');
    expect(space.catalog.find('qwen-plus')?.routes[0]?.provider.apiKey).toBe('sk-for-a-test');
  });

  it('takes a provider without its own settings as its kind says', async () => {
    const space = await workspace();
    await space.addProvider('studio', 'http://127.0.0.1:1');
    expect(space.catalog.providers().find((provider) => provider.key === 'studio')).toMatchObject({
      displayName: 'LM Studio',
      maxConcurrency: undefined,
      maxQueue: 256,
      abortGraceMs: 500,
      timeouts: {},
    });
  });

  it('takes what the rows override', async () => {
    const space = await workspace();
    const { id } = await space.addProvider('studio', 'http://127.0.0.1:1');
    await updateProvider(space.store.db, id, {
      name: 'Upstairs',
      max_concurrency: 0,
      max_queue: 3,
      abort_grace_ms: 0,
      idle_timeout_ms: 0,
    });
    const { routes } = await addModel(space, 'a', [{ provider_id: id, total_timeout_ms: 7 }]);
    const route = space.catalog.find('a')?.routes[0];
    expect(route?.provider).toMatchObject({
      displayName: 'Upstairs',
      maxConcurrency: 0,
      maxQueue: 3,
      abortGraceMs: 0,
      timeouts: { idleMs: 0 },
    });
    expect(route).toMatchObject({ id: routes[0]?.id, timeouts: { totalMs: 7 } });
  });

  it('leaves out a provider of an unknown kind, and says so once', async () => {
    const space = await workspace();
    const { db } = space.store;
    const odd = await insertProvider(db, {
      key: 'odd',
      kind: 'telepathy',
      base_url: 'http://x',
      origin: 'admin',
    });
    await addModel(space, 'a', [{ provider_id: odd.id }]);
    await addModel(space, 'b', []);
    expect(space.catalog.find('a')).toBeUndefined();
    expect(space.logged.filter((line) => line['kind'] === 'telepathy')).toHaveLength(1);
  });

  it('notices within 2 s what another process changed', async () => {
    const space = await workspace();
    const provider = await space.addProvider('studio', 'http://127.0.0.1:1');
    space.catalog.watch();
    const other = await temporaryStore(space.store.file);
    const startedAt = performance.now();
    await other.db.transaction().execute(async (transaction) => {
      const model = await insertModel(transaction, { title: 'theirs', origin: 'admin' });
      await insertRoute(transaction, {
        model_id: model.id,
        provider_id: provider.id,
        upstream_model: 'x',
        origin: 'admin',
      });
    });
    await until(space.catalog, () => space.catalog.find('theirs') !== undefined);
    expect(performance.now() - startedAt).toBeLessThan(2000);
  });

  it('keeps its snapshot object until something changes', async () => {
    const space = await workspace();
    const before = space.catalog.providers();
    let changes = 0;
    space.catalog.onChange(() => changes++);
    await space.catalog.load();
    expect(space.catalog.providers()).toBe(before);
    expect(changes).toBe(0);
  });

  it('keeps the old snapshot and calls itself unhealthy when the database cannot be read, and recovers', async () => {
    const space = await workspace();
    const provider = await space.addProvider('studio', 'http://127.0.0.1:1');
    const { routes } = await addModel(space, 'a', [{ provider_id: provider.id }]);
    space.store.raw.exec('ALTER TABLE catalog_version RENAME TO hidden');
    await expect(space.catalog.load()).rejects.toThrow('no such table');
    expect(space.catalog.healthy).toBe(false);
    expect(space.catalog.find('a')?.available).toBe(true);
    space.store.raw.exec('ALTER TABLE hidden RENAME TO catalog_version');
    await updateRoute(space.store.db, routes[0]?.id ?? 0, { enabled: 0 });
    await space.catalog.load();
    expect(space.catalog.healthy).toBe(true);
    expect(space.catalog.find('a')).toBeUndefined();
  });
});
