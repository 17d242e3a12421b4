/** The types of the tables, column by column as migrations/ creates them. Knows no query. */
import type { Generated, Insertable, Kysely, Selectable, Updateable } from 'kysely';

/** SQLite has no booleans; other engines can hold the same numbers. */
export type Bit = 0 | 1;

export const toBit = (value: boolean): Bit => (value ? 1 : 0);

interface Audited {
  id: Generated<number>;
  version: Generated<number>;
  created_at: Generated<string>;
  updated_at: Generated<string>;
}

interface TimeoutColumns {
  connect_timeout_ms: Generated<number | null>;
  first_event_timeout_ms: Generated<number | null>;
  idle_timeout_ms: Generated<number | null>;
  total_timeout_ms: Generated<number | null>;
}

export interface ProvidersTable extends Audited, TimeoutColumns {
  key: string;
  kind: string;
  name: Generated<string>;
  base_url: string;
  api_key_env: Generated<string | null>;
  enabled: Generated<Bit>;
  max_concurrency: Generated<number | null>;
  max_queue: Generated<number | null>;
  abort_grace_ms: Generated<number | null>;
  /** A JSON list of names of request fields; `*`: nearly all. */
  passthrough: Generated<string>;
  origin: 'environment' | 'admin';
}

export interface ModelsTable extends Audited {
  title: string;
  img: Generated<string>;
  name: Generated<string>;
  description: Generated<string>;
  keyword: Generated<string>;
  time: Generated<string>;
  tag1: Generated<string>;
  tag2: Generated<string>;
  type: Generated<number>;
  is_featured: Generated<Bit>;
  enabled: Generated<Bit>;
  context_length: Generated<number | null>;
  max_output_tokens: Generated<number | null>;
  origin: 'seed' | 'discovery' | 'admin';
}

export interface RoutesTable extends Audited, TimeoutColumns {
  model_id: number;
  provider_id: number;
  upstream_model: string;
  api: Generated<string>;
  priority: Generated<number>;
  weight: Generated<number>;
  enabled: Generated<Bit>;
  vanished: Generated<Bit>;
  origin: 'seed' | 'discovery' | 'admin';
}

export interface CatalogVersionTable {
  id: number;
  version: number;
}

export interface StoredChatsTable {
  response_id: string;
  provider: string;
  upstream_model: string;
  owner: string;
  created_at: Generated<string>;
}

export interface UsageTable {
  id: Generated<number>;
  request_id: string;
  /** `YYYY-MM-DDTHH:MM:SS.sss` */
  time: string;
  key_id: number | null;
  key_name: string | null;
  key_prefix: string | null;
  user: string | null;
  model: string;
  provider: string | null;
  upstream_model: string | null;
  endpoint: string;
  stream: Bit;
  status: number;
  ending: string;
  input_tokens: number | null;
  output_tokens: number | null;
  reasoning_tokens: number | null;
  exact: Bit;
  queued_ms: number;
  first_token_ms: number | null;
  duration_ms: number;
  attempts: number;
}

export interface UsageHoursTable {
  /** `YYYY-MM-DDTHH` */
  hour: string;
  key: string;
  user: string;
  model: string;
  provider: string;
  ending: string;
  requests: number;
  exact: number;
  input_tokens: number;
  output_tokens: number;
  reasoning_tokens: number;
  attempts: number;
  queued_ms: number;
  duration_ms: number;
  first_tokens: number;
  first_token_ms: number;
}

export interface ApiKeysTable extends Audited {
  name: string;
  /** Its first characters, by which people recognise it. */
  prefix: string;
  /** SHA-256 of the whole key, in hexadecimal. */
  hash: string;
  scope: Generated<'inference' | 'admin'>;
  /** A JSON list of titles; null: every model. */
  models: Generated<string | null>;
  rpm: Generated<number | null>;
  tpm: Generated<number | null>;
  max_concurrency: Generated<number | null>;
  daily_tokens: Generated<number | null>;
  expires_at: Generated<string | null>;
  revoked_at: Generated<string | null>;
}

export interface KeysVersionTable {
  id: number;
  version: number;
}

export interface Tables {
  providers: ProvidersTable;
  models: ModelsTable;
  routes: RoutesTable;
  catalog_version: CatalogVersionTable;
  stored_chats: StoredChatsTable;
  usage: UsageTable;
  usage_hours: UsageHoursTable;
  api_keys: ApiKeysTable;
  keys_version: KeysVersionTable;
}

/** The database, or a transaction on it. */
export type Database = Kysely<Tables>;

export type ProviderRow = Selectable<ProvidersTable>;
export type NewProviderRow = Insertable<ProvidersTable>;
export type ProviderChanges = Updateable<Omit<ProvidersTable, keyof Audited>>;

export type ModelRow = Selectable<ModelsTable>;
export type NewModelRow = Insertable<ModelsTable>;
export type ModelChanges = Updateable<Omit<ModelsTable, keyof Audited>>;

export type RouteRow = Selectable<RoutesTable>;
export type NewRouteRow = Insertable<RoutesTable>;
export type RouteChanges = Updateable<Omit<RoutesTable, keyof Audited>>;

export type KeyRow = Selectable<ApiKeysTable>;
export type NewKeyRow = Insertable<ApiKeysTable>;
export type KeyChanges = Updateable<Omit<ApiKeysTable, keyof Audited | 'hash' | 'prefix'>>;

export type StoredChatRow = Selectable<StoredChatsTable>;
export type NewStoredChatRow = Insertable<StoredChatsTable>;

export type UsageRow = Selectable<UsageTable>;
export type NewUsageRow = Readonly<Insertable<UsageTable>>;

/** A time as the tables hold it: UTC, `YYYY-MM-DDTHH:MM:SS`. */
export const timestamp = (at = new Date()): string => at.toISOString().slice(0, 19);
