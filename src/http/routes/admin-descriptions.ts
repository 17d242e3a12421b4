/** How the administration API is described in the OpenAPI document: rows, reports, answers and errors. */
import { z } from 'zod';
import { usageGroupings, usageSeries } from '../../admin/usage.ts';
import type { ErrorCode } from '../../chat/errors.ts';
import { errorAnswers } from './descriptions.ts';

const moment = z.string().describe('2025-01-01T00:00:00, UTC');
const milliseconds = z.int().nullable().describe('Milliseconds; null: the default');

const row = {
  id: z.int(),
  version: z.int().describe('Counts the changes; send it back as `if-match`'),
  created_at: moment,
  updated_at: moment,
};

const timeouts = {
  connect_timeout_ms: milliseconds,
  first_event_timeout_ms: milliseconds,
  idle_timeout_ms: milliseconds,
  total_timeout_ms: milliseconds,
};

export const providerView = z.object({
  ...row,
  key: z.string(),
  kind: z.string(),
  name: z.string(),
  base_url: z.string(),
  api_key_env: z.string().nullable().describe('The environment variable that holds its key'),
  api_key: z.enum(['set', 'unset', 'none']).describe('Whether that variable is set'),
  enabled: z.boolean(),
  max_concurrency: z.int().nullable(),
  max_queue: z.int().nullable(),
  abort_grace_ms: z.int().nullable(),
  passthrough: z
    .array(z.string())
    .describe('Request fields unknown to the gateway that it gets as they came'),
  ...timeouts,
  origin: z.enum(['environment', 'admin']),
});

export const routeView = z.object({
  ...row,
  model: z.string(),
  provider: z.string(),
  upstream_model: z.string(),
  api: z.string(),
  priority: z.int(),
  weight: z.int(),
  enabled: z.boolean(),
  vanished: z.boolean().describe("The provider's last model list lacked it"),
  ...timeouts,
  origin: z.enum(['seed', 'discovery', 'admin']),
});

export const modelView = z.object({
  ...row,
  title: z.string(),
  img: z.string(),
  name: z.string(),
  description: z.string(),
  keyword: z.string(),
  time: z.string(),
  tag1: z.string(),
  tag2: z.string(),
  type: z.int(),
  is_featured: z.boolean(),
  enabled: z.boolean(),
  available: z.boolean().describe('Whether it is listed and can be called'),
  context_length: z.int().nullable(),
  max_output_tokens: z.int().nullable(),
  origin: z.enum(['seed', 'discovery', 'admin']),
  routes: z.array(routeView),
});

const limit = z.int().nullable();

export const keyView = z.object({
  ...row,
  name: z.string(),
  prefix: z.string().describe('How the key begins; the rest is not stored'),
  state: z.enum(['active', 'expired', 'revoked']),
  scope: z.enum(['inference', 'admin']),
  models: z.array(z.string()).nullable().describe('Titles that it may use; null: all'),
  rpm: limit,
  tpm: limit,
  max_concurrency: limit,
  daily_tokens: limit,
  expires_at: moment.nullable(),
  revoked_at: moment.nullable(),
});

export const createdKey = keyView.extend({ key: z.string().describe('The key itself, shown this once') });

export const removal = z.object({
  id: z.int(),
  outcome: z.enum(['removed', 'disabled', 'revoked']),
  models: z.array(z.string()).optional().describe('Discovered models that went with a provider'),
});

export const providerReport = z.object({
  id: z.int(),
  key: z.string(),
  result: z.enum(['up', 'down', 'no-key']),
  apis: z.array(z.string()),
  models: z.int().describe('Models on its list'),
  loaded: z.int().describe('How many of them are loaded'),
  error: z.string().nullable(),
  added: z.array(z.string()),
  joined: z.array(z.string()),
  vanished: z.array(z.string()),
  returned: z.array(z.string()),
});

export const loadedView = z.object({
  id: z.string().describe('Names this copy'),
  model: z.string(),
  type: z.enum(['llm', 'embedding']),
  context_length: z.int().nullable(),
  parallel: z.int().nullable(),
});

export const loadView = z.object({
  id: z.string(),
  model: z.string(),
  load_time_seconds: z.number().nullable(),
  context_length: z.int().nullable(),
  parallel: z.int().nullable(),
});

export const downloadView = z.object({
  id: z.string().nullable().describe('Asks for news; null where there is nothing to wait for'),
  model: z.string(),
  status: z.enum(['downloading', 'paused', 'completed', 'failed', 'already_downloaded']),
  total_bytes: z.number().nullable(),
  downloaded_bytes: z.number().nullable(),
  bytes_per_second: z.number().nullable(),
});

export const usageQuery = z.object({
  by: z.enum(usageGroupings).optional().describe('Default model'),
  since: z.string().optional().describe('90m, 24h, 7d, 2025-01-31; default 7d'),
  until: z.string().optional().describe('The same; default now'),
  series: z.enum(usageSeries).optional().describe('A line for each hour or day'),
});

export const usageView = z.object({
  id: z.string(),
  group: z.string().describe('Empty where the calls had none'),
  period: z.string().nullable(),
  requests: z.int(),
  input_tokens: z.int(),
  output_tokens: z.int(),
  total_tokens: z.int(),
  reasoning_tokens: z.int(),
  unknown_usage: z.int().describe('Calls whose tokens the upstream did not report; not in the sums'),
  attempts: z.int(),
  average_queued_ms: z.int().nullable(),
  average_first_token_ms: z.int().nullable(),
  average_duration_ms: z.int().nullable(),
});

const envelopeOf = (code: number, data: z.ZodType) =>
  z.object({ code: z.literal(code), message: z.literal('success'), data });

const security: readonly Record<string, readonly string[]>[] = [{ bearer: [] }, { apiKey: [] }];

/** A route of the administration: its answer and its errors beside those of every one. */
export function adminDescription(
  summary: string,
  code: 200 | 201,
  data: z.ZodType,
  ...errors: readonly ErrorCode[]
) {
  return {
    tags: ['admin'],
    summary,
    security,
    response: {
      [code]: {
        description: code === 201 ? 'Done' : 'The answer',
        content: { 'application/json': { schema: envelopeOf(code, data) } },
      },
      ...errorAnswers('UNAUTHORIZED', 'FORBIDDEN', ...errors),
    },
  };
}
