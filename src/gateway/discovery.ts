/** Keeps asking the providers what they have: their live state, and through it the catalog. Never loads a model. */
import type { Logger } from 'pino';
import type { ModelInfo } from '../chat/adapter.ts';
import type { Config } from '../config.ts';
import type { Database } from '../store/schema.ts';
import type { UpstreamClient } from '../upstream/client.ts';
import type { Catalog, CatalogProvider } from './catalog.ts';
import { type Enrolment, enrolModels, noEnrolment } from './enrolment.ts';
import { fetchListing } from './listing.ts';

/** What a provider last told of itself. While it is down, what it told before stays. */
export interface ProviderState {
  readonly reachability: 'untested' | 'up' | 'down';
  /** The wires that it answers on; undefined as long as it never answered. */
  readonly apis: readonly string[] | undefined;
  /** By the name that the provider gives them. */
  readonly models: ReadonlyMap<string, ModelInfo>;
  /** Milliseconds since 1970; undefined as long as it was never asked. */
  readonly checkedAt: number | undefined;
  /** One line, without addresses and keys; undefined while it is up. */
  readonly lastError: string | undefined;
}

/** One provider's refresh: what it answered and what that changed in the catalog. */
export interface Refreshed extends Enrolment {
  readonly provider: CatalogProvider;
  readonly state: ProviderState;
}

export interface DiscoveryDependencies {
  readonly catalog: Catalog;
  readonly db: Database;
  readonly client: UpstreamClient;
  readonly config: Pick<Config, 'timeouts'>;
  readonly logger: Logger;
  /** Milliseconds from one list to the next; by default 30000, and 5000 while the provider is down. */
  readonly intervals?: { readonly upMs: number; readonly downMs: number };
}

const defaultIntervals = { upMs: 30_000, downMs: 5000 };
/** Providers that are asked at once, where all of them are. */
const mostAskedAtOnce = 64;

const unknownTitleIntervalMs = 2000;
const unknownTitleWaitMs = 1000;

const untested: ProviderState = {
  reachability: 'untested',
  apis: undefined,
  models: new Map(),
  checkedAt: undefined,
  lastError: undefined,
};

/** A provider as it is configured now. Another address, key or kind makes a new one, so that nothing old is believed. */
interface Watched {
  provider: CatalogProvider;
  state: ProviderState;
  readonly ended: AbortController;
  running: Promise<Refreshed> | undefined;
  timer: NodeJS.Timeout | undefined;
}

export class Discovery {
  readonly #dependencies: DiscoveryDependencies;
  readonly #intervals: { readonly upMs: number; readonly downMs: number };
  readonly #watched = new Map<string, Watched>();
  readonly #running = new Set<Promise<Refreshed>>();
  readonly #listeners = new Set<() => void>();
  #started = false;
  #unsubscribe: (() => void) | undefined;
  #unknownSearch: Promise<unknown> | undefined;
  #unknownSearchedAt = Number.NEGATIVE_INFINITY;

  constructor(dependencies: DiscoveryDependencies) {
    this.#dependencies = dependencies;
    this.#intervals = dependencies.intervals ?? defaultIntervals;
    this.#followCatalog();
    this.#unsubscribe = dependencies.catalog.onChange(() => this.#followCatalog());
  }

  /** Starts the loops. Resolves when every provider was asked once; how long to wait for that is the caller's choice. */
  async start(): Promise<void> {
    this.#started = true;
    await this.refresh();
  }

  /** Told whenever a provider has listed its models: how many calls they take at once may have changed. */
  onAnswer(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** A provider as it is configured now, by its key. */
  provider(key: string): CatalogProvider | undefined {
    return this.#watched.get(key)?.provider;
  }

  /** The live state of a provider, by its key. */
  state(key: string): ProviderState {
    return this.#watched.get(key)?.state ?? untested;
  }

  /** What the provider's last list said of a model. */
  info(providerKey: string, upstreamModel: string): ModelInfo | undefined {
    return this.#watched.get(providerKey)?.state.models.get(upstreamModel);
  }

  /**
   * Asks one provider (whatever its kind, and disabled or not), or all that are discovered. A question that is already
   * under way is shared. Never rejects: what went wrong is in the states.
   */
  async refresh(key?: string): Promise<readonly Refreshed[]> {
    const chosen = [...this.#watched.values()].filter((watched) =>
      key === undefined ? isDiscovered(watched.provider) : watched.provider.key === key,
    );
    return this.#refreshAll(chosen);
  }

  /** Some at a time: the answers of a thousand would come together, and nothing else would be served meanwhile. */
  async #refreshAll(chosen: readonly Watched[]): Promise<readonly Refreshed[]> {
    const refreshed = new Array<Refreshed | undefined>(chosen.length).fill(undefined);
    const left = chosen.entries();
    const work = async (): Promise<void> => {
      for (const [index, watched] of left) {
        if (!watched.ended.signal.aborted) refreshed[index] = await this.#refresh(watched);
      }
    };
    await Promise.all(Array.from({ length: Math.min(mostAskedAtOnce, chosen.length) }, work));
    return refreshed.filter((one) => one !== undefined);
  }

