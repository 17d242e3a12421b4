/** Administration of the providers: list, add, set, remove, check, sync. Written once for the CLI and the HTTP API. */
import { z } from 'zod';
import { mayHoldProviderKey } from '../config.ts';
import { type CatalogProvider, readNames } from '../gateway/catalog.ts';
import type { Refreshed } from '../gateway/discovery.ts';
import { deleteOrphans, listModels } from '../store/models.ts';
import type { Page } from '../store/pages.ts';
import {
  deleteProvider,
  findProvider,
  insertProvider,
  listProviders as listRows,
  updateProvider,
} from '../store/providers.ts';
import { listRoutesOfProvider } from '../store/routes.ts';
import { type ProviderRow, toBit } from '../store/schema.ts';
import {
  AdminError,
  type Administration,
  changesAgainst,
  parseInput,
  requireVersion,
} from './administration.ts';
import { refuseBaseUrl } from './base-url.ts';
import { baseUrlVariableOf } from './environment.ts';
import { requireProvider } from './references.ts';

/** A provider as administrators see it. */
export interface ProviderView extends Omit<ProviderRow, 'enabled' | 'passthrough'> {
  readonly enabled: boolean;
  readonly passthrough: readonly string[];
  /** Whether the variable that `api_key_env` names is set in this process. */
  readonly api_key: 'set' | 'unset' | 'none';
}

/** What a provider answered when it was asked, and what that changed in the catalog. */
export interface ProviderReport {
  readonly id: number;
  readonly key: string;
  readonly result: 'up' | 'down' | 'no-key';
  readonly apis: readonly string[];
  /** Models on its list, and how many of them are loaded. */
  readonly models: number;
  readonly loaded: number;
  readonly error: string | null;
  readonly added: readonly string[];
  readonly joined: readonly string[];
  readonly vanished: readonly string[];
  readonly returned: readonly string[];
}

export const timeoutFields = {
  connect_timeout_ms: z.int().min(0).max(2_147_483_647).nullable(),
  first_event_timeout_ms: z.int().min(0).max(2_147_483_647).nullable(),
  idle_timeout_ms: z.int().min(0).max(2_147_483_647).nullable(),
  total_timeout_ms: z.int().min(0).max(2_147_483_647).nullable(),
};

const baseUrl = z.string().superRefine((value, context) => {
  const refusal = refuseBaseUrl(value);
  if (refusal !== undefined) context.addIssue(refusal);
});

/** What can be set at a provider. */
export const providerSettings = z
  .strictObject({
    name: z.string().max(200),
    base_url: baseUrl,
    api_key_env: z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'must be the name of an environment variable' })
      .refine((name) => name !== 'ADMIN_API_KEY', { error: 'must not be ADMIN_API_KEY' })
      .nullable(),
    enabled: z.boolean(),
    max_concurrency: z.int().min(0).nullable(),
    max_queue: z.int().min(0).nullable(),
    abort_grace_ms: z.int().min(0).nullable(),
    passthrough: z
      .array(z.string().min(1).max(200))
      .max(200)
      .nullable()
      .meta({
        description:
          'Request fields that no API of the gateway has and that it gets as they came; * stands for all but those that choose ' +
          'models, addresses or credentials; null: none',
      }),
    ...timeoutFields,
  })
  .partial();

export const newProvider = providerSettings.extend({
  key: z
    .string()
    .max(64)
    .regex(/^[a-z0-9][a-z0-9-]*$/, { error: 'must be of lower-case letters, digits and hyphens' }),
  kind: z.string(),
  base_url: baseUrl,
});

const present = (administration: Administration, row: ProviderRow): ProviderView => {
  const known = administration.catalog.providers().find((provider) => provider.id === row.id);
  const apiKey = row.api_key_env === null ? 'none' : known?.apiKey === undefined ? 'unset' : 'set';
  return { ...row, enabled: row.enabled === 1, passthrough: readNames(row.passthrough), api_key: apiKey };
};

export async function listProviders(administration: Administration, page?: Page): Promise<ProviderView[]> {
  const rows = await listRows(administration.db, page);
  return rows.map((row) => present(administration, row));
}

/** @throws AdminError (INVALID_PARAMS) where PROVIDER_KEY_ENV does not let a provider have its key from there */
function requireKeyVariable(name: string | null | undefined, { config }: Administration): void {
  if (name === null || name === undefined || mayHoldProviderKey(name, config.providerKeyEnv)) return;
  const patterns = config.providerKeyEnv.join(', ');
  throw new AdminError(
    'INVALID_PARAMS',
    `${name} does not match PROVIDER_KEY_ENV (${patterns}), which says which variables may hold a key`,
    'api_key_env',
  );
}

/** @throws AdminError */
export async function addProvider(administration: Administration, input: unknown): Promise<ProviderView> {
  const { db, catalog, providerKinds } = administration;
  const { enabled, passthrough, ...fields } = parseInput(newProvider, input);
  requireKeyVariable(fields.api_key_env, administration);
  const kind = providerKinds.get(fields.kind);
  if (kind === undefined) {
    const known = [...providerKinds.keys()].join(', ');
    throw new AdminError('INVALID_PARAMS', `is not a known kind (${known})`, 'kind');
  }
  const row = await db.transaction().execute(async (transaction) => {
    if ((await findProvider(transaction, fields.key)) !== undefined) {
      throw new AdminError('CONFLICT', `there is already a provider ${fields.key}`, 'key');
    }
    return insertProvider(transaction, {
      ...fields,
      base_url: kind.normalizeBaseUrl(fields.base_url),
      enabled: toBit(enabled ?? true),
      passthrough: JSON.stringify(passthrough ?? []),
      origin: 'admin',
    });
  });
  await catalog.load();
  return present(administration, row);
}

