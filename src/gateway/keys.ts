/** The API keys in memory: whose a presented key is, and what it may do. Knows hashes only, and no request. */
import { hash } from 'node:crypto';
import type { Logger } from 'pino';
import { readKeys, readKeysVersion } from '../store/keys.ts';
import type { Database, KeyRow } from '../store/schema.ts';

/** A key as calls see it. For the limits, undefined is the server's default and 0 is none. */
export interface GatewayKey {
  readonly id: number;
  readonly name: string;
  readonly prefix: string;
  readonly scope: 'inference' | 'admin';
  /** Titles that it may use; undefined: all. */
  readonly models: ReadonlySet<string> | undefined;
  readonly rpm: number | undefined;
  readonly tpm: number | undefined;
  readonly maxConcurrency: number | undefined;
  readonly dailyTokens: number | undefined;
  /** Milliseconds since 1970. */
  readonly expiresAt: number | undefined;
  readonly revoked: boolean;
}

/** What a presented key is. The caller learns only whether it is good; the log learns the rest. */
export type Presented =
  | { readonly state: 'good' | 'revoked' | 'expired'; readonly key: GatewayKey }
  | { readonly state: 'unknown' };

/** How many characters of a key its prefix has: `sk-gw-` and 6 of the 43 random ones. */
export const prefixLength = 12;

/** What a key's calls are counted by, and what queueing is fair between. */
export const callerIdOf = (keyId: number): string => `key-${keyId}`;

/** The SHA-256 of a key, as the store keeps it. */
export const hashKey = (key: string): string => hash('sha256', key, 'hex');

/** Whether a caller's key leaves it a model. Callers without a key, and the administrator, may use all. */
export function mayUse(caller: { readonly key?: GatewayKey } | undefined, title: string): boolean {
  return caller?.key?.models?.has(title) ?? true;
}

/** Another process's change is to be seen within 2 s. */
const pollIntervalMs = 1000;

export class KeyRing {
  readonly #db: Database;
  readonly #logger: Logger;
  #byHash: ReadonlyMap<string, GatewayKey> = new Map();
  #byId: ReadonlyMap<number, GatewayKey> = new Map();
  #version = -1;
  /** How many files the database has been. */
  #files = 0;
  #healthy = true;
  #timer: NodeJS.Timeout | undefined;
  #polling = false;

  constructor(db: Database, logger: Logger) {
    this.#db = db;
    this.#logger = logger;
  }

  /** @param hash as `hashKey` makes it: a look-up by the hash of 256 random bits tells nothing by its time */
  find(hash: string, now = Date.now()): Presented {
    const key = this.#byHash.get(hash);
    return key === undefined ? { state: 'unknown' } : { state: stateOf(key, now), key };
  }

  /** Whether the key of this row may go on with what it began. */
  isGood(id: number, now = Date.now()): boolean {
    const key = this.#byId.get(id);
    return key !== undefined && stateOf(key, now) === 'good';
  }

  /** Reads the keys, if any has changed. @throws whatever the database throws */
  async load(): Promise<void> {
    const file = this.#files;
    const { version, keys } = await readKeys(this.#db);
    if (version === this.#version) return;
    this.#byHash = new Map(keys.map((row) => [row.hash, toKey(row)]));
    this.#byId = new Map(Array.from(this.#byHash.values(), (key) => [key.id, key]));
    // What came from a file that was replaced meanwhile is no version of the new one.
    this.#version = file === this.#files ? version : -1;
  }

  /** Another file is the database now: its keys are read, whatever its counter says. */
  forgetVersion(): void {
    this.#files += 1;
    this.#version = -1;
    if (this.#timer !== undefined) void this.#poll();
  }

  /**
   * From now on notices what other processes change. While the database cannot be read, what is known stays in force.
   * @param onLook called after each look: a key may have been revoked, or its time have come
   */
  watch(onLook: () => void = () => {}): void {
    this.#timer ??= setInterval(() => void this.#poll().then(onLook), pollIntervalMs).unref();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #poll(): Promise<void> {
    if (this.#polling) return;
    this.#polling = true;
    try {
      if ((await readKeysVersion(this.#db)) !== this.#version) await this.load();
      if (!this.#healthy) this.#logger.info('the keys can be read again');
      this.#healthy = true;
    } catch (error) {
      if (this.#healthy) this.#logger.error({ err: error }, 'the keys cannot be read');
      this.#healthy = false;
    } finally {
      this.#polling = false;
    }
  }
}

function stateOf({ revoked, expiresAt }: GatewayKey, now: number): 'good' | 'revoked' | 'expired' {
  if (revoked) return 'revoked';
  return expiresAt !== undefined && expiresAt <= now ? 'expired' : 'good';
}

/** The titles of the column `models`; undefined where it allows all. */
export function titlesOf(models: string | null): readonly string[] | undefined {
  if (models === null) return undefined;
  const titles: unknown = JSON.parse(models);
  return Array.isArray(titles) ? titles.filter((title) => typeof title === 'string') : [];
}

function toKey(row: KeyRow): GatewayKey {
  const titles = titlesOf(row.models);
  return {
    id: row.id,
    name: row.name,
    prefix: row.prefix,
    scope: row.scope,
    models: titles === undefined ? undefined : new Set(titles),
    rpm: row.rpm ?? undefined,
    tpm: row.tpm ?? undefined,
    maxConcurrency: row.max_concurrency ?? undefined,
    dailyTokens: row.daily_tokens ?? undefined,
    expiresAt: row.expires_at === null ? undefined : Date.parse(`${row.expires_at}Z`),
    revoked: row.revoked_at !== null,
  };
}
