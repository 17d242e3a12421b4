/** The catalog in memory: which model is which, and where it can be called. Knows the store's rows, no provider's wire. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { ProviderKind } from '../chat/adapter.ts';
import { type Config, mayHoldProviderKey, type Timeouts } from '../config.ts';
import { type CatalogRows, readCatalog, readCatalogVersion } from '../store/catalog.ts';
import type { Database, ModelRow, ProviderRow, RouteRow } from '../store/schema.ts';

/** A model as GET /api/llm/models shows it: exactly these keys. */
export interface ModelCard {
  readonly id: number;
  readonly title: string;
  readonly img: string;
  readonly name: string;
  readonly description: string;
  readonly keyword: string;
  readonly time: string;
  readonly tag1: string;
  readonly tag2: string;
  readonly type: number;
  readonly is_featured: boolean;
  readonly created_at: string;
  readonly updated_at: string;
}

export interface CatalogProvider {
  readonly id: number;
  readonly key: string;
  readonly kind: ProviderKind;
  /** The row's own name, else the kind's. */
  readonly displayName: string;
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
  /** The environment variable that holds its key. */
  readonly apiKeyEnv: string | undefined;
  /** PROVIDER_KEY_ENV does not let it have that variable. */
  readonly apiKeyEnvRefused: boolean;
  /** Its kind needs a key and none is set, or it may not have its variable: its models are not listed, and calls are a 401 that names it. */
  readonly missingCredential: boolean;
  readonly enabled: boolean;
  /** 0 = unlimited; undefined = what the kind says. */
  readonly maxConcurrency: number | undefined;
  readonly maxQueue: number;
  readonly abortGraceMs: number;
  /** Names of request fields that it gets though the gateway does not know them; `*`: see chat/passthrough.ts. */
  readonly passthrough: readonly string[];
  /** What the row overrides of the configured limits. */
  readonly timeouts: Partial<Timeouts>;
}

export interface CatalogRoute {
  readonly id: number;
  readonly provider: CatalogProvider;
  readonly upstreamModel: string;
  readonly api: string;
  readonly priority: number;
  readonly weight: number;
  readonly timeouts: Partial<Timeouts>;
}

export interface CatalogModel {
  readonly card: ModelCard;
  readonly contextLength: number | undefined;
  readonly maxOutputTokens: number | undefined;
  /** Enabled routes to enabled providers that have not vanished; a provider may still lack its key. By priority, then id. */
  readonly routes: readonly CatalogRoute[];
  /** Enabled, with a route whose provider does not lack its key. What is not available is not listed. */
  readonly available: boolean;
}

export interface CatalogDependencies {
  readonly db: Database;
  readonly providerKinds: ReadonlyMap<string, ProviderKind>;
  readonly config: Pick<Config, 'secret' | 'providerKeyEnv'>;
  readonly logger: Logger;
}

/** Requests that wait for one provider's free slot before the next is refused, where its row says nothing. */
const defaultMaxQueue = 256;

/** Another process's change is to be seen within 2 s. */
const pollIntervalMs = 1000;

interface Snapshot {
  readonly version: number;
  /** By row id. */
  readonly providers: readonly CatalogProvider[];
  readonly providerById: ReadonlyMap<number, CatalogProvider>;
  readonly models: ReadonlyMap<string, CatalogModel>;
  /** The available ones, in the order in which they are shown. */
  readonly available: readonly CatalogModel[];
}

const empty: Snapshot = {
  version: -1,
  providers: [],
  providerById: new Map(),
  models: new Map(),
  available: [],
};

/** One immutable snapshot at a time, replaced as a whole when the database has changed. */
export class Catalog {
  readonly #dependencies: CatalogDependencies;
  readonly #listeners = new Set<() => void>();
  readonly #unknownKinds = new Set<string>();
  #snapshot = empty;
  /** How many files the database has been, and which of them the snapshot is of. */
  #files = 0;
  #fileOfSnapshot = 0;
  /** The last of the loads that were asked for, which run one after the other. */
  #loading: Promise<void> | undefined;
  #healthy = false;
  #timer: NodeJS.Timeout | undefined;
  #polling = false;