/** Changes the given fields; `null` takes a setting back. @throws AdminError */
export async function setProvider(
  administration: Administration,
  reference: string | number,
  input: unknown,
  version?: number,
): Promise<ProviderView> {
  const { db, catalog, providerKinds } = administration;
  const { enabled, base_url, passthrough, ...fields } = parseInput(providerSettings, input);
  requireKeyVariable(fields.api_key_env, administration);
  const row = await db.transaction().execute(async (transaction) => {
    const before = await requireProvider(transaction, reference);
    requireVersion(before, version);
    if (base_url !== undefined && before.origin === 'environment') {
      const variable = baseUrlVariableOf(before.key) ?? 'its variable';
      throw new AdminError(
        'CONFLICT',
        `belongs to the environment; set ${variable} and restart the server`,
        'base_url',
      );
    }
    const kind = providerKinds.get(before.kind);
    const changes = changesAgainst(before, {
      ...fields,
      ...(enabled === undefined ? {} : { enabled: toBit(enabled) }),
      ...(passthrough === undefined ? {} : { passthrough: JSON.stringify(passthrough ?? []) }),
      ...(base_url === undefined ? {} : { base_url: kind?.normalizeBaseUrl(base_url) ?? base_url }),
    });
    if (Object.keys(changes).length === 0) return before;
    return (await updateProvider(transaction, before.id, changes)) ?? before;
  });
  await catalog.load();
  return present(administration, row);
}

/**
 * Removes a provider with the routes that discovery made, and the discovered models that nobody else has.
 * @returns the titles of those models
 * @throws AdminError (CONFLICT) where it comes from the environment, or routes that somebody made lead to it
 */
export async function removeProvider(
  administration: Administration,
  reference: string | number,
  version?: number,
): Promise<{ readonly provider: ProviderView; readonly models: readonly string[] }> {
  const { db, catalog } = administration;
  const removed = await db.transaction().execute(async (transaction) => {
    const row = await requireProvider(transaction, reference);
    requireVersion(row, version);
    if (row.origin === 'environment') {
      throw new AdminError(
        'CONFLICT',
        `${row.key} comes from ${baseUrlVariableOf(row.key) ?? 'the environment'} and would be back at the next start; disable it instead (enabled false)`,
      );
    }
    const routes = await listRoutesOfProvider(transaction, row.id);
    const chosen = routes.filter((route) => route.origin !== 'discovery');
    if (chosen.length > 0) {
      const titles = new Map((await listModels(transaction)).map((model) => [model.id, model.title]));
      const users = chosen.map((route) => `${titles.get(route.model_id)} (route ${route.id})`).join(', ');
      throw new AdminError('CONFLICT', `${row.key} is used by ${users}; remove those routes first`);
    }
    await deleteProvider(transaction, row.id);
    return { provider: present(administration, row), models: await deleteOrphans(transaction) };
  });
  await catalog.load();
  return removed;
}

/** Asks one provider, or all enabled ones, for their models. @throws AdminError (NOT_FOUND) */
export async function checkProviders(
  administration: Administration,
  reference?: string | number,
): Promise<ProviderReport[]> {
  return askProviders(administration, await choose(administration, reference));
}

/** As `checkProviders`, of those whose models enter the catalog by themselves. @throws AdminError */
export async function syncProviders(
  administration: Administration,
  reference?: string | number,
): Promise<ProviderReport[]> {
  const chosen = await choose(administration, reference);
  const discovered = chosen.filter((provider) => provider.kind.discovers);
  if (reference !== undefined && discovered.length === 0) {
    throw new AdminError('INVALID_PARAMS', `the models of ${reference} are not discovered`, 'provider');
  }
  return askProviders(administration, discovered);
}

async function choose(
  { db, catalog }: Administration,
  reference: string | number | undefined,
): Promise<readonly CatalogProvider[]> {
  await catalog.load();
  if (reference === undefined) return catalog.providers().filter((provider) => provider.enabled);
  const row = await requireProvider(db, reference);
  const provider = catalog.providers().find((one) => one.id === row.id);
  if (provider === undefined)
    throw new AdminError('CONFLICT', `${row.key} is of the unknown kind ${row.kind}`);
  return [provider];
}

function askProviders(
  { discovery }: Administration,
  providers: readonly CatalogProvider[],
): Promise<ProviderReport[]> {
  return Promise.all(
    providers.map(async (provider) => {
      const [refreshed] = provider.missingCredential ? [] : await discovery.refresh(provider.key);
      return report(provider, refreshed);
    }),
  );
}

function wayToKey({ apiKeyEnv, apiKeyEnvRefused }: CatalogProvider): string {
  if (apiKeyEnvRefused) return `PROVIDER_KEY_ENV does not let it be read from ${apiKeyEnv}`;
  return `set ${apiKeyEnv ?? 'api_key_env and the variable that it names'}`;
}

function report(provider: CatalogProvider, refreshed: Refreshed | undefined): ProviderReport {
  const { id, key } = provider;
  const nothing = { apis: [], models: 0, loaded: 0, added: [], joined: [], vanished: [], returned: [] };
  if (refreshed === undefined) {
    const error = `its key is missing; ${wayToKey(provider)}`;
    return { id, key, result: 'no-key', error, ...nothing };
  }
  const { state, added, joined, vanished, returned } = refreshed;
  const up = state.reachability === 'up';
  return {
    id,
    key,
    result: up ? 'up' : 'down',
    apis: up ? (state.apis ?? []) : [],
    models: up ? state.models.size : 0,
    loaded: up ? [...state.models.values()].filter((model) => model.state === 'loaded').length : 0,
    error: state.lastError ?? null,
    added,
    joined,
    vanished,
    returned,
  };
}
