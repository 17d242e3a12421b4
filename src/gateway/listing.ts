/** Asks a provider for its models, and says in one line why it did not tell. Writes nothing and never loads a model. */
import type { ModelInfo } from '../chat/adapter.ts';
import { sanitizeWords } from '../chat/errors.ts';
import type { ResponseHead, UpstreamClient } from '../upstream/client.ts';
import { TransportError, type TransportFailure } from '../upstream/errors.ts';
import type { CatalogProvider } from './catalog.ts';

/** Whole lists come within milliseconds; a host that is loading a model may take seconds. */
const totalTimeoutMs = 10_000;

const largestList = 16 * 1024 * 1024;

export type Listed =
  | {
      readonly ok: true;
      readonly apis: readonly string[];
      readonly models: readonly ModelInfo[];
      readonly head: ResponseHead;
    }
  | {
      readonly ok: false;
      /** One line, without addresses and keys. */
      readonly error: string;
      /** Of the last answer, if there was one. */
      readonly head?: ResponseHead;
      /** It was a page for browsers. */
      readonly isPage?: boolean;
      readonly failure?: TransportFailure;
      /** The system's own word for the failure, e.g. `ECONNREFUSED`. */
      readonly code?: string;
    };

type ListingAnswer = ResponseHead & { readonly body: string };

/**
 * Tries the kind's listings in order; the first that decodes is the answer. Only an answer that says "no such path" leads
 * to the next one: a server that is merely ill must not be taken for an older one. Never rejects.
 */
export async function fetchListing(
  client: UpstreamClient,
  provider: CatalogProvider,
  connectTimeoutMs: number,
  signal: AbortSignal,
): Promise<Listed> {
  let refused: Listed = { ok: false, error: 'this kind of provider has no model list' };
  for (const listing of provider.kind.listings) {
    let answer: ListingAnswer;
    try {
      answer = await client.fetchText(provider.baseUrl, listing.call(provider.apiKey), {
        connectTimeoutMs,
        totalTimeoutMs,
        maxBytes: largestList,
        signal,
      });
    } catch (failure) {
      return { ok: false, ...describeFailure(failure) };
    }
    const success = answer.status >= 200 && answer.status < 300;
    const models = success ? listing.decode(parseBody(answer.body)) : undefined;
    if (models !== undefined) return { ok: true, apis: listing.apis, models, head: answer };
    refused = {
      ok: false,
      error: describeRefusal(answer, provider),
      head: answer,
      isPage: /^\s*<(?:!doctype|html)/i.test(answer.body),
    };
    const otherPathMayExist =
      success || answer.status === 400 || answer.status === 404 || answer.status === 405;
    if (!otherPathMayExist) break;
  }
  return refused;
}

function parseBody(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function describeFailure(failure: unknown): Omit<Extract<Listed, { ok: false }>, 'ok'> {
  if (!(failure instanceof TransportError)) return { error: String(failure) };
  const { cause, kind } = failure;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : undefined;
  return {
    error: wordsFor(kind, code === undefined ? '' : ` (${code})`),
    failure: kind,
    ...(code === undefined ? {} : { code }),
  };
}

function wordsFor(kind: TransportFailure, code: string): string {
  switch (kind) {
    case 'connect':
      return `no connection${code}`;
    case 'connect-timeout':
      return 'no connection in time';
    case 'cut':
      return `the connection was cut${code}`;
    case 'timeout':
      return `no complete answer within ${totalTimeoutMs / 1000} s`;
    case 'too-large':
      return `the model list is longer than ${largestList / 1024 / 1024} MiB`;
    case 'undecodable':
      return 'the model list is compressed in a way that cannot be read';
    case 'aborted':
      return 'the request was cancelled';
    default:
      return kind satisfies never;
  }
}

function describeRefusal(answer: ListingAnswer, provider: CatalogProvider): string {
  if (answer.status === 401 || answer.status === 403) {
    const which = provider.apiKeyEnv ?? 'none is configured';
    return `the provider answered ${answer.status}: it ${provider.apiKey === undefined ? 'wants' : 'refuses'} the API key (${which})`;
  }
  const words = sanitizeWords(
    answer.body.slice(0, 300),
    provider.apiKey === undefined ? [] : [provider.apiKey],
  );
  return `the provider answered ${answer.status} without a model list${words === '' ? '' : `: ${words}`}`;
}
