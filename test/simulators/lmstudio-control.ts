/** LM Studio's v1 calls that load, unload and download models. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { type House, type Outcome, refuse, succeed } from './lmstudio-house.ts';
import { invalid, invalidBody, unknownModel } from './lmstudio-v1.ts';

const loadBody = z.strictObject({
  model: z.string(),
  context_length: z.int().min(1).optional(),
  parallel: z.int().min(1).optional(),
  eval_batch_size: z.int().min(1).optional(),
  flash_attention: z.boolean().optional(),
  num_experts: z.int().min(1).optional(),
  offload_kv_cache_to_gpu: z.boolean().optional(),
  echo_load_config: z.boolean().optional(),
});
const unloadBody = z.strictObject({ instance_id: z.string() });
const downloadBody = z.strictObject({ model: z.string(), quantization: z.string().optional() });

export function loadModel(body: unknown, house: House): Outcome {
  const parsed = loadBody.safeParse(body);
  if (!parsed.success) return invalidBody(parsed.error);
  const { model: name, echo_load_config: echo, ...config } = parsed.data;
  const model = house.shelf.find(name);
  if (model === undefined) return unknownModel(house, name);
  const instance = house.shelf.load(model, config);
  const loadMs = model.loadMs ?? house.loadMs;
  const body200 = {
    type: model.type === 'embeddings' ? 'embedding' : 'llm',
    instance_id: instance.id,
    load_time_seconds: loadMs / 1000,
    status: 'loaded',
    ...(echo === true ? { load_config: instance.config } : {}),
  };
  return { answer: { kind: 'json', status: 200, body: body200, waitMs: loadMs }, script: {} };
}

export function unloadModel(body: unknown, house: House): Outcome {
  const parsed = unloadBody.safeParse(body);
  if (!parsed.success) return invalidBody(parsed.error);
  const id = parsed.data.instance_id;
  if (house.shelf.unload(id)) return succeed({ instance_id: id });
  return refuse(404, `Model instance "${id}" not found.`, {
    type: 'model_not_found',
    code: 'model_not_found',
    param: 'instance_id',
  });
}

export interface Downloads {
  start(body: unknown, house: House): Outcome;
  status(jobId: string, house: House): Outcome;
}

const totalBytes = 2_279_145_003;

/** Each look at a job finds another third of it done; at the end the model is there, not loaded. */
export function createDownloads(): Downloads {
  const jobs = new Map<string, { readonly model: string; readonly startedAt: string; thirds: number }>();
  const describe = (jobId: string, startedAt: string, thirds: number): Readonly<Record<string, unknown>> => ({
    job_id: jobId,
    status: thirds < 3 ? 'downloading' : 'completed',
    total_size_bytes: totalBytes,
    downloaded_bytes: Math.round((totalBytes * thirds) / 3),
    started_at: startedAt,
    ...(thirds < 3
      ? { bytes_per_second: 50_000_000, estimated_completion: startedAt }
      : { completed_at: startedAt }),
  });
  return {
    start(body, house) {
      const parsed = downloadBody.safeParse(body);
      if (!parsed.success) return invalidBody(parsed.error);
      const { model, quantization } = parsed.data;
      const isLink = model.startsWith('https://huggingface.co/');
      if (quantization !== undefined && !isLink) {
        return invalid('"quantization" is only supported for Hugging Face links.', 'quantization');
      }
      if (house.shelf.all().some((known) => known.id === model))
        return succeed({ status: 'already_downloaded' });
      const jobId = `job_${randomBytes(5).toString('hex')}`;
      const startedAt = new Date().toISOString();
      jobs.set(jobId, { model, startedAt, thirds: 0 });
      return succeed(describe(jobId, startedAt, 0));
    },
    status(jobId, house) {
      const job = jobs.get(jobId);
      if (job === undefined) return refuse(404, `Job "${jobId}" not found.`, { type: 'job_not_found' });
      job.thirds = Math.min(3, job.thirds + 1);
      if (job.thirds === 3) house.shelf.add({ id: job.model, type: 'llm' });
      return succeed(describe(jobId, job.startedAt, job.thirds));
    },
  };
}
