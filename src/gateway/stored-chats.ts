/** Remembers where a stored chat lives and whose it is, for 30 days. The chat itself stays with the upstream. */
import type { Logger } from 'pino';
import { invalidParameter } from '../chat/errors.ts';
import { type Database, timestamp } from '../store/schema.ts';
import { deleteStoredChats, findStoredChat, saveStoredChat } from '../store/stored-chats.ts';
import type { Caller } from './call.ts';

/** Where a chat is stored: follow-ups go only there. */
export interface StoredAt {
  readonly provider: string;
  readonly upstreamModel: string;
}

interface Remembered extends StoredAt {
  readonly owner: string;
  /** `YYYY-MM-DDTHH:MM:SS`, UTC */
  readonly createdAt: string;
}

const keptDays = 30;
const dayMs = 24 * 60 * 60 * 1000;

/** Chats that are older are forgotten, as `YYYY-MM-DDTHH:MM:SS`, UTC. */
const oldestKept = (): string => timestamp(new Date(Date.now() - keptDays * dayMs));

/** Chats of this process that are found without the database. */
const mostInMemory = 10_000;

/** Keys own their chats; without keys everybody who reaches the gateway is one. */
const ownerOf = (caller: Caller): string =>
  caller.keyId === undefined ? (caller.keyPrefix ?? '') : `key ${caller.keyId}`;

export class StoredChats {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #recent = new Map<string, Remembered>();
  #timer: NodeJS.Timeout | undefined;

  constructor(db: Database, log: Logger) {
    this.#db = db;
    this.#log = log;
  }

  /** Forgets what is too old, now and every day. */
  start(): void {
    const prune = (): void => {
      deleteStoredChats(this.#db, oldestKept()).catch((error: unknown) =>
        this.#log.warn({ err: error }, 'old stored chats could not be removed'),
      );
    };
    prune();
    this.#timer ??= setInterval(prune, dayMs).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** A database that fails costs only what other processes and the next start would know of it. */
  async remember(responseId: string, at: StoredAt, caller: Caller): Promise<void> {
    const owner = ownerOf(caller);
    const oldest = this.#recent.keys().next().value;
    if (this.#recent.size >= mostInMemory && oldest !== undefined) this.#recent.delete(oldest);
    const createdAt = timestamp();
    this.#recent.set(responseId, { ...at, owner, createdAt });
    try {
      const row = { provider: at.provider, upstream_model: at.upstreamModel, owner, created_at: createdAt };
      await saveStoredChat(this.#db, { response_id: responseId, ...row });
    } catch (error) {
      this.#log.warn({ err: error }, 'a stored chat could not be noted');
    }
  }

  /** @throws GatewayError INVALID_PARAMS where it is unknown, too old or another caller's */
  async find(responseId: string, caller: Caller): Promise<StoredAt> {
    const found = this.#recent.get(responseId) ?? (await this.#read(responseId));
    if (found === undefined || found.createdAt < oldestKept() || found.owner !== ownerOf(caller)) {
      throw invalidParameter('previous_response_id', `未知的 ${responseId.slice(0, 100)}`);
    }
    return found;
  }

  async #read(responseId: string): Promise<Remembered | undefined> {
    const row = await findStoredChat(this.#db, responseId);
    if (row === undefined) return undefined;
    const { provider, upstream_model, owner, created_at } = row;
    return { provider, upstreamModel: upstream_model, owner, createdAt: created_at };
  }
}
