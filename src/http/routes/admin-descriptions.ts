/** How the administration API is described in the OpenAPI document: rows, reports, answers and errors. */
import { z } from 'zod';
import { usageGroupings, usageSeries } from '../../admin/usage.ts';
import type { ErrorCode } from '../../chat/errors.ts';
import { errorAnswers } from './descriptions.ts';

const moment = z.string().describe('2025-01-01T00:00:00, UTC');
const milliseconds = z.int().nullable().describe('Milliseconds; null: the default');

/** What the fields of rows and of the bodies that set them mean, where their schema does not say it itself. */
const texts: Readonly<Record<string, string>> = {
  id: 'Of the row',
  key: "The provider's short name: lower-case letters, digits and hyphens",
  kind: 'lmstudio, bailian or openai: the wire that it speaks',
  name: 'For people',
  base_url: 'Where it answers, with /v1 where its wire has that',
  api_key_env: 'The environment variable that holds its key',
  enabled: 'false: it is kept, and not used',
  max_concurrency: 'Calls at once; null: the default',
  max_queue: 'Calls that may wait for a place; null: the default',
  abort_grace_ms:
    'How long a call that was ended still holds its place. Milliseconds; null: the default of its kind',
  connect_timeout_ms: 'Milliseconds until the request is written; 0: no limit, null: the default',
  first_event_timeout_ms: 'Milliseconds to the first text; 0: no limit, null: the default',
  idle_timeout_ms: 'Milliseconds of silence between two events; 0: no limit, null: the default',
  total_timeout_ms: 'Milliseconds for one call with all its tries; 0: no limit, null: the default',
  origin: 'Who made the row',
  model: 'The title or name of the model',
  provider: 'The key of the provider',
  upstream_model: 'What the provider calls the model; the title if unset',
  api: 'Which wire of LM Studio to use: auto, v0 or v1',
  priority: 'Lower ones are tried first',
  weight: 'The share among routes of one priority',
  title: 'Unique; the name to call',
  img: 'Address of a picture',
  description: 'For people',
  keyword: 'For people who search',
  time: 'Day of publication, as 2025-01-01',
  tag1: 'For people',
  tag2: 'For people',
  type: '0 = language model, 1 = embeddings',
  is_featured: 'Listed first',
  context_length: 'Tokens',
  max_output_tokens: 'Tokens',
  routes: 'Where its calls go',
  state: 'Whether it is valid now',
  scope: 'admin also opens the administration',
  rpm: 'Requests a minute; 0: no limit, null: the default',
  tpm: 'Tokens a minute; 0 or null: no limit',
  daily_tokens: 'Tokens a day (UTC); 0 or null: no limit',
  expires_at: 'When it ceases to be valid, UTC; null: never',
  revoked_at: 'When it was revoked, UTC',
  outcome: 'What became of the row',
  result: 'Whether the provider answered',
  apis: 'The wires that it speaks',
  error: 'Why it did not answer',
  added: 'Models that came into the catalog',
  joined: 'Models that got a route to this provider',
  vanished: 'Models that it lists no longer',
  returned: 'Models that it lists again',
  parallel: 'Calls that this copy takes at once',
  load_time_seconds: 'Seconds',
  status: 'How far it is',
  total_bytes: 'Bytes',
  downloaded_bytes: 'Bytes',
  bytes_per_second: 'Bytes a second',
  quantization: 'Which of its files, as Q4_K_M',
  period: 'Start of the hour or day, UTC; null without a series',
  requests: 'How many calls',
  input_tokens: 'Sum',
  output_tokens: 'Sum',
  total_tokens: 'Sum',
  reasoning_tokens: 'Sum, contained in the output tokens',
  attempts: 'How many tries they took',
  average_queued_ms: 'Milliseconds; null where nothing was measured',
  average_first_token_ms: 'Milliseconds; null where nothing was measured',
  average_duration_ms: 'Milliseconds; null where nothing was measured',
};

/** The same schema with a description at every field that has a name in the table and none of its own. */
export function withTexts(schema: z.ZodObject): z.ZodObject {
  const fields = Object.entries(schema.shape).map(([name, field]) => {
    const text = texts[name];
    const inner = field instanceof z.ZodOptional ? field.unwrap() : field;
    const own = z.globalRegistry.get(field)?.description ?? z.globalRegistry.get(inner)?.description;
    return [name, own === undefined && text !== undefined ? field.meta({ description: text }) : field];
  });
  return schema.safeExtend(Object.fromEntries(fields));
}

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

