import { describe, expect, it } from 'vitest';
import { readCatalogVersion } from '../../src/store/catalog.ts';
import { findModelByTitle, insertModel, updateModel } from '../../src/store/models.ts';
import { updateProvider } from '../../src/store/providers.ts';
import { insertRoute, listRoutesOfModel, updateRoute } from '../../src/store/routes.ts';
import type { SimulatedModel } from '../simulators/lmstudio-models.ts';
import { simulator, until, type Workspace, workspace } from './workspace.ts';

const llama: SimulatedModel = {
  id: 'meta/llama-3.1-8b@q4_k_m',
  type: 'llm',
  publisher: 'meta',
  displayName: 'Llama 3.1 8B',
  architecture: 'llama',
  quantization: 'Q4_K_M',
  format: 'gguf',
  parameters: '8B',
  maxContextLength: 131_072,
};
const vision: SimulatedModel = { id: 'qwen2-vl-7b', type: 'vlm', publisher: 'mlx-community' };
const embedder: SimulatedModel = { id: 'nomic-embed', type: 'embeddings' };

const discovered = ({ catalog }: Workspace): string[] =>
  catalog
    .list()
    .map((model) => model.card.title)
    .sort();

/** Longer than any test: nothing is asked but when the test asks. */
const never = { upMs: 600_000, downMs: 600_000 };

async function oneStudio(models: readonly SimulatedModel[] = [llama], options = {}) {
  const studio = await simulator({ models, ...options });
  const space = await workspace();
  const provider = await space.addProvider('studio', studio.url);
  const discovery = space.discover(never);
  return { studio, space, provider, discovery, db: space.store.db };
}

