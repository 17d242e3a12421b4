/** How administrators name a row: a number is its id; a text is its title or key, else, if it is digits, its id. */
import { findModelById, findModelByTitle } from '../store/models.ts';
import { findProvider, findProviderById } from '../store/providers.ts';
import { findRoute } from '../store/routes.ts';
import type { Database, ModelRow, ProviderRow, RouteRow } from '../store/schema.ts';
import { AdminError } from './administration.ts';

const asId = (reference: string): number | undefined =>
  /^[1-9]\d{0,14}$/.test(reference) ? Number(reference) : undefined;

/** @throws AdminError (NOT_FOUND) */
export async function requireProvider(db: Database, reference: string | number): Promise<ProviderRow> {
  const named = typeof reference === 'string' ? await findProvider(db, reference) : undefined;
  const id = typeof reference === 'string' ? asId(reference) : reference;
  const row = named ?? (id === undefined ? undefined : await findProviderById(db, id));
  if (row === undefined) throw new AdminError('NOT_FOUND', `there is no provider ${reference}`);
  return row;
}

/** @throws AdminError (NOT_FOUND) */
export async function requireModel(db: Database, reference: string | number): Promise<ModelRow> {
  const named = typeof reference === 'string' ? await findModelByTitle(db, reference) : undefined;
  const id = typeof reference === 'string' ? asId(reference) : reference;
  const row = named ?? (id === undefined ? undefined : await findModelById(db, id));
  if (row === undefined) throw new AdminError('NOT_FOUND', `there is no model ${reference}`);
  return row;
}

/** @throws AdminError (NOT_FOUND) */
export async function requireRoute(db: Database, reference: string | number): Promise<RouteRow> {
  const id = typeof reference === 'string' ? asId(reference) : reference;
  const row = id === undefined ? undefined : await findRoute(db, id);
  if (row === undefined) throw new AdminError('NOT_FOUND', `there is no route ${reference}`);
  return row;
}
