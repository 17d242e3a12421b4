/** Administration of the API keys: list, create, change, revoke. Written once for the CLI and the HTTP API. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { hashKey, prefixLength, titlesOf } from '../gateway/keys.ts';
import { findKey, insertKey, listKeys as listRows, updateKey } from '../store/keys.ts';
import type { Page } from '../store/pages.ts';
import { type Database, type KeyRow, timestamp } from '../store/schema.ts';
import {
  AdminError,
  type Administration,
  changesAgainst,
  parseInput,
  requireVersion,
} from './administration.ts';

/** A key as administrators see it: everything but the key and its hash. */
export interface KeyView extends Omit<KeyRow, 'hash' | 'models'> {
  /** Titles that it may use; null: all. */
  readonly models: readonly string[] | null;
  readonly state: 'active' | 'expired' | 'revoked';
}

/** A key that was just made; nobody can ask for `key` a second time. */
export interface CreatedKey extends KeyView {
  readonly key: string;
}

type KeyAdministration = Pick<Administration, 'db'>;

const limit = z.int().min(0).nullable();

const hourMs = 3_600_000;
const unitMs = { h: hourMs, d: 24 * hourMs, w: 7 * 24 * hourMs } as const;

const lifetime = z
  .string()
  .regex(/^[1-9]\d{0,3}[hdw]$/, { error: 'must look like 12h, 90d or 8w' })
  .meta({ description: 'Instead of expires_at: how long from now, such as 12h, 90d or 8w' });

const moment = z
  .string()
  .regex(/^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?)?$/, {
    error: 'must look like 2027-01-01 or 2027-01-01T00:00:00, UTC',
    abort: true,
  })
  .refine((value) => !Number.isNaN(parseMoment(value)), { error: 'is no such day or time' })
  .meta({ description: 'When it ceases to be valid, UTC' });

/** What can be set at a key. */
export const keySettings = z
  .strictObject({
    name: z
      .string()
      .max(200)
      .refine((name) => name.trim() !== '', { error: 'must not be empty' }),
    scope: z.enum(['inference', 'admin']),
    models: z
      .array(z.string().min(1).max(500))
      .min(1, { error: 'must not be empty; null allows every model' })
      .max(1000)
      .nullable()
      .meta({ description: 'Titles that it may use; null: all' }),
    rpm: limit.meta({ description: 'Requests a minute; 0: no limit, null: the default of RATE_LIMIT_RPM' }),
    tpm: limit.meta({ description: 'Tokens a minute; 0 or null: no limit' }),
    max_concurrency: limit.meta({ description: 'Calls at once; 0 or null: no limit' }),
    daily_tokens: limit.meta({ description: 'Tokens a day (UTC); 0 or null: no limit' }),
    expires_at: moment.nullable(),
    expires: lifetime,
  })
  .partial();

export const newKey = keySettings.extend({ name: keySettings.shape.name.unwrap() });

type Settings = z.output<typeof keySettings>;

/** A time without a zone is UTC. */
function parseMoment(value: string): number {
  if (value.length === 10) return Date.parse(value);
  return Date.parse(/(?:Z|[+-]\d{2}:\d{2})$/.test(value) ? value : `${value}Z`);
}

function expiryOf({ expires, expires_at }: Settings): Partial<Pick<KeyRow, 'expires_at'>> {
  if (expires !== undefined) {
    if (expires_at !== undefined) throw new AdminError('INVALID_PARAMS', 'contradicts expires_at', 'expires');
    const unit = z.enum(['h', 'd', 'w']).parse(expires.at(-1));
    return { expires_at: timestamp(new Date(Date.now() + Number.parseInt(expires, 10) * unitMs[unit])) };
  }
  if (expires_at === undefined) return {};
  return { expires_at: expires_at === null ? null : timestamp(new Date(parseMoment(expires_at))) };
}

/** The columns that settings come to. */
function columnsOf(settings: Settings): Partial<KeyRow> {
  const { models, expires: _expires, expires_at: _at, ...columns } = settings;
  return {
    ...columns,
    ...(models === undefined ? {} : { models: models === null ? null : JSON.stringify(models) }),
    ...expiryOf(settings),
  };
}

function stateOf(row: KeyRow): KeyView['state'] {
  if (row.revoked_at !== null) return 'revoked';
  return row.expires_at !== null && row.expires_at <= timestamp() ? 'expired' : 'active';
}

function present(row: KeyRow): KeyView {
  const { hash: _hash, models, ...rest } = row;
  return { ...rest, models: titlesOf(models) ?? null, state: stateOf(row) };
}

async function requireKey(db: Database, reference: string | number): Promise<KeyRow> {
  const id =
    typeof reference === 'number' ? reference : /^[1-9]\d{0,14}$/.test(reference) ? Number(reference) : 0;
  const row = await findKey(db, id);
  if (row === undefined) throw new AdminError('NOT_FOUND', `there is no key ${reference}`);
  return row;
}

/** All keys, revoked ones too. */
export async function listKeys({ db }: KeyAdministration, page?: Page): Promise<KeyView[]> {
  return (await listRows(db, page)).map(present);
}

/** Makes a key. Names need not be unique: two live keys of one name are how a key is rotated. @throws AdminError */
export async function createKey({ db }: KeyAdministration, input: unknown): Promise<CreatedKey> {
  const settings = parseInput(newKey, input);
  const key = `sk-gw-${randomBytes(32).toString('base64url')}`;
  const row = await insertKey(db, {
    ...columnsOf(settings),
    name: settings.name,
    prefix: key.slice(0, prefixLength),
    hash: hashKey(key),
  });
  return { ...present(row), key };
}

/** Changes the given settings; `null` takes one back. @throws AdminError */
export async function setKey(
  { db }: KeyAdministration,
  reference: string | number,
  input: unknown,
  version?: number,
): Promise<KeyView> {
  const columns = columnsOf(parseInput(keySettings, input));
  const row = await db.transaction().execute(async (transaction) => {
    const before = await requireKey(transaction, reference);
    requireVersion(before, version);
    const changes = changesAgainst(before, columns);
    if (Object.keys(changes).length === 0) return before;
    if (before.revoked_at !== null) throw new AdminError('CONFLICT', `key ${before.id} is revoked for good`);
    return (await updateKey(transaction, before.id, changes)) ?? before;
  });
  return present(row);
}

/** Ends a key for good. Its row stays, so that the usage log can name it; one that is revoked already stays as it is. @throws AdminError */
export async function revokeKey(
  { db }: KeyAdministration,
  reference: string | number,
  version?: number,
): Promise<KeyView> {
  const row = await db.transaction().execute(async (transaction) => {
    const before = await requireKey(transaction, reference);
    requireVersion(before, version);
    if (before.revoked_at !== null) return before;
    return (await updateKey(transaction, before.id, { revoked_at: timestamp() })) ?? before;
  });
  return present(row);
}