  constructor(dependencies: CatalogDependencies) {
    this.#dependencies = dependencies;
  }

  /** Whether there has been a snapshot yet. */
  get loaded(): boolean {
    return this.#snapshot !== empty;
  }

  /** Whether the last look at the database succeeded. */
  get healthy(): boolean {
    return this.#healthy;
  }

  /**
   * Reads the database and, if it has changed, replaces the snapshot, which holds all that was written before this was called.
   * @throws whatever the database throws
   */
  load(): Promise<void> {
    const before = this.#loading?.catch(() => {}) ?? Promise.resolve();
    const loading = before.then(() => this.#read());
    this.#loading = loading;
    return loading;
  }

  async #read(): Promise<void> {
    const { db } = this.#dependencies;
    try {
      const isCurrent = this.loaded && this.#isCurrent(await readCatalogVersion(db));
      const file = this.#files;
      const rows = isCurrent ? undefined : await readCatalog(db);
      this.#setHealth(undefined);
      if (rows === undefined) return;
      this.#snapshot = await buildSnapshot(rows, this.#dependencies, this.#unknownKinds);
      this.#fileOfSnapshot = file;
    } catch (error) {
      this.#setHealth(error);
      throw error;
    }
    for (const listener of this.#listeners) listener();
  }

  #isCurrent(version: number): boolean {
    return version === this.#snapshot.version && this.#fileOfSnapshot === this.#files;
  }

