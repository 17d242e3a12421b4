/** Writes and deletes the rows of `usage` and the sums of `usage_hours`, both in one transaction. Knows no call. */
import { randomUUID } from 'node:crypto';
import type SqliteDatabase from 'better-sqlite3';
import { busyTimeoutMs } from './database.ts';
import type { NewUsageRow, UsageHoursTable } from './schema.ts';

/** Somebody else holds the lock, or a transaction of this process is open: the same rows can be written a moment later. */
export class UsageBusy extends Error {}

const columns = [
  'request_id',
  'time',
  'key_id',
  'key_name',
  'key_prefix',
  'user',
  'model',
  'provider',
  'upstream_model',
  'endpoint',
  'stream',
  'status',
  'ending',
  'input_tokens',
  'output_tokens',
  'reasoning_tokens',
  'exact',
  'queued_ms',
  'first_token_ms',
  'duration_ms',
  'attempts',
] as const satisfies readonly (keyof NewUsageRow)[];

/** In the order of `columns`. By position: SQLite's binding looks every name up anew for every row, which doubles its cost. */
const valuesOf = (row: NewUsageRow) => [
  row.request_id,
  row.time,
  row.key_id ?? null,
  row.key_name ?? null,
  row.key_prefix ?? null,
  row.user ?? null,
  row.model,
  row.provider ?? null,
  row.upstream_model ?? null,
  row.endpoint,
  row.stream,
  row.status,
  row.ending,
  row.input_tokens ?? null,
  row.output_tokens ?? null,
  row.reasoning_tokens ?? null,
  row.exact,
  row.queued_ms,
  row.first_token_ms ?? null,
  row.duration_ms,
  row.attempts,
];

const insertRow = `INSERT INTO usage (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})
ON CONFLICT (request_id) DO NOTHING`;

const sums = [
  'requests',
  'exact',
  'input_tokens',
  'output_tokens',
  'reasoning_tokens',
  'attempts',
  'queued_ms',
  'duration_ms',
  'first_tokens',
  'first_token_ms',
] as const satisfies readonly (keyof UsageHoursTable)[];

const hourKeys = [
  'hour',
  'key',
  'user',
  'model',
  'provider',
  'ending',
] as const satisfies readonly (keyof UsageHoursTable)[];

const addToHour = `INSERT INTO usage_hours (${[...hourKeys, ...sums].join(', ')})
VALUES (${[...hourKeys, ...sums].map((name) => `@${name}`).join(', ')})
ON CONFLICT (${hourKeys.join(', ')}) DO UPDATE SET ${sums.map((name) => `${name} = ${name} + excluded.${name}`).join(', ')}`;

const deleteRows =
  'DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE time < @before ORDER BY time LIMIT @limit)';
const deleteOldestHour =
  'DELETE FROM usage_hours WHERE hour = (SELECT min(hour) FROM usage_hours) AND hour < @before';

/** How reports name a key: its name and how it begins; empty where there was none. */
function keyLabel(row: Pick<NewUsageRow, 'key_name' | 'key_prefix'>): string {
  const prefix = row.key_prefix ?? '';
  return row.key_name === null || row.key_name === undefined ? prefix : `${row.key_name} (${prefix})`;
}

const hourOf = ({ time }: NewUsageRow): string => time.slice(0, 13);

/** Whether two rows are of one group, without putting its name together. */
const isAlike = (one: NewUsageRow, other: NewUsageRow): boolean =>
  one.model === other.model &&
  one.ending === other.ending &&
  one.key_prefix === other.key_prefix &&
  one.key_name === other.key_name &&
  one.user === other.user &&
  one.provider === other.provider &&
  hourOf(one) === hourOf(other);

function groupOf(row: NewUsageRow, groups: Map<string, UsageHoursTable>): UsageHoursTable {
  const hour = hourOf(row);
  const key = keyLabel(row);
  const user = row.user ?? '';
  const provider = row.provider ?? '';
  const id = `${hour}\n${key}\n${user}\n${row.model}\n${provider}\n${row.ending}`;
  const known = groups.get(id);
  if (known !== undefined) return known;
  const group: UsageHoursTable = {
    hour,
    key,
    user,
    model: row.model,
    provider,
    ending: row.ending,
    requests: 0,
    exact: 0,
    input_tokens: 0,
    output_tokens: 0,
    reasoning_tokens: 0,
    attempts: 0,
    queued_ms: 0,
    duration_ms: 0,
    first_tokens: 0,
    first_token_ms: 0,
  };
  groups.set(id, group);
  return group;
}

