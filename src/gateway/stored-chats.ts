/** Remembers where a stored chat lives and whose it is, for 30 days. The chat itself stays with the upstream. */
import type { Logger } from 'pino';
import { invalidParameter } from '../chat/errors.ts';
import { type Database, type NewStoredChatRow, timestamp } from '../store/schema.ts';
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

/** From one failed attempt to write to the next. Milliseconds. */
const retryMs = 1000;

/** Keys own their chats; without keys everybody who reaches the gateway is one. */
const ownerOf = (caller: Caller): string =>
  caller.keyId === undefined ? (caller.keyPrefix ?? '') : `key ${caller.keyId}`;

export class StoredChats {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #recent = new Map<string, Remembered>();
  /** What the database would not take yet. */
  readonly #unsaved = new Map<string, NewStoredChatRow>();
  #retry: NodeJS.Timeout | undefined;
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

  /** Tries once more to write what is not written yet. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#save();
    clearTimeout(this.#retry);
  }

  /**
   * Known at once in this process; other processes and the next start know it as soon as the database takes it. Resolves
   * after the first attempt.
   */
  async remember(responseId: string, at: StoredAt, caller: Caller): Promise<void> {
    const owner = ownerOf(caller);
    const oldest = this.#recent.keys().next().value;
    if (this.#recent.size >= mostInMemory && oldest !== undefined) this.#recent.delete(oldest);
    const createdAt = timestamp();
    this.#recent.set(responseId, { ...at, owner, createdAt });
    const row = { provider: at.provider, upstream_model: at.upstreamModel, owner, created_at: createdAt };
    if (this.#unsaved.size < mostInMemory) this.#unsaved.set(responseId, { response_id: responseId, ...row });
    // While an attempt is due anyway, the database is known to fail.
    if (this.#retry === undefined) await this.#save();
  }

  async #save(): Promise<void> {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    for (const [id, row] of [...this.#unsaved]) {
      try {
        await saveStoredChat(this.#db, row);
        this.#unsaved.delete(id);
      } catch (error) {
        this.#log.warn(
          { err: error, waiting: this.#unsaved.size },
          'stored chats could not be noted; they wait in memory',
        );
        this.#retry ??= setTimeout(() => void this.#save(), retryMs).unref();
        return;
      }
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
