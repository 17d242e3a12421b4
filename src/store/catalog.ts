/** Reads the whole catalog as one consistent picture, and its version. Knows the rows, not what they mean. */
import { listModels } from './models.ts';
import { readByPages } from './pages.ts';
import { listProviders } from './providers.ts';
import { listRoutes } from './routes.ts';
import type { Database, ModelRow, ProviderRow, RouteRow } from './schema.ts';

export interface CatalogRows {
  readonly version: number;
  readonly providers: readonly ProviderRow[];
  readonly models: readonly ModelRow[];
  readonly routes: readonly RouteRow[];
}

/** Triggers bump it with every change of the three tables, whichever process makes it. */
export async function readCatalogVersion(db: Database): Promise<number> {
  const row = await db.selectFrom('catalog_version').select('version').executeTakeFirstOrThrow();
  return row.version;
}

/** Other events of this process come between its pages; they all are of one moment none the less. */
export function readCatalog(db: Database): Promise<CatalogRows> {
  return db
    .transaction()
    .setAccessMode('read only')
    .execute(async (transaction) => ({
      version: await readCatalogVersion(transaction),
      providers: await readByPages((page) => listProviders(transaction, page)),
      models: await readByPages((page) => listModels(transaction, page)),
      routes: await readByPages((page) => listRoutes(transaction, page)),
    }));
}
