/** What all administration functions share: what they work on, how they refuse, how they check input. Knows no caller. */
import type { z } from 'zod';
import type { ProviderKind } from '../chat/adapter.ts';
import type { Config } from '../config.ts';
import type { Catalog } from '../gateway/catalog.ts';
import type { Discovery } from '../gateway/discovery.ts';
import type { Database } from '../store/schema.ts';

export interface Administration {
  readonly db: Database;
  readonly providerKinds: ReadonlyMap<string, ProviderKind>;
  /** Reloaded after every write, so that the process that made a change sees it at once. */
  readonly catalog: Catalog;
  readonly discovery: Discovery;
  readonly config: Pick<Config, 'providerKeyEnv'>;
}

/** A refusal in one English line, which names the field where it is about one. `code` is the contract's name for it. */
export class AdminError extends Error {
  readonly code: 'INVALID_PARAMS' | 'NOT_FOUND' | 'CONFLICT' | 'UPSTREAM_ERROR';
  readonly field: string | undefined;

  constructor(code: AdminError['code'], message: string, field?: string) {
    super(field === undefined ? message : `${field}: ${message}`);
    this.code = code;
    this.field = field;
  }
}

/** Checks what a caller sent. @throws AdminError (INVALID_PARAMS) that names the first wrong field */
export function parseInput<Schema extends z.ZodType>(schema: Schema, input: unknown): z.output<Schema> {
  const parsed = schema.safeParse(input, {
    error: (issue) => (issue.code === 'invalid_type' && issue.input === undefined ? 'is missing' : undefined),
  });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  if (issue?.code === 'unrecognized_keys') {
    throw new AdminError('INVALID_PARAMS', 'is not a known field', issue.keys[0]);
  }
  const field = issue?.path.join('.');
  throw new AdminError('INVALID_PARAMS', issue?.message ?? 'is invalid', field === '' ? undefined : field);
}

/** Only what differs from the row; an empty object where nothing does, so that nothing need be written. */
export function changesAgainst<Row extends object>(row: Row, changes: Partial<Row>): Partial<Row> {
  const differing: Partial<Row> = {};
  for (const key in changes) {
    if (changes[key] !== undefined && changes[key] !== row[key]) differing[key] = changes[key];
  }
  return differing;
}

/** @throws AdminError (CONFLICT) where the row has changed since its reader saw it; undefined: whatever its version is */
export function requireVersion(
  row: { readonly id: number; readonly version: number },
  expected: number | undefined,
): void {
  if (expected === undefined || expected === row.version) return;
  throw new AdminError('CONFLICT', `row ${row.id} has version ${row.version} by now, not ${expected}`);
}
