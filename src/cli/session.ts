/** Opens what an administration command works on, and closes it. The one place where commands meet the engine's parts. */
import { pino } from 'pino';
import { providerKinds } from '../adapters/index.ts';
import type { Administration } from '../admin/administration.ts';
import { syncEnvironmentProviders } from '../admin/environment.ts';
import { type Config, loadConfig, loadDotEnv } from '../config.ts';
import { Catalog } from '../gateway/catalog.ts';
import { Discovery } from '../gateway/discovery.ts';
import { openStore, type Store } from '../store/database.ts';
import { UpstreamClient } from '../upstream/client.ts';

export interface Session extends Administration {
  readonly config: Config;
  readonly store: Store;
  readonly client: UpstreamClient;
}

/**
 * Runs a command's work on the configured database, which is created and migrated if need be.
 * @throws ConfigError, StoreError, and what the work throws
 */
export async function withSession<T>(work: (session: Session) => Promise<T>): Promise<T> {
  loadDotEnv();
  const config = loadConfig();
  const store = await openStore(config.databasePath);
  const client = new UpstreamClient();
  // What matters to the caller is in the command's output.
  const logger = pino({ level: 'silent' });
  const { db } = store;
  const catalog = new Catalog({ db, providerKinds, config, logger });
  try {
    await syncEnvironmentProviders(db, providerKinds, config, { update: false });
    await catalog.load();
    const discovery = new Discovery({ catalog, db, client, config, logger });
    try {
      return await work({ db, providerKinds, catalog, discovery, config, store, client });
    } finally {
      await discovery.close();
    }
  } finally {
    await client.close();
    await store.close();
  }
}
