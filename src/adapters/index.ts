/** The registry: every kind of provider, by the name that the catalog's rows use. */
import type { ProviderKind } from '../chat/adapter.ts';
import { bailian } from './bailian.ts';
import { lmstudio } from './lmstudio.ts';
import { openaiCompatible } from './openai-compatible.ts';

export const providerKinds: ReadonlyMap<string, ProviderKind> = new Map([
  [lmstudio.kind, lmstudio],
  [bailian.kind, bailian],
  [openaiCompatible.kind, openaiCompatible],
]);