  /** Looks once for a title that the catalog lacks: at most every 2 s, shared by all callers, waited for at most 1 s. */
  async discoverUnknown(): Promise<void> {
    if (this.#unknownSearch === undefined) {
      const now = performance.now();
      if (now - this.#unknownSearchedAt < unknownTitleIntervalMs) return;
      this.#unknownSearchedAt = now;
      this.#unknownSearch = this.refresh().finally(() => {
        this.#unknownSearch = undefined;
      });
    }
    let timer: NodeJS.Timeout | undefined;
    const waited = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, unknownTitleWaitMs);
    });
    await Promise.race([this.#unknownSearch, waited]);
    clearTimeout(timer);
  }

  /** Ends the loops and what is under way. Resolves when nothing touches the database any more. */
  async close(): Promise<void> {
    this.#unsubscribe?.();
    for (const watched of this.#watched.values()) end(watched);
    await Promise.allSettled(this.#running);
  }

  #followCatalog(): void {
    const current = new Map(
      this.#dependencies.catalog.providers().map((provider) => [provider.key, provider]),
    );
    for (const [key, watched] of this.#watched) {
      const provider = current.get(key);
      if (provider !== undefined && isSame(provider, watched.provider)) {
        watched.provider = provider;
      } else {
        end(watched);
        this.#watched.delete(key);
      }
    }
    const begun: Watched[] = [];
    for (const [key, provider] of current) {
      if (this.#watched.has(key)) continue;
      const ended = new AbortController();
      const watched: Watched = { provider, state: untested, ended, running: undefined, timer: undefined };
      this.#watched.set(key, watched);
      if (this.#started && isDiscovered(provider)) begun.push(watched);
    }
    void this.#refreshAll(begun);
  }

  #refresh(watched: Watched): Promise<Refreshed> {
    if (watched.running === undefined) {
      clearTimeout(watched.timer);
      const running = this.#ask(watched).finally(() => {
        watched.running = undefined;
        this.#running.delete(running);
        this.#schedule(watched);
      });
      watched.running = running;
      this.#running.add(running);
    }
    return watched.running;
  }

  #schedule(watched: Watched): void {
    if (!this.#started || watched.ended.signal.aborted || !isDiscovered(watched.provider)) return;
    const { upMs, downMs } = this.#intervals;
    const delay = watched.state.reachability === 'up' ? upMs : downMs;
    watched.timer = setTimeout(() => void this.#refresh(watched), delay).unref();
  }

  async #ask(watched: Watched): Promise<Refreshed> {
    const { client, config } = this.#dependencies;
    const { provider } = watched;
    const { signal } = watched.ended;
    const connectMs = provider.timeouts.connectMs ?? config.timeouts.connectMs;
    const listed = await fetchListing(client, provider, connectMs, signal);
    if (signal.aborted) return { provider, state: watched.state, ...noEnrolment };
    const before = watched.state;
    const checkedAt = Date.now();
    if (!listed.ok) {
      watched.state = { ...before, reachability: 'down', checkedAt, lastError: listed.error };
      this.#report(provider, before, watched.state);
      return { provider, state: watched.state, ...noEnrolment };
    }
    const models = new Map(listed.models.map((info) => [info.id, info]));
    watched.state = { reachability: 'up', apis: listed.apis, models, checkedAt, lastError: undefined };
    this.#report(provider, before, watched.state);
    for (const listener of this.#listeners) listener();
    return { provider, state: watched.state, ...(await this.#enrol(provider, listed.models)) };
  }

  async #enrol(provider: CatalogProvider, models: readonly ModelInfo[]): Promise<Enrolment> {
    if (!isDiscovered(provider)) return noEnrolment;
    const { db, catalog, logger } = this.#dependencies;
    try {
      const enrolment = await enrolModels(db, provider, models);
      if (enrolment !== noEnrolment) {
        logger.info({ provider: provider.key, ...enrolment }, 'the models of a provider have changed');
        await catalog.load();
      }
      return enrolment;
    } catch (error) {
      // Traffic goes on from memory; the next round tries again.
      logger.warn({ provider: provider.key, err: error }, 'discovered models could not be written');
      return noEnrolment;
    }
  }

  #report(provider: CatalogProvider, before: ProviderState, now: ProviderState): void {
    const { logger } = this.#dependencies;
    if (before.reachability === now.reachability && before.lastError === now.lastError) return;
    const facts = { provider: provider.key, baseUrl: provider.baseUrl };
    if (now.reachability === 'up') {
      logger.info({ ...facts, apis: now.apis, models: now.models.size }, 'provider answers');
    } else {
      logger.warn(
        { ...facts, error: now.lastError },
        'provider does not answer; is its server running, and is its address right?',
      );
    }
  }
}

function isDiscovered(provider: CatalogProvider): boolean {
  return provider.enabled && provider.kind.discovers && !provider.missingCredential;
}

function isSame(a: CatalogProvider, b: CatalogProvider): boolean {
  return (
    a.id === b.id &&
    a.kind === b.kind &&
    a.baseUrl === b.baseUrl &&
    a.apiKey === b.apiKey &&
    a.enabled === b.enabled
  );
}

function end(watched: Watched): void {
  clearTimeout(watched.timer);
  watched.ended.abort();
}
