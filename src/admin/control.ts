/** Orders to providers that run models themselves: load, unload, loaded, download. Written once for the CLI and the HTTP API. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type {
  Download,
  LoadedModel,
  ModelInfo,
  OrderOutcome,
  ProviderControl,
  UpstreamAnswer,
  UpstreamCall,
} from '../chat/adapter.ts';
import { sanitizeWords } from '../chat/errors.ts';
import type { Config } from '../config.ts';
import type { CatalogProvider } from '../gateway/catalog.ts';
import { fetchListing } from '../gateway/listing.ts';
import type { UpstreamClient } from '../upstream/client.ts';
import { TransportError } from '../upstream/errors.ts';
import { AdminError, type Administration, parseInput } from './administration.ts';
import { requireProvider } from './references.ts';

/** What orders need beside the administration's own. */
export interface Controller extends Administration {
  readonly client: UpstreamClient;
  readonly config: Pick<Config, 'timeouts' | 'providerKeyEnv'>;
}

/** One model in a provider's memory. */
export interface LoadedView {
  /** Names this copy; the model's own name for the first, usually. */
  readonly id: string;
  readonly model: string;
  readonly type: ModelInfo['type'];
  /** Tokens; null where the provider does not tell. */
  readonly context_length: number | null;
  readonly parallel: number | null;
}

export interface LoadView {
  readonly id: string;
  readonly model: string;
  readonly load_time_seconds: number | null;
  readonly context_length: number | null;
  readonly parallel: number | null;
}

export interface DownloadView {
  readonly id: string | null;
  readonly model: string;
  readonly status: Download['status'];
  readonly total_bytes: number | null;
  readonly downloaded_bytes: number | null;
  readonly bytes_per_second: number | null;
}

const modelName = z.string().min(1).max(500);
export const loadWish = z.strictObject({ model: modelName, context_length: z.int().min(1).optional() });
export const unloadWish = z.strictObject({ model: modelName });
export const downloadWish = z.strictObject({
  model: modelName,
  quantization: z.string().min(1).max(100).optional(),
});

/** An order that moves no gigabytes is answered within seconds. Milliseconds. */
const quickMs = 30_000;

/** How often a running download is asked for news. Milliseconds. */
const newsMs = 1000;

async function choose(controller: Controller, reference: string | number): Promise<CatalogProvider> {
  const { db, catalog } = controller;
  const row = await requireProvider(db, reference);
  await catalog.load();
  const provider = catalog.providers().find(({ id }) => id === row.id);
  if (provider === undefined)
    throw new AdminError('CONFLICT', `${row.key} is of the unknown kind ${row.kind}`);
  return provider;
}

function controlOf({ key, kind }: CatalogProvider): ProviderControl {
  if (kind.control === undefined) {
    throw new AdminError('INVALID_PARAMS', `${key} (kind ${kind.kind}) does not let models be controlled`);
  }
  return kind.control;
}

/** @throws AdminError (UPSTREAM_ERROR) in the provider's own words, or saying how the connection failed */
async function order<T>(
  { client, config }: Controller,
  provider: CatalogProvider,
  call: UpstreamCall,
  decode: (answer: UpstreamAnswer) => OrderOutcome<T>,
  totalTimeoutMs: number,
): Promise<T> {
  const { key, apiKey, apiKeyEnv, baseUrl, timeouts } = provider;
  let answer: UpstreamAnswer;
  try {
    answer = await client.fetchText(baseUrl, call, {
      connectTimeoutMs: timeouts.connectMs ?? config.timeouts.connectMs,
      totalTimeoutMs,
    });
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    throw new AdminError('UPSTREAM_ERROR', `${key} does not answer: ${error.message}`);
  }
  if (answer.status === 401 || answer.status === 403) {
    const verb = apiKey === undefined ? 'wants' : 'refuses';
    throw new AdminError(
      'UPSTREAM_ERROR',
      `${key} ${verb} the API key (${apiKeyEnv ?? 'none is configured'})`,
    );
  }
  const outcome = decode(answer);
  if (outcome.ok) return outcome.value;
  const words = sanitizeWords(outcome.words, apiKey === undefined ? [] : [apiKey]);
  throw new AdminError(
    'UPSTREAM_ERROR',
    words === '' ? `${key} answered ${answer.status} without a reason` : `${key}: ${words}`,
  );
}

/** What is in the provider's memory now. @throws AdminError */
export async function listLoaded(controller: Controller, reference: string | number): Promise<LoadedView[]> {
  const provider = await choose(controller, reference);
  controlOf(provider);
  return loadedOn(controller, provider);
}

async function loadedOn(controller: Controller, provider: CatalogProvider): Promise<LoadedView[]> {
  const { client, config } = controller;
  const connectMs = provider.timeouts.connectMs ?? config.timeouts.connectMs;
  const listed = await fetchListing(client, provider, connectMs, new AbortController().signal);
  if (!listed.ok) throw new AdminError('UPSTREAM_ERROR', `${provider.key}: ${listed.error}`);
  return listed.models.flatMap((model) =>
    (model.instances ?? []).map((instance) => ({
      id: instance.id,
      model: model.id,
      type: model.type,
      context_length: instance.contextLength ?? null,
      parallel: instance.parallel ?? null,
    })),
  );
}

