/** The providers that come from environment variables, as data, and how they enter the database. */
import type { ProviderKind } from '../chat/adapter.ts';
import type { Config } from '../config.ts';
import { findProvider, insertProvider, updateProvider } from '../store/providers.ts';
import type { Database } from '../store/schema.ts';

interface EnvironmentProvider {
  readonly key: string;
  readonly kind: string;
  readonly baseUrlVariable: string;
  readonly apiKeyEnv: string;
  baseUrl(config: Config): string;
}

const environmentProviders: readonly EnvironmentProvider[] = [
  {
    key: 'lmstudio',
    kind: 'lmstudio',
    baseUrlVariable: 'LMSTUDIO_BASE_URL',
    apiKeyEnv: 'LMSTUDIO_API_KEY',
    baseUrl: (config) => config.lmstudio.baseUrl,
  },
  {
    key: 'bailian',
    kind: 'bailian',
    baseUrlVariable: 'BAILIAN_BASE_URL',
    apiKeyEnv: 'DASHSCOPE_API_KEY',
    baseUrl: (config) => config.bailian.baseUrl,
  },
];

/** The variable that gives a provider its base URL. */
export function baseUrlVariableOf(key: string): string | undefined {
  return environmentProviders.find((provider) => provider.key === key)?.baseUrlVariable;
}

/**
 * Makes the environment's providers exist. `update` also gives existing ones the address of this process's environment: that
 * is the server's to do; a command's shell may lack the variables that the server runs with. All other columns are
 * left as somebody may have set them, and so is a provider of that key that a person added.
 */
export async function syncEnvironmentProviders(
  db: Database,
  providerKinds: ReadonlyMap<string, ProviderKind>,
  config: Config,
  options: { readonly update: boolean } = { update: true },
): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    for (const { key, kind, apiKeyEnv, baseUrl } of environmentProviders) {
      const given = baseUrl(config);
      const base_url = providerKinds.get(kind)?.normalizeBaseUrl(given) ?? given;
      const row = await findProvider(transaction, key);
      if (row === undefined) {
        await insertProvider(transaction, {
          key,
          kind,
          base_url,
          api_key_env: apiKeyEnv,
          origin: 'environment',
        });
      } else if (options.update && row.origin === 'environment' && row.base_url !== base_url) {
        await updateProvider(transaction, row.id, { base_url });
      }
    }
  });
}
