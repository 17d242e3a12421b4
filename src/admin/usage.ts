/** Reports on what was used. Written once for the CLI and the HTTP API. */
import { z } from 'zod';
import type { Database } from '../store/schema.ts';
import { sumUsage } from '../store/usage-report.ts';
import { AdminError, parseInput } from './administration.ts';

export const usageGroupings = ['model', 'provider', 'ending', 'key', 'user', 'day'] as const;
export const usageSeries = ['hour', 'day'] as const;

/** One line of a report. Averages are null where nothing was measured. */
export interface UsageView {
  /** The group's name, and its period where a series was asked for: unique in the report. */
  readonly id: string;
  /** Empty where the calls had none: no key, no user, no provider that was reached. */
  readonly group: string;
  /** Start of the hour (`YYYY-MM-DDTHH:00`) or day, UTC; null without a series. */
  readonly period: string | null;
  readonly requests: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly total_tokens: number;
  readonly reasoning_tokens: number;
  /** Calls whose tokens the upstream did not report; in the sums they are estimated by what was delivered. */
  readonly unknown_usage: number;
  readonly attempts: number;
  readonly average_queued_ms: number | null;
  readonly average_first_token_ms: number | null;
  readonly average_duration_ms: number | null;
}

const unitMs = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const;

const isUnit = (unit: string | undefined): unit is keyof typeof unitMs =>
  unit !== undefined && Object.hasOwn(unitMs, unit);

/** `90m`, `24h`, `7d`, `4w` ago, or a date such as `2025-01-31` or `2025-01-31T12:00`, UTC unless it says otherwise. */
function readTime(field: string, value: string, now: Date): Date {
  const [, count, unit] = /^(\d{1,6})([mhdw])$/.exec(value) ?? [];
  if (count !== undefined && isUnit(unit)) return new Date(now.getTime() - Number(count) * unitMs[unit]);
  const isLocal = /^\d{4}-\d\d-\d\dT[\d:.]+$/.test(value);
  const time = /^\d{4}-\d\d-\d\d(?:T.*)?$/.test(value) ? new Date(isLocal ? `${value}Z` : value) : undefined;
  if (time === undefined || Number.isNaN(time.getTime())) {
    throw new AdminError('INVALID_PARAMS', 'must look like 90m, 24h, 7d or 2025-01-31', field);
  }
  return time;
}

const report = z.strictObject({
  by: z.enum(usageGroupings).default('model'),
  since: z.string().default('7d'),
  until: z.string().optional(),
  series: z.enum(usageSeries).optional(),
});

const average = (sum: number, count: number): number | null => (count === 0 ? null : Math.round(sum / count));

/**
 * @param input `by` (default model), `since` (default 7d), `until` (default now), `series`
 * @throws AdminError INVALID_PARAMS
 */
export async function reportUsage(
  { db }: { readonly db: Database },
  input: unknown,
  now = new Date(),
): Promise<readonly UsageView[]> {
  const { by, since, until, series } = parseInput(report, input);
  const span = {
    since: readTime('since', since, now),
    // What began in this very millisecond counts.
    until: until === undefined ? new Date(now.getTime() + 1) : readTime('until', until, now),
  };
  if (span.since >= span.until) throw new AdminError('INVALID_PARAMS', 'must be before until', 'since');
  const rows = await sumUsage(db, { by, series, ...span });
  return rows.map((row) => ({
    id: row.period === null ? row.group : `${row.period} ${row.group}`,
    group: row.group,
    period: row.period,
    requests: row.requests,
    input_tokens: row.input_tokens,
    output_tokens: row.output_tokens,
    total_tokens: row.input_tokens + row.output_tokens,
    reasoning_tokens: row.reasoning_tokens,
    unknown_usage: row.requests - row.exact,
    attempts: row.attempts,
    average_queued_ms: average(row.queued_ms, row.requests),
    average_first_token_ms: average(row.first_token_ms, row.first_tokens),
    average_duration_ms: average(row.duration_ms, row.requests),
  }));
}