/** The rows of one batch by hour and group: few statements where a busy minute has many calls alike. */
function sumUp(rows: readonly NewUsageRow[]): Iterable<UsageHoursTable> {
  const groups = new Map<string, UsageHoursTable>();
  let before: NewUsageRow | undefined;
  let group: UsageHoursTable | undefined;
  for (const row of rows) {
    if (group === undefined || before === undefined || !isAlike(row, before)) group = groupOf(row, groups);
    before = row;
    group.requests += 1;
    group.exact += row.exact;
    group.input_tokens += row.input_tokens ?? 0;
    group.output_tokens += row.output_tokens ?? 0;
    group.reasoning_tokens += row.reasoning_tokens ?? 0;
    group.attempts += row.attempts;
    group.queued_ms += row.queued_ms;
    group.duration_ms += row.duration_ms;
    if (row.first_token_ms !== null && row.first_token_ms !== undefined) {
      group.first_tokens += 1;
      group.first_token_ms += row.first_token_ms;
    }
  }
  return groups.values();
}

interface Prepared {
  readonly raw: SqliteDatabase.Database;
  readonly write: (rows: readonly NewUsageRow[]) => void;
  readonly deleteBefore: (before: string, limit: number) => number;
}

function prepare(raw: SqliteDatabase.Database): Prepared {
  const statement = raw.prepare<(string | number | null)[]>(insertRow);
  const insert = (row: NewUsageRow): boolean => statement.run(...valuesOf(row)).changes > 0;
  const add = raw.prepare<[UsageHoursTable]>(addToHour);
  const rowsBefore = raw.prepare<[{ before: string; limit: number }]>(deleteRows);
  const hourBefore = raw.prepare<[{ before: string }]>(deleteOldestHour);
  return {
    raw,
    write: raw.transaction((rows: readonly NewUsageRow[]) => {
      for (const row of rows) {
        if (insert(row)) continue;
        insert({ ...row, request_id: `${row.request_id}~${randomUUID().slice(0, 8)}` });
      }
      for (const group of sumUp(rows)) add.run(group);
    }).immediate,
    deleteBefore: raw.transaction(
      (before: string, limit: number) =>
        rowsBefore.run({ before, limit }).changes + hourBefore.run({ before: before.slice(0, 13) }).changes,
    ).immediate,
  };
}

export class UsageWriter {
  readonly #connection: () => SqliteDatabase.Database;
  #prepared: Prepared | undefined;

  /** @param connection asked before every step, since a connection may be replaced by a new one */
  constructor(connection: () => SqliteDatabase.Database) {
    this.#connection = connection;
  }

  /** All rows or none. @throws UsageBusy at once, without waiting for a lock; else what the database throws */
  write(rows: readonly NewUsageRow[]): void {
    this.#atOnce((prepared) => prepared.write(rows));
  }

  /**
   * Deletes at most `limit` rows and one hour of sums that are older. Returns how many went; 0 when none is left.
   * @param before `YYYY-MM-DDTHH:MM:SS.sss`
   * @throws UsageBusy at once, without waiting for a lock; else what the database throws
   */
  deleteBefore(before: string, limit: number): number {
    return this.#atOnce((prepared) => prepared.deleteBefore(before, limit));
  }

  #atOnce<T>(work: (prepared: Prepared) => T): T {
    const raw = this.#connection();
    // Ours would become a part of the other transaction, and be lost if that is rolled back.
    if (raw.inTransaction) throw new UsageBusy('a transaction is open');
    if (this.#prepared?.raw !== raw) this.#prepared = prepare(raw);
    // SQLite waits for a lock by sleeping in this very thread: all traffic would stand still.
    raw.pragma('busy_timeout = 0');
    try {
      return work(this.#prepared);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : '';
      throw code.startsWith('SQLITE_BUSY')
        ? new UsageBusy('the database is locked', { cause: error })
        : error;
    } finally {
      raw.pragma(`busy_timeout = ${busyTimeoutMs}`);
    }
  }
}
