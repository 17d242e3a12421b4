/** The OpenAPI document as text, from the real application over an empty database in memory. */
import { pino } from 'pino';
import { providerKinds } from './adapters/index.ts';
import { buildApp } from './app.ts';
import { loadConfig } from './config.ts';
import { Admission } from './gateway/admission.ts';
import { Allowances } from './gateway/allowances.ts';
import { Breakers } from './gateway/breaker.ts';
import { Catalog } from './gateway/catalog.ts';
import { Discovery } from './gateway/discovery.ts';
import { Engine } from './gateway/engine.ts';
import { KeyRing } from './gateway/keys.ts';
import { joinObservers } from './gateway/observer.ts';
import type { Candidate } from './gateway/routing.ts';
import { StoredChats } from './gateway/stored-chats.ts';
import { openStore } from './store/database.ts';
import { UpstreamClient } from './upstream/client.ts';

/** Pretty-printed JSON with a final line break; the same for every environment. */
export async function buildOpenApi(): Promise<string> {
  const config = loadConfig({});
  const log = pino({ level: 'silent' });
  const store = await openStore(':memory:');
  const client = new UpstreamClient();
  const catalog = new Catalog({ db: store.db, providerKinds, config, logger: log });
  const discovery = new Discovery({ catalog, db: store.db, client, config, logger: log });
  const breakers = new Breakers(async (provider) => {
    await discovery.refresh(provider);
    return discovery.state(provider).reachability === 'up';
  }, log);
  const storedChats = new StoredChats(store.db, log);
  const observer = joinObservers([]);
  const engine = new Engine({
    observer,
    breakers,
    storedChats,
    catalog,
    discovery,
    client,
    admission: new Admission<Candidate>(),
    config,
    log,
  });
  const { http } = await buildApp({
    config,
    catalog,
    discovery,
    engine,
    keys: new KeyRing(store.db, log),
    allowances: new Allowances(config.rateLimitRpm),
    administration: { db: store.db, providerKinds, catalog, discovery, client, config },
    log,
    isDraining: () => false,
    isDatabaseHealthy: () => true,
    metrics: { contentType: 'text/plain', text: async () => '' },
    observer,
  });
  try {
    await http.ready();
    return `${JSON.stringify(http.swagger(), null, 2)}\n`;
  } finally {
    await http.close();
    await discovery.close();
    await client.close();
    await store.close();
  }
}