describe('discovery', () => {
  it('brings models into the catalog by their ids, language models as type 0 and embeddings as type 1', async () => {
    const { space, discovery } = await oneStudio([llama, vision, embedder]);
    await discovery.start();
    const types = space.catalog.list().map(({ card }) => [card.title, card.type]);
    expect(types).toEqual([
      [llama.id, 0],
      [vision.id, 0],
      [embedder.id, 1],
    ]);
  });

  it('describes them by what the server tells', async () => {
    const { space, discovery } = await oneStudio([llama]);
    const day = new Date().toISOString().slice(0, 10);
    await discovery.start();
    const card = space.catalog.find(llama.id)?.card;
    expect(card).toMatchObject({ name: 'Llama 3.1 8B', keyword: '文本生成', tag1: 'Q4_K_M', tag2: 'meta' });
    for (const fact of ['meta', 'llama', '8B', 'Q4_K_M', 'GGUF', '131072']) {
      expect(card?.description).toContain(fact);
    }
    expect([day, new Date().toISOString().slice(0, 10)]).toContain(card?.time);
  });

  it('falls back to v0 for an older server, and names what that tells less of', async () => {
    const { space, discovery } = await oneStudio([{ id: 'org/some_model-7b@4bit', type: 'llm' }], {
      generation: 'v0',
    });
    await discovery.start();
    expect(discovery.state('studio')).toMatchObject({ reachability: 'up', apis: ['v0'] });
    expect(space.catalog.find('org/some_model-7b@4bit')?.card.name).toBe('Some model 7b');
  });

  it('does not take a newer server that is ill for an older one', async () => {
    const { studio, discovery } = await oneStudio();
    await discovery.start();
    studio.alwaysControl({ answer: { status: 500, body: 'ill' } });
    await discovery.refresh();
    expect(discovery.state('studio')).toMatchObject({ reachability: 'down', apis: ['v0', 'v1'] });
    expect(studio.requests.map((request) => request.path)).not.toContain('/api/v0/models');
  });

  it('keeps what the server told of each model', async () => {
    const { discovery } = await oneStudio([{ ...llama, loaded: true, contextLength: 8192, parallel: 6 }]);
    await discovery.start();
    expect(discovery.info('studio', llama.id)).toMatchObject({
      state: 'loaded',
      maxContextLength: 131_072,
      instances: [{ contextLength: 8192, parallel: 6 }],
    });
    expect(discovery.info('studio', 'other')).toBeUndefined();
    expect(discovery.info('nobody', llama.id)).toBeUndefined();
  });

  it('asks for lists only, and so loads no model', async () => {
    const { studio, discovery } = await oneStudio([llama]);
    await discovery.start();
    await discovery.refresh();
    expect(new Set(studio.requests.map((request) => `${request.method} ${request.path}`))).toEqual(
      new Set(['GET /api/v1/models']),
    );
    expect(discovery.info('studio', llama.id)?.state).toBe('not-loaded');
  });

  it('sends the key that the provider names, and says so when it is refused', async () => {
    const studio = await simulator({ models: [llama], token: 'a-token-for-tests' });
    const space = await workspace({ STUDIO_API_KEY: 'a-token-for-tests' });
    const { id } = await space.addProvider('studio', studio.url);
    const discovery = space.discover(never);
    await discovery.start();
    expect(discovery.state('studio').lastError).toContain('401');
    await updateProvider(space.store.db, id, { api_key_env: 'STUDIO_API_KEY' });
    await space.catalog.load();
    await discovery.refresh();
    expect(discovery.state('studio').reachability).toBe('up');
  });

  it('writes nothing when nothing changed', async () => {
    const { db, discovery } = await oneStudio([llama, vision]);
    await discovery.start();
    const version = await readCatalogVersion(db);
    await discovery.refresh();
    expect(await readCatalogVersion(db)).toBe(version);
  });

  it('takes a model away that the list lacks, and brings it back as the same row', async () => {
    const { studio, space, discovery } = await oneStudio([llama, vision]);
    await discovery.start();
    const id = space.catalog.find(vision.id)?.card.id;
    studio.setModels([llama]);
    await discovery.refresh();
    expect(space.catalog.find(vision.id)).toBeUndefined();
    expect(discovered(space)).toEqual([llama.id]);
    studio.setModels([llama, vision]);
    await discovery.refresh();
    expect(space.catalog.find(vision.id)?.card.id).toBe(id);
  });

  it('keeps the models of a host that is down', async () => {
    const { studio, space, discovery } = await oneStudio([llama]);
    await discovery.start();
    await studio.stop();
    await discovery.refresh();
    expect(discovery.state('studio')).toMatchObject({
      reachability: 'down',
      lastError: expect.stringContaining('no connection'),
    });
    expect(discovery.info('studio', llama.id)?.id).toBe(llama.id);
    expect(discovered(space)).toEqual([llama.id]);
  });

  it.each([
    ['HTML', '<html><body>busy</body></html>'],
    ['something else', '{"hello":"world"}'],
  ])('keeps the models when the answer is %s instead of a list', async (_name, body) => {
    const { studio, space, discovery } = await oneStudio([llama]);
    await discovery.start();
    studio.alwaysControl({ answer: { status: 200, body } });
    await discovery.refresh();
    expect(discovery.state('studio').reachability).toBe('down');
    expect(discovered(space)).toEqual([llama.id]);
  });

  it('never overwrites what a person edited', async () => {
    const { studio, space, db, discovery } = await oneStudio([llama, vision]);
    await discovery.start();
    const row = await findModelByTitle(db, llama.id);
    const edited = await updateModel(
      db,
      row?.id ?? 0,
      { name: 'Mine', tag1: '', enabled: 0 },
      { touch: true },
    );
    studio.setModels([{ ...llama, displayName: 'Theirs', quantization: 'Q8_0' }]);
    await discovery.refresh();
    studio.setModels([llama, vision]);
    await discovery.refresh();
    expect(await findModelByTitle(db, llama.id)).toEqual(edited);
    expect(space.catalog.find(llama.id)).toBeUndefined();
  });

  it('keeps the title that a person gave', async () => {
    const { space, db, discovery } = await oneStudio([llama]);
    await discovery.start();
    const row = await findModelByTitle(db, llama.id);
    await updateModel(db, row?.id ?? 0, { title: 'llama' }, { touch: true });
    await discovery.refresh();
    await space.catalog.load();
    expect(discovered(space)).toEqual(['llama']);
  });

  it('does not lead a listed model to a second title as well once a person renamed the first', async () => {
    const { space, db, discovery } = await oneStudio([llama]);
    await discovery.start();
    const row = await findModelByTitle(db, llama.id);
    await updateModel(db, row?.id ?? 0, { title: 'llama' }, { touch: true });
    await insertModel(db, { title: llama.id, origin: 'admin' });
    await discovery.refresh();
    await space.catalog.load();
    expect(discovered(space)).toEqual(['llama']);
  });

  it('keeps the settings of a route that a person changed', async () => {
    const { studio, space, db, discovery } = await oneStudio([llama]);
    await discovery.start();
    const route = space.catalog.find(llama.id)?.routes[0];
    await updateRoute(db, route?.id ?? 0, { priority: 7, enabled: 0 });
    studio.setModels([]);
    await discovery.refresh();
    studio.setModels([llama]);
    await discovery.refresh();
    const row = await findModelByTitle(db, llama.id);
    expect(await listRoutesOfModel(db, row?.id ?? 0)).toMatchObject([
      { id: route?.id, priority: 7, enabled: 0, vanished: 0 },
    ]);
  });

  it('adds a route where a second LM Studio has the same model', async () => {
    const { space, discovery } = await oneStudio([llama, vision]);
    const second = await simulator({ models: [llama] });
    await space.addProvider('studio-2', second.url);
    await discovery.start();
    const providersOf = (title: string) =>
      space.catalog
        .find(title)
        ?.routes.map((route) => route.provider.key)
        .sort();
    expect(providersOf(llama.id)).toEqual(['studio', 'studio-2']);
    expect(providersOf(vision.id)).toEqual(['studio']);
    expect(discovered(space)).toHaveLength(2);
  });

  it('lists a model as long as one of two hosts has it', async () => {
    const { studio, space, discovery } = await oneStudio([llama]);
    const second = await simulator({ models: [llama] });
    await space.addProvider('studio-2', second.url);
    await discovery.start();
    studio.setModels([]);
    await discovery.refresh();
    expect(space.catalog.find(llama.id)?.routes.map((route) => route.provider.key)).toEqual(['studio-2']);
    second.setModels([]);
    await discovery.refresh();
    expect(space.catalog.find(llama.id)).toBeUndefined();
  });

  it('leaves a model alone whose routes somebody chose', async () => {
    const { space, db, provider, discovery } = await oneStudio([llama]);
    const model = await insertModel(db, { title: llama.id, origin: 'admin' });
    const route = await insertRoute(db, {
      model_id: model.id,
      provider_id: provider.id,
      upstream_model: vision.id,
      origin: 'admin',
    });
    await discovery.start();
    await space.catalog.load();
    expect(space.catalog.find(llama.id)?.routes.map(({ id }) => id)).toEqual([route.id]);
  });

  it('does not let a vanished upstream take away a route that somebody made', async () => {
    const { studio, space, db, provider, discovery } = await oneStudio([llama]);
    const model = await insertModel(db, { title: 'alias', origin: 'admin' });
    await insertRoute(db, {
      model_id: model.id,
      provider_id: provider.id,
      upstream_model: llama.id,
      origin: 'admin',
    });
    await discovery.start();
    studio.setModels([]);
    await discovery.refresh();
    expect(discovered(space)).toEqual(['alias']);
  });

  it('starts with a provider that another process added, and forgets one that was disabled', async () => {
    const { space, db, discovery } = await oneStudio([llama]);
    await discovery.start();
    const second = await simulator({ models: [vision] });
    const { id } = await space.addProvider('studio-2', second.url);
    await until(space.catalog, () => space.catalog.find(vision.id) !== undefined);
    await updateProvider(db, id, { enabled: 0 });
    await space.catalog.load();
    expect(discovery.state('studio-2').reachability).toBe('untested');
    expect(space.catalog.find(vision.id)).toBeUndefined();
  });

  it('believes nothing that the old address of a provider told', async () => {
    const { space, db, provider, discovery } = await oneStudio([llama]);
    await discovery.start();
    const moved = await simulator({ models: [vision] });
    await updateProvider(db, provider.id, { base_url: moved.url });
    await space.catalog.load();
    expect(discovery.state('studio').reachability).toBe('untested');
    expect(discovery.info('studio', llama.id)).toBeUndefined();
    await until(space.catalog, () => space.catalog.find(vision.id) !== undefined);
    expect(space.catalog.find(llama.id)).toBeUndefined();
  });

  it('asks again and again, sooner while the provider is down', async () => {
    const studio = await simulator({ models: [llama] });
    const space = await workspace();
    await space.addProvider('studio', studio.url);
    await studio.stop();
    const discovery = space.discover({ upMs: 600_000, downMs: 20 });
    await discovery.start();
    expect(discovery.state('studio').reachability).toBe('down');
    await studio.restart();
    await until(space.catalog, () => space.catalog.find(llama.id) !== undefined);
    expect(discovery.state('studio').reachability).toBe('up');
    const asked = studio.requests.length;
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(studio.requests.length).toBe(asked);
  });

  it('warns once while a provider stays down, and tells when it answers', async () => {
    const { studio, space, discovery } = await oneStudio([llama]);
    await studio.stop();
    await discovery.start();
    await discovery.refresh();
    await studio.restart();
    await discovery.refresh();
    const told = space.logged.filter((line) => line['provider'] === 'studio').map((line) => line['msg']);
    expect(told).toEqual([
      expect.stringContaining('does not answer'),
      'provider answers',
      'the models of a provider have changed',
    ]);
  });

  it('goes on with the live state when the database refuses the models', async () => {
    const { space, discovery } = await oneStudio([llama]);
    space.store.raw.exec('ALTER TABLE models RENAME TO hidden');
    await discovery.start();
    expect(discovery.state('studio').reachability).toBe('up');
    expect(space.logged.some((line) => line['msg'] === 'discovered models could not be written')).toBe(true);
  });

  it('ends at once when it is closed while a provider hangs', async () => {
    const { studio, discovery } = await oneStudio([llama]);
    studio.alwaysControl({ stall: { at: 'start' } });
    const started = discovery.start();
    await studio.waitForRequest((request) => request.path === '/api/v1/models');
    await discovery.close();
    await started;
    expect(discovery.state('studio').reachability).toBe('untested');
  });
});

describe('an unknown title', () => {
  it('is looked for once in 2 s, by one question that all callers share', async () => {
    const { studio, space, discovery } = await oneStudio([llama]);
    await discovery.start();
    studio.setModels([llama, vision]);
    studio.reset();
    await Promise.all(Array.from({ length: 20 }, () => discovery.discoverUnknown()));
    await discovery.discoverUnknown();
    expect(studio.requests).toHaveLength(1);
    expect(space.catalog.find(vision.id)?.available).toBe(true);
  });

  it('is waited for at most 1 s', async () => {
    const { studio, discovery } = await oneStudio([llama]);
    await discovery.start();
    studio.alwaysControl({ stall: { at: 'start' } });
    const startedAt = performance.now();
    await discovery.discoverUnknown();
    const took = performance.now() - startedAt;
    expect(took).toBeGreaterThan(950);
    expect(took).toBeLessThan(1500);
  });
});