  /** Another file is the database now: it is read, whatever its counter says. */
  forgetVersion(): void {
    this.#files += 1;
    if (this.#timer !== undefined) void this.#poll();
  }

  /** A model that can be called, or could be if its provider had its key; disabled and vanished ones are not found. */
  find(title: string): CatalogModel | undefined {
    return this.#snapshot.models.get(title);
  }

  /** What is available, featured first, then by id. */
  list(type?: number): readonly CatalogModel[] {
    const { available } = this.#snapshot;
    return type === undefined ? available : available.filter((model) => model.card.type === type);
  }

  /** All providers of known kinds, disabled ones too, by id. */
  providers(): readonly CatalogProvider[] {
    return this.#snapshot.providers;
  }

  /** The provider of that row id, disabled or not. */
  provider(id: number): CatalogProvider | undefined {
    return this.#snapshot.providerById.get(id);
  }

  /** Calls back after each replacement of the snapshot. Returns what ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** From now on notices what other processes change. */
  watch(): void {
    this.#timer ??= setInterval(() => void this.#poll(), pollIntervalMs).unref();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#listeners.clear();
  }

  async #poll(): Promise<void> {
    if (this.#polling) return;
    this.#polling = true;
    try {
      const version = await readCatalogVersion(this.#dependencies.db);
      if (this.#isCurrent(version)) this.#setHealth(undefined);
      else await this.load();
    } catch (error) {
      this.#setHealth(error);
    } finally {
      this.#polling = false;
    }
  }

  #setHealth(error: unknown): void {
    const healthy = error === undefined;
    const { logger } = this.#dependencies;
    if (!healthy && this.#healthy) logger.error({ err: error }, 'the catalog cannot be read');
    if (healthy && !this.#healthy && this.loaded) logger.info('the catalog can be read again');
    this.#healthy = healthy;
  }
}

/** Models that are made in one turn of the event loop: some 5 ms. */
const modelsAtOnce = 2000;

async function buildSnapshot(
  rows: CatalogRows,
  { providerKinds, config, logger }: CatalogDependencies,
  unknownKinds: Set<string>,
): Promise<Snapshot> {
  const providers = new Map<number, CatalogProvider>();
  for (const row of rows.providers) {
    const kind = providerKinds.get(row.kind);
    if (kind !== undefined) {
      providers.set(row.id, toProvider(row, kind, config));
    } else if (!unknownKinds.has(row.kind)) {
      unknownKinds.add(row.kind);
      logger.warn({ provider: row.key, kind: row.kind }, 'a provider of an unknown kind is left out');
    }
  }
  const routesByModel = new Map<number, RouteRow[]>();
  for (const route of rows.routes) {
    const siblings = routesByModel.get(route.model_id);
    if (siblings === undefined) routesByModel.set(route.model_id, [route]);
    else siblings.push(route);
  }
  const models = new Map<string, CatalogModel>();
  for (const [index, row] of rows.models.entries()) {
    if (index > 0 && index % modelsAtOnce === 0) await nextTurn();
    const routes = row.enabled === 1 ? toRoutes(routesByModel.get(row.id) ?? [], providers) : [];
    if (routes.length > 0) models.set(row.title, toModel(row, routes));
  }
  // The rows come by id.
  const available = [...models.values()].filter((model) => model.available);
  return {
    version: rows.version,
    providers: [...providers.values()],
    providerById: providers,
    models,
    available: [
      ...available.filter(({ card }) => card.is_featured),
      ...available.filter(({ card }) => !card.is_featured),
    ],
  };
}

function toProvider(
  row: ProviderRow,
  kind: ProviderKind,
  config: CatalogDependencies['config'],
): CatalogProvider {
  const refused = row.api_key_env !== null && !mayHoldProviderKey(row.api_key_env, config.providerKeyEnv);
  const apiKey = row.api_key_env === null ? undefined : config.secret(row.api_key_env)?.reveal();
  return {
    id: row.id,
    key: row.key,
    kind,
    displayName: row.name === '' ? kind.displayName : row.name,
    baseUrl: row.base_url,
    apiKey,
    apiKeyEnv: row.api_key_env ?? undefined,
    apiKeyEnvRefused: refused,
    missingCredential: refused || (kind.credential === 'required' && apiKey === undefined),
    enabled: row.enabled === 1,
    maxConcurrency: row.max_concurrency ?? undefined,
    maxQueue: row.max_queue ?? defaultMaxQueue,
    abortGraceMs: row.abort_grace_ms ?? kind.abortGraceMs,
    passthrough: readNames(row.passthrough),
    timeouts: toTimeouts(row),
  };
}

/** The names in a column that holds a JSON list of them. */
export function readNames(column: string): readonly string[] {
  const names: unknown = JSON.parse(column);
  return Array.isArray(names) ? names.filter((name) => typeof name === 'string') : [];
}

function toRoutes(
  rows: readonly RouteRow[],
  providers: ReadonlyMap<number, CatalogProvider>,
): CatalogRoute[] {
  const routes: CatalogRoute[] = [];
  for (const row of rows) {
    const provider = providers.get(row.provider_id);
    if (row.enabled === 0 || row.vanished === 1 || provider?.enabled !== true) continue;
    routes.push({
      id: row.id,
      provider,
      upstreamModel: row.upstream_model,
      api: row.api,
      priority: row.priority,
      weight: row.weight,
      timeouts: toTimeouts(row),
    });
  }
  return routes.sort((a, b) => a.priority - b.priority || a.id - b.id);
}

function toModel(row: ModelRow, routes: readonly CatalogRoute[]): CatalogModel {
  return {
    card: {
      id: row.id,
      title: row.title,
      img: row.img,
      name: row.name,
      description: row.description,
      keyword: row.keyword,
      time: row.time,
      tag1: row.tag1,
      tag2: row.tag2,
      type: row.type,
      is_featured: row.is_featured === 1,
      created_at: row.created_at,
      updated_at: row.updated_at,
    },
    contextLength: row.context_length ?? undefined,
    maxOutputTokens: row.max_output_tokens ?? undefined,
    routes,
    available: routes.some((route) => !route.provider.missingCredential),
  };
}

function toTimeouts(row: ProviderRow | RouteRow): Partial<Timeouts> {
  return {
    ...(row.connect_timeout_ms === null ? {} : { connectMs: row.connect_timeout_ms }),
    ...(row.first_event_timeout_ms === null ? {} : { firstEventMs: row.first_event_timeout_ms }),
    ...(row.idle_timeout_ms === null ? {} : { idleMs: row.idle_timeout_ms }),
    ...(row.total_timeout_ms === null ? {} : { totalMs: row.total_timeout_ms }),
  };
}