/**
 * Loads one more copy of a model and waits for it, minutes if need be.
 * @param input `model` as the provider names it, `context_length` in tokens
 * @throws AdminError
 */
export async function loadModel(
  controller: Controller,
  reference: string | number,
  input: unknown,
): Promise<LoadView> {
  const { model, context_length } = parseInput(loadWish, input);
  const provider = await choose(controller, reference);
  const control = controlOf(provider);
  const wish = { model, ...(context_length === undefined ? {} : { contextLength: context_length }) };
  const loaded: LoadedModel = await order(
    controller,
    provider,
    control.load(wish, provider.apiKey),
    (answer) => control.decodeLoad(answer),
    provider.timeouts.totalMs ?? controller.config.timeouts.totalMs,
  );
  return {
    id: loaded.instanceId,
    model,
    load_time_seconds: loaded.loadSeconds ?? null,
    context_length: loaded.contextLength ?? null,
    parallel: loaded.parallel ?? null,
  };
}

/**
 * Puts a model away: the copy of that id, or else every copy of the model of that name. Returns the ids of those copies.
 * @throws AdminError, NOT_FOUND where nothing of that name is loaded
 */
export async function unloadModel(
  controller: Controller,
  reference: string | number,
  input: unknown,
): Promise<string[]> {
  const { model } = parseInput(unloadWish, input);
  const provider = await choose(controller, reference);
  const control = controlOf(provider);
  const loaded = await loadedOn(controller, provider);
  const copies = loaded.filter((copy) => copy.model === model);
  // The first copy has the model's own name: that name means all of them.
  const chosen = copies.length > 0 ? copies : loaded.filter((copy) => copy.id === model);
  if (chosen.length === 0) {
    const known = loaded.map((copy) => copy.id).join(', ');
    throw new AdminError(
      'NOT_FOUND',
      `${model} is not loaded on ${provider.key}${known === '' ? '' : ` (loaded: ${known})`}`,
    );
  }
  const ids: string[] = [];
  for (const copy of chosen) {
    const call = control.unload(copy.id, provider.apiKey);
    ids.push(await order(controller, provider, call, (answer) => control.decodeUnload(answer), quickMs));
  }
  return ids;
}

/**
 * Makes the provider download a model. Resolves when it has begun, or is there already.
 * @param input `model` as the provider's library or Hugging Face names it, `quantization`
 * @throws AdminError
 */
export async function startDownload(
  controller: Controller,
  reference: string | number,
  input: unknown,
): Promise<DownloadView> {
  const { model, quantization } = parseInput(downloadWish, input);
  const provider = await choose(controller, reference);
  const control = controlOf(provider);
  const wish = { model, ...(quantization === undefined ? {} : { quantization }) };
  const call = control.download(wish, provider.apiKey);
  const begun = await order(controller, provider, call, (answer) => control.decodeDownload(answer), quickMs);
  return presentDownload(model, begun);
}

/**
 * Reports a download until it is over: completed, failed, or there already. The provider goes on by itself when nobody
 * follows. One that somebody paused is waited for.
 * @throws AdminError where the provider cannot be asked any more
 */
export async function followDownload(
  controller: Controller,
  reference: string | number,
  begun: DownloadView,
  onNews: (news: DownloadView) => void,
  intervalMs = newsMs,
): Promise<DownloadView> {
  const provider = await choose(controller, reference);
  const control = controlOf(provider);
  let news = begun;
  onNews(news);
  while (news.id !== null && (news.status === 'downloading' || news.status === 'paused')) {
    await sleep(intervalMs);
    const call = control.downloadStatus(news.id, provider.apiKey);
    const told = await order(controller, provider, call, (answer) => control.decodeDownload(answer), quickMs);
    news = { ...presentDownload(begun.model, told), id: begun.id };
    onNews(news);
  }
  return news;
}

/** How far a download is, by the id that it was given when it began. @throws AdminError */
export async function downloadNews(
  controller: Controller,
  reference: string | number,
  id: string,
): Promise<Omit<DownloadView, 'model'>> {
  const provider = await choose(controller, reference);
  const control = controlOf(provider);
  const call = control.downloadStatus(id, provider.apiKey);
  const told = await order(controller, provider, call, (answer) => control.decodeDownload(answer), quickMs);
  const { model: _model, ...news } = presentDownload('', told);
  return { ...news, id };
}

function presentDownload(model: string, download: Download): DownloadView {
  return {
    id: download.jobId ?? null,
    model,
    status: download.status,
    total_bytes: download.totalBytes ?? null,
    downloaded_bytes: download.downloadedBytes ?? null,
    bytes_per_second: download.bytesPerSecond ?? null,
  };
}