const providerViewFields = z.object({
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
export const providerView = withTexts(providerViewFields).meta({ title: 'Provider' });

const routeViewFields = z.object({
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
export const routeView = withTexts(routeViewFields).meta({ title: 'Route' });

const modelViewFields = z.object({
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
export const modelView = withTexts(modelViewFields).meta({ title: 'ManagedModel' });

const limit = z.int().nullable();

const keyViewFields = z.object({
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
export const keyView = withTexts(keyViewFields).meta({ title: 'Key' });

export const createdKey = withTexts(keyViewFields)
  .extend({ key: z.string().describe('The key itself, shown this once') })
  .meta({ title: 'CreatedKey' });

const removalFields = z.object({
  id: z.int(),
  outcome: z.enum(['removed', 'disabled', 'revoked']),
  models: z.array(z.string()).optional().describe('Discovered models that went with a provider'),
});
export const removal = withTexts(removalFields).meta({ title: 'Removal' });

const providerReportFields = z.object({
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
export const providerReport = withTexts(providerReportFields).meta({ title: 'ProviderReport' });

const loadedViewFields = z.object({
  id: z.string().describe('Names this copy'),
  model: z.string(),
  type: z.enum(['llm', 'embedding']),
  context_length: z.int().nullable(),
  parallel: z.int().nullable(),
});
export const loadedView = withTexts(loadedViewFields).meta({ title: 'LoadedModel' });

const loadViewFields = z.object({
  id: z.string(),
  model: z.string(),
  load_time_seconds: z.number().nullable(),
  context_length: z.int().nullable(),
  parallel: z.int().nullable(),
});
export const loadView = withTexts(loadViewFields).meta({ title: 'Load' });

const downloadViewFields = z.object({
  id: z.string().nullable().describe('Asks for news; null where there is nothing to wait for'),
  model: z.string(),
  status: z.enum(['downloading', 'paused', 'completed', 'failed', 'already_downloaded']),
  total_bytes: z.number().nullable(),
  downloaded_bytes: z.number().nullable(),
  bytes_per_second: z.number().nullable(),
});
export const downloadView = withTexts(downloadViewFields).meta({ title: 'Download' });

/** Which rows of a list are wanted. */
export const pageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).optional().describe('Rows at most; all of them if absent'),
  after: z.coerce.number().int().min(0).optional().describe('The last id of the page before'),
});

export const usageQuery = z.object({
  by: z.enum(usageGroupings).optional().describe('Default model'),
  since: z.string().optional().describe('90m, 24h, 7d, 2025-01-31; default 7d'),
  until: z.string().optional().describe('The same; default now'),
  series: z.enum(usageSeries).optional().describe('A line for each hour or day'),
});

const usageViewFields = z.object({
  id: z.string(),
  group: z.string().describe('Empty where the calls had none'),
  period: z.string().nullable(),
  requests: z.int(),
  input_tokens: z.int(),
  output_tokens: z.int(),
  total_tokens: z.int(),
  reasoning_tokens: z.int(),
  unknown_usage: z.int().describe('Calls whose tokens the upstream did not report; estimated in the sums'),
  attempts: z.int(),
  average_queued_ms: z.int().nullable(),
  average_first_token_ms: z.int().nullable(),
  average_duration_ms: z.int().nullable(),
});
export const usageView = withTexts(usageViewFields).meta({ title: 'UsageLine' });

const envelopeOf = (title: string, code: number, data: z.ZodType) =>
  z.object({ code: z.literal(code), message: z.literal('success'), data }).meta({ title });

const security: readonly Record<string, readonly string[]>[] = [{ bearer: [] }, { apiKey: [] }];

/** `listKeys` answers with a `ListKeysAnswer`. */
const answerNameOf = (operationId: string): string =>
  `${operationId.charAt(0).toUpperCase()}${operationId.slice(1)}Answer`;

/** A route of the administration: its answer and its errors beside those of every one. */
export function adminDescription(
  operationId: string,
  summary: string,
  code: 200 | 201,
  data: z.ZodType,
  ...errors: readonly ErrorCode[]
) {
  return {
    tags: ['admin'],
    operationId,
    summary,
    security,
    response: {
      [code]: {
        description: code === 201 ? 'Done' : 'The answer',
        content: { 'application/json': { schema: envelopeOf(answerNameOf(operationId), code, data) } },
      },
      ...errorAnswers('UNAUTHORIZED', 'FORBIDDEN', ...errors),
    },
  };
}
