/** Sums over what was used, grouped and by time. Reads whole hours from `usage_hours` and only what sticks out from `usage`. */
import { sql } from 'kysely';
import type { Database } from './schema.ts';

export type UsageGrouping = 'model' | 'provider' | 'ending' | 'key' | 'user' | 'day';
export type UsageSeries = 'hour' | 'day';

export interface UsageSums {
  /** What the group is called; empty where the calls had none. */
  readonly group: string;
  /** The start of the hour or day, where a series was asked for. */
  readonly period: string | null;
  readonly requests: number;
  /** Of them, those whose tokens the upstream reported. */
  readonly exact: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly reasoning_tokens: number;
  readonly attempts: number;
  readonly queued_ms: number;
  readonly duration_ms: number;
  /** Calls that had a first token, and their times to it added up. */
  readonly first_tokens: number;
  readonly first_token_ms: number;
}

export interface UsageQuery {
  readonly by: UsageGrouping;
  readonly series?: UsageSeries | undefined;
  /** From this time on, and before that one. */
  readonly since: Date;
  readonly until: Date;
}

const hourMs = 3_600_000;

const toTime = (milliseconds: number): string => new Date(milliseconds).toISOString().slice(0, -1);
const toHour = (milliseconds: number): string => toTime(milliseconds).slice(0, 13);

/** The rows of a span, in the columns of `usage_hours`. */
const rowsBetween = (from: number, to: number) => sql`
  SELECT substr(time, 1, 13) AS hour,
    CASE WHEN key_name IS NULL THEN coalesce(key_prefix, '') ELSE key_name || ' (' || coalesce(key_prefix, '') || ')' END AS key,
    coalesce(user, '') AS user, model, coalesce(provider, '') AS provider, ending,
    1 AS requests, exact, coalesce(input_tokens, 0) AS input_tokens, coalesce(output_tokens, 0) AS output_tokens,
    coalesce(reasoning_tokens, 0) AS reasoning_tokens, attempts, queued_ms, duration_ms,
    first_token_ms IS NOT NULL AS first_tokens, coalesce(first_token_ms, 0) AS first_token_ms
  FROM usage WHERE time >= ${toTime(from)} AND time < ${toTime(to)}`;

const hoursBetween = (from: number, to: number) => sql`
  SELECT hour, key, user, model, provider, ending, requests, exact, input_tokens, output_tokens, reasoning_tokens,
    attempts, queued_ms, duration_ms, first_tokens, first_token_ms
  FROM usage_hours WHERE hour >= ${toHour(from)} AND hour < ${toHour(to)}`;

/** The largest groups first, by requests; a series is in order of time. */
export async function sumUsage(db: Database, query: UsageQuery): Promise<readonly UsageSums[]> {
  const since = query.since.getTime();
  const until = query.until.getTime();
  const firstHour = Math.ceil(since / hourMs) * hourMs;
  const endHour = Math.floor(until / hourMs) * hourMs;
  const source =
    firstHour < endHour
      ? sql`${rowsBetween(since, firstHour)} UNION ALL ${hoursBetween(firstHour, endHour)} UNION ALL ${rowsBetween(endHour, until)}`
      : rowsBetween(since, until);
  const group = query.by === 'day' ? sql`substr(hour, 1, 10)` : sql.ref(query.by);
  const period =
    query.series === undefined
      ? sql`NULL`
      : query.series === 'day'
        ? sql`substr(hour, 1, 10)`
        : sql`hour || ':00'`;
  const { rows } = await sql<UsageSums>`
    SELECT ${group} AS "group", ${period} AS period, sum(requests) AS requests, sum(exact) AS exact,
      sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(reasoning_tokens) AS reasoning_tokens,
      sum(attempts) AS attempts, sum(queued_ms) AS queued_ms, sum(duration_ms) AS duration_ms,
      sum(first_tokens) AS first_tokens, sum(first_token_ms) AS first_token_ms
    FROM (${source}) AS calls GROUP BY 1, 2
    ORDER BY ${query.by === 'day' ? sql`period, "group"` : sql`period, requests DESC, "group"`}`.execute(db);
  return rows;
}
