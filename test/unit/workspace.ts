/** A database in a temporary directory, and the engine's parts on it. Everything is closed and removed after the test. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import { providerKinds } from '../../src/adapters/index.ts';
import { type Config, loadConfig } from '../../src/config.ts';
import { Catalog } from '../../src/gateway/catalog.ts';
import { Discovery } from '../../src/gateway/discovery.ts';
import { openStore, type Store } from '../../src/store/database.ts';
import { insertProvider } from '../../src/store/providers.ts';
import type { ProviderRow } from '../../src/store/schema.ts';
import { UpstreamClient } from '../../src/upstream/client.ts';
import { type LmStudioOptions, type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';

export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Opens the database of that path, else one of its own. */
export async function temporaryStore(
  file = path.join(temporaryDirectory(), 'gateway.db'),
): Promise<Store & { readonly file: string }> {
  const store = await openStore(file);
  onTestFinished(() => store.close());
  return { ...store, file };
}

export interface Workspace {
  readonly store: Store & { readonly file: string };
  readonly config: Config;
  readonly catalog: Catalog;
  readonly client: UpstreamClient;
  /** What was logged, one object a line. */
  readonly logged: readonly Record<string, unknown>[];
  addProvider(key: string, baseUrl: string): Promise<ProviderRow>;
  discover(intervals?: { upMs: number; downMs: number }): Discovery;
}

/** The catalog is loaded; nothing runs by itself yet. */
export async function workspace(environment: Record<string, string> = {}): Promise<Workspace> {
  const store = await temporaryStore();
  const { db } = store;
  const config = loadConfig(environment);
  const logged: Record<string, unknown>[] = [];
  const logger = pino({ level: 'info' }, { write: (line: string) => void logged.push(JSON.parse(line)) });
  const catalog = new Catalog({ db, providerKinds, config, logger });
  await catalog.load();
  const client = new UpstreamClient();
  onTestFinished(async () => {
    catalog.close();
    await client.close();
  });
  return {
    store,
    config,
    catalog,
    client,
    logged,
    async addProvider(key, baseUrl) {
      const row = await insertProvider(db, { key, kind: 'lmstudio', base_url: baseUrl, origin: 'admin' });
      await catalog.load();
      return row;
    },
    discover(intervals) {
      const discovery = new Discovery({
        catalog,
        db,
        client,
        config,
        logger,
        ...(intervals === undefined ? {} : { intervals }),
      });
      onTestFinished(() => discovery.close());
      return discovery;
    },
  };
}

export async function simulator(options: LmStudioOptions = {}): Promise<LmStudioSimulator> {
  const studio = await startLmStudio(options);
  onTestFinished(() => studio.close());
  return studio;
}

/** Resolves when the condition holds after a change of the catalog. Rejects after five seconds. */
export function until(catalog: Catalog, holds: () => boolean): Promise<void> {
  if (holds()) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the catalog did not become what was expected')), 5000);
    const unsubscribe = catalog.onChange(() => {
      if (!holds()) return;
      clearTimeout(timer);
      unsubscribe();
      resolve();
    });
  });
}
