/** Keeps a row of every ended call until it is on the disk, whatever state the disk is in. Knows no HTTP and no SQL. */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { NewUsageRow } from '../store/schema.ts';
import { UsageBusy, type UsageWriter } from '../store/usage.ts';
import { type Call, shortName } from './call.ts';
import { estimateUsage } from './estimate.ts';
import type { EndedCall, Observer } from './observer.ts';
import { utcTime } from './utc-time.ts';

export interface MeterDependencies {
  readonly writer: Pick<UsageWriter, 'write' | 'deleteBefore'>;
  /** Whether what is written now would still be found later: the database's file stands where it should. */
  readonly follow: () => Promise<boolean>;
  readonly log: Logger;
  /** Rows older than this are deleted; 0 keeps them for ever. */
  readonly retentionDays: number;
  /** Rows that wait at most, by default 50,000 (about 30 MB). The oldest give way. */
  readonly capacity?: number;
}

/**
 * From a call's end to the attempt to write its row; the contract allows 500. Nothing else runs meanwhile, so that from the first
 * of these times on the end of another call is waited for: behind an answer, nobody is likely to wait. Milliseconds.
 */
const flushAfterMs = 150;
const flushAtLatestMs = 200;

/** Rows of one transaction: about 4 ms in which nothing else runs. */
const batchSize = 500;

/** From one failed attempt to the next: short where somebody only holds the lock. Milliseconds. */
const retryBusyMs = 50;
const retryBrokenMs = 1000;

/** A lock that is held for longer than this is a fault and not a neighbour. Milliseconds. */
const patienceMs = 1000;

const followEveryMs = 1000;
const pruneEveryMs = 3_600_000;
const pruneBatch = 500;

/** While the buffer is full, its losses are told no more often than this. Milliseconds. */
const lossReportEveryMs = 10_000;

/** How long the last rows are tried for at the end of the process. Milliseconds. */
const lastTriesMs = 3000;

/**
 * The facts of an ended call as its row. Where the upstream did not report its counts `exact` is 0, and they are what was
 * delivered, estimated, or null where nothing was; a call that reached no upstream used exactly nothing.
 */
function usageRow(call: Call, status: number): NewUsageRow {
  const { caller } = call;
  const exact = call.usage ?? (call.attempts === 0 ? { input_tokens: 0, output_tokens: 0 } : null);
  const usage = exact ?? estimateUsage(call);
  return {
    request_id: call.requestId,
    time: utcTime(call.startedAt),
    key_id: caller.keyId ?? null,
    key_name: caller.keyName ?? null,
    key_prefix: caller.keyPrefix ?? null,
    user: call.user === undefined ? null : shortName(call.user),
    model: shortName(call.model),
    provider: call.provider ?? null,
    upstream_model: call.upstreamModel === undefined ? null : shortName(call.upstreamModel),
    endpoint: call.endpoint,
    stream: call.stream ? 1 : 0,
    status,
    ending: call.ending ?? 'error',
    input_tokens: usage?.input_tokens ?? null,
    output_tokens: usage?.output_tokens ?? null,
    reasoning_tokens: call.reasoningTokens ?? null,
    exact: exact === null ? 0 : 1,
    queued_ms: Math.round(call.queuedMs),
    first_token_ms: call.firstTokenMs === undefined ? null : Math.round(call.firstTokenMs),
    duration_ms: Math.round(call.elapsedMs),
    attempts: call.attempts,
  };
}

/** Buffers rows and writes them in batches. One for the process; `close()` writes what is left. */
export class Meter implements Partial<Observer> {
  readonly #deps: MeterDependencies;
  readonly #capacity: number;
  #rows: NewUsageRow[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** When the next end of a call is a good time to write. Milliseconds, of the process's clock. */
  #ripeAt = Number.POSITIVE_INFINITY;
  #followTimer: NodeJS.Timeout | undefined;
  #pruneTimer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #pruning: Promise<void> | undefined;
  #healthy = true;
  #busySince: number | undefined;
  #closed = false;
  #dropped = 0;
  #droppedTold = 0;
  #lossReportedAt = Number.NEGATIVE_INFINITY;

  constructor(deps: MeterDependencies) {
    this.#deps = deps;
    this.#capacity = deps.capacity ?? 50_000;
  }

  /** Whether rows reach the disk, as far as the last attempts tell. */
  get healthy(): boolean {
    return this.#healthy;
  }

  /** Rows that wait for the disk. */
  get buffered(): number {
    return this.#rows.length;
  }

