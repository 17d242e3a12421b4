/** Which model the documentation's examples name: the first that can answer them now. */
import type { Timeouts } from '../config.ts';
import type { Catalog, CatalogModel } from './catalog.ts';
import type { Discovery } from './discovery.ts';
import { candidatesFor } from './routing.ts';

export type ExampleKind = 'chat' | 'completion' | 'embedding';

/** Its title; undefined where there is none. */
export function exampleModel(
  kind: ExampleKind,
  catalog: Catalog,
  discovery: Discovery,
  timeouts: Timeouts,
): string | undefined {
  const continuesTexts = (model: CatalogModel): boolean => {
    const rest = { model: model.card.title, stream: false, includeProgress: false, parameters: {} };
    try {
      return (
        candidatesFor(model, { kind: 'completion', prompt: '', ...rest }, discovery, timeouts).length > 0
      );
    } catch {
      return false;
    }
  };
  const models = catalog.list(kind === 'embedding' ? 1 : 0);
  return (kind === 'completion' ? models.find(continuesTexts) : models[0])?.card.title;
}
