/**
 * LM Studio's orders of v1 (0.4.0 and later): load, unload and download models. Knows nothing of chats.
 * Wire: https://lmstudio.ai/docs/developer/rest/load, /unload, /download and /download-status.
 */
import { z } from 'zod';
import type { OrderOutcome, ProviderControl, UpstreamAnswer } from '../chat/adapter.ts';
import { getCall, jsonCall } from './openai-request.ts';
import { errorIn, parseJson, wordsOf } from './wire-errors.ts';

const text = z.string().nullish().catch(undefined);
const count = z.number().nullish().catch(undefined);

const loadAnswer = z.object({
  instance_id: z.string().min(1),
  load_time_seconds: count,
  load_config: z.object({ context_length: count, parallel: count }).nullish().catch(undefined),
});

const unloadAnswer = z.object({ instance_id: z.string().min(1) });

const downloadAnswer = z.object({
  job_id: text,
  status: z.enum(['downloading', 'paused', 'completed', 'failed', 'already_downloaded']),
  total_size_bytes: count,
  downloaded_bytes: count,
  bytes_per_second: count,
});

const olderServer = 'this server takes no orders; LM Studio 0.4.0 or later does';

/** A 200 with `error` is a refusal, as everywhere in LM Studio, and is how an older server answers these paths. */
function read<T>(answer: UpstreamAnswer, schema: z.ZodType<T>): OrderOutcome<T> {
  const body = parseJson(answer.body);
  const succeeded = answer.status >= 200 && answer.status < 300;
  const parsed = schema.safeParse(body);
  if (succeeded && errorIn(body) === undefined && parsed.success) return { ok: true, value: parsed.data };
  const { words } = wordsOf(answer.body);
  return { ok: false, words: /^unexpected endpoint or method/i.test(words) ? olderServer : words };
}

/** The members that were told, under the names that the hub has for them. */
function told<T extends object>(members: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== null && value !== undefined),
  ) as { [K in keyof T]?: NonNullable<T[K]> };
}

export const lmstudioControl: ProviderControl = {
  load: ({ model, contextLength }, apiKey) =>
    jsonCall(
      '/api/v1/models/load',
      {
        model,
        ...(contextLength === undefined ? {} : { context_length: contextLength }),
        echo_load_config: true,
      },
      apiKey,
      false,
    ),
  decodeLoad(answer) {
    const said = read(answer, loadAnswer);
    if (!said.ok) return said;
    const { instance_id, load_time_seconds, load_config } = said.value;
    return {
      ok: true,
      value: {
        instanceId: instance_id,
        ...told({
          loadSeconds: load_time_seconds,
          contextLength: load_config?.context_length,
          parallel: load_config?.parallel,
        }),
      },
    };
  },
  unload: (instanceId, apiKey) =>
    jsonCall('/api/v1/models/unload', { instance_id: instanceId }, apiKey, false),
  decodeUnload(answer) {
    const said = read(answer, unloadAnswer);
    return said.ok ? { ok: true, value: said.value.instance_id } : said;
  },
  download: (wish, apiKey) => jsonCall('/api/v1/models/download', { ...wish }, apiKey, false),
  downloadStatus: (jobId, apiKey) =>
    getCall(`/api/v1/models/download/status/${encodeURIComponent(jobId)}`, apiKey),
  decodeDownload(answer) {
    const said = read(answer, downloadAnswer);
    if (!said.ok) return said;
    const { status, job_id, total_size_bytes, downloaded_bytes, bytes_per_second } = said.value;
    return {
      ok: true,
      value: {
        status,
        ...told({
          jobId: job_id,
          totalBytes: total_size_bytes,
          downloadedBytes: downloaded_bytes,
          bytesPerSecond: bytes_per_second,
        }),
      },
    };
  },
};