  /** Rows that gave way to newer ones since the start, and are lost. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Starts to watch the database's file, and to delete what is too old. */
  start(): void {
    this.#followTimer ??= setInterval(() => void this.#check(), followEveryMs).unref();
    if (this.#deps.retentionDays === 0 || this.#pruneTimer !== undefined) return;
    this.#pruneTimer = setInterval(() => this.#startPruning(), pruneEveryMs).unref();
    this.#startPruning();
  }

  /** Takes ended calls. Their rows are on the disk within 500 ms, if the disk is well. */
  callsEnded(ended: readonly EndedCall[]): void {
    for (const { call, status } of ended) this.#rows.push(usageRow(call, status));
    while (this.#rows.length > this.#capacity) this.#makeRoom();
    if (performance.now() >= this.#ripeAt) void this.flush();
    else this.#schedule(flushAtLatestMs, flushAfterMs);
  }

  /** Writes what waits now, as far as possible. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#ripeAt = Number.POSITIVE_INFINITY;
    this.#flushing ??= this.#writeAll()
      .finally(() => {
        this.#flushing = undefined;
      })
      .then((nextMs) => {
        if (this.#rows.length > 0) this.#schedule(nextMs);
      });
    return this.#flushing;
  }

  /** Writes the rest; a database that stays broken for 3 s loses it, with a count in the log. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of [this.#timer, this.#followTimer, this.#pruneTimer]) clearTimeout(timer);
    await this.#pruning;
    const deadline = performance.now() + lastTriesMs;
    await this.flush();
    while (this.#rows.length > 0 && performance.now() < deadline) {
      await sleep(retryBusyMs);
      await this.flush();
    }
    const lost = this.#rows.splice(0).length;
    if (lost > 0) this.#deps.log.error({ rows: lost }, 'usage rows are lost');
  }

  /** @param ripeAfterMs from when on the end of a call may be taken for it; a failed attempt has its own time */
  #schedule(atLatestMs: number, ripeAfterMs = Number.POSITIVE_INFINITY): void {
    if (this.#timer !== undefined || this.#flushing !== undefined || this.#closed) return;
    this.#ripeAt = performance.now() + ripeAfterMs;
    this.#timer = setTimeout(() => void this.flush(), atLatestMs);
  }

  /** @returns after how many milliseconds to go on, if rows are left */
  async #writeAll(): Promise<number> {
    try {
      if (!(await this.#deps.follow())) throw new Error('the database file is gone');
      while (this.#rows.length > 0) {
        const batch = this.#rows.slice(0, batchSize);
        this.#deps.writer.write(batch);
        this.#rows.splice(0, batch.length);
        if (this.#rows.length > 0) await nextTurn();
      }
      this.#setHealth(undefined);
      return flushAtLatestMs;
    } catch (error) {
      const isBusy = error instanceof UsageBusy;
      if (!isBusy || this.#isTooBusy()) this.#setHealth(error);
      return isBusy ? retryBusyMs : retryBrokenMs;
    }
  }

  #isTooBusy(): boolean {
    const now = performance.now();
    this.#busySince ??= now;
    return now - this.#busySince >= patienceMs;
  }

  async #check(): Promise<void> {
    try {
      if (!(await this.#deps.follow())) this.#setHealth(new Error('the database file is gone'));
      else if (this.#rows.length === 0) this.#setHealth(undefined);
    } catch (error) {
      this.#setHealth(error);
    }
  }

  #setHealth(error: unknown): void {
    const healthy = error === undefined;
    if (healthy) this.#busySince = undefined;
    const { log } = this.#deps;
    if (!healthy && this.#healthy)
      log.error({ err: error }, 'usage rows cannot be written; they wait in memory');
    if (healthy && !this.#healthy) log.info('usage rows are written again');
    this.#healthy = healthy;
  }

  /** The oldest fiftieth goes at once: one by one, each would move all the others. */
  #makeRoom(): void {
    const surplus = Math.max(1, Math.floor(this.#capacity / 50));
    this.#rows.splice(0, surplus);
    this.#dropped += surplus;
    const now = performance.now();
    if (now - this.#lossReportedAt < lossReportEveryMs) return;
    this.#lossReportedAt = now;
    this.#deps.log.warn(
      { dropped: this.#dropped - this.#droppedTold, droppedInAll: this.#dropped },
      'the buffer of usage rows is full; the oldest are lost',
    );
    this.#droppedTold = this.#dropped;
  }

  #startPruning(): void {
    this.#pruning ??= this.#prune().finally(() => {
      this.#pruning = undefined;
    });
  }

  /** In small steps, so that traffic goes on between them. */
  async #prune(): Promise<void> {
    const before = new Date(Date.now() - this.#deps.retentionDays * 86_400_000).toISOString().slice(0, -1);
    while (!this.#closed) {
      try {
        if (this.#deps.writer.deleteBefore(before, pruneBatch) === 0) return;
      } catch (error) {
        if (!(error instanceof UsageBusy)) {
          // The next hour tries again.
          this.#deps.log.warn({ err: error }, 'old usage rows could not be deleted');
          return;
        }
      }
      await sleep(retryBusyMs);
    }
  }
}
