/** /metrics against what really happened: the usage table and the log tell the same, and clients cannot make series. */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Pool } from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { insertProvider } from '../../src/store/providers.ts';
import type { UsageRow } from '../../src/store/schema.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { type BailianSimulator, defaultKey, startBailian } from '../simulators/bailian.ts';
import { faults } from '../simulators/faults.ts';
import { type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { startGateway } from './gateway.ts';
import { metricNames, readMetrics, sumOf } from './metrics-text.ts';
import { chatModel } from './prepare.ts';
import { type LogLine, type SpawnedGateway, spawnGateway } from './spawned.ts';
import { request } from './wire.ts';

const SqliteDatabase = await loadSqlite();

interface Scene {
  readonly gateway: SpawnedGateway;
  readonly studio: LmStudioSimulator;
  readonly bailian: BailianSimulator;
  rows(): readonly UsageRow[];
}

/** A gateway in front of one upstream of each kind. */
async function startScene(): Promise<Scene> {
  const directory = mkdtempSync(path.join(tmpdir(), 'metrics-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const file = path.join(directory, 'gateway.db');
  const studio = await startLmStudio();
  const bailian = await startBailian();
  const local = await startLmStudio({
    models: [
      { id: 'local-chat', type: 'llm', loaded: true },
      { id: 'local-embed', type: 'embeddings', loaded: true },
    ],
  });
  onTestFinished(async () => {
    await Promise.all([studio.close(), bailian.stop(), local.close()]);
  });
  const store = await openStore(file);
  await insertProvider(store.db, {
    key: 'local',
    kind: 'openai',
    base_url: `${local.url}/v1`,
    origin: 'admin',
  });
  await store.close();
  const gateway = await spawnGateway({
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: studio.url,
    BAILIAN_BASE_URL: bailian.baseUrl,
    DASHSCOPE_API_KEY: defaultKey,
    UPSTREAM_MAX_RETRIES: '1',
    UPSTREAM_FIRST_EVENT_TIMEOUT_MS: '100',
    UPSTREAM_TOTAL_TIMEOUT_MS: '2000',
  });
  const database = new SqliteDatabase(file, { readonly: true });
  onTestFinished(() => void database.close());
  const read = database.prepare<[], UsageRow>('SELECT * FROM usage ORDER BY id');
  return { gateway, studio, bailian, rows: () => read.all() };
}

const knownModels: ReadonlySet<string> = new Set([chatModel, 'qwen-max', 'local-chat', 'local-embed']);
const messages = [{ role: 'user', content: '你好' }];

/** Twenty calls of every kind and end, one after the other. */
async function everyKind({ gateway, studio, bailian }: Scene): Promise<void> {
  const call = (where: string, body: unknown) =>
    request(gateway.port, where, { body, headers: { 'x-request-id': randomUUID() } });
  const unified = (body: object = {}) => call('/api/llm/chat', { model: chatModel, messages, ...body });
  const openai = (body: object = {}) => call('/v1/chat/completions', { model: chatModel, messages, ...body });
  const stream = true;
  const tools = [{ type: 'function', function: { name: 'now', parameters: { type: 'object' } } }];

  await unified().done;
  await unified({ stream, user: 'u1' }).done;
  studio.next({ finishReason: 'length' });
  await openai().done;
  studio.next({ toolCalls: [{ name: 'now', arguments: '{}' }] });
  await openai({ stream, tools }).done;
  studio.next({ finishReason: 'content_filter' });
  await unified({ stream }).done;
  studio.next(faults.noUsage());
  await unified({ stream }).done;
  studio.next(faults.status(503), faults.status(503));
  await unified().done;
  studio.next(faults.status(502));
  await openai().done;
  studio.next(faults.cut());
  await unified({ stream }).done;
  studio.next(faults.errorFrame());
  await openai({ stream }).done;
  studio.next(faults.stall('start'));
  await unified({ stream }).done;
  await unified({ model: `nobody-${randomUUID()}` }).done;
  await openai({ temperature: 9 }).done;
  await call('/api/llm/chat', '{').done;
  studio.next({ ...faults.stall('after-text'), text: ['a', 'b'] });
  const left = unified({ stream });
  await left.until((body) => body.includes('data: '));
  left.leave();
  await unified({ model: 'qwen-max' }).done;
  await openai({ model: 'qwen-max', stream }).done;
  bailian.scripts.next(faults.status(400));
  await unified({ model: 'qwen-max' }).done;
  await openai({ model: 'local-chat', stream }).done;
  await call('/v1/embeddings', { model: 'local-embed', input: ['a', 'b'] }).done;
}

const tally = (words: readonly string[]): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
};

const add = (numbers: readonly (number | null)[]): number =>
  numbers.reduce<number>((sum, one) => sum + (one ?? 0), 0);

/** Whether the upstream counted its tokens: the metrics and the log tell no estimate. */
const isCounted = (row: UsageRow): boolean => row.attempts > 0 && row.exact === 1;

/** What a log line and a usage row both tell of a call. */
const factsOfRow = (row: UsageRow): LogLine => ({
  requestId: row.request_id,
  endpoint: row.endpoint,
  model: row.model,
  provider: row.provider ?? undefined,
  upstreamModel: row.upstream_model ?? undefined,
  stream: row.stream === 1,
  ending: row.ending,
  status: row.status,
  inputTokens: isCounted(row) ? (row.input_tokens ?? undefined) : undefined,
  outputTokens: isCounted(row) ? (row.output_tokens ?? undefined) : undefined,
  queuedMs: row.queued_ms,
  firstTokenMs: row.first_token_ms ?? undefined,
  totalMs: row.duration_ms,
  attempts: row.attempts,
});

const factsOfLine = (line: LogLine, names: readonly string[]): LogLine =>
  Object.fromEntries(names.map((name) => [name, line[name]]));

describe('what is told about 200 calls of every kind and end', () => {
  it('is the same in the metrics, in the usage table and in the log, line for line', async () => {
    const scene = await startScene();
    for (let round = 0; round < 10; round += 1) await everyKind(scene);
    await vi.waitFor(() => expect(scene.rows()).toHaveLength(200), 5000);
    const samples = readMetrics(await (await fetch(`${scene.gateway.url}/metrics`)).text());
    const rows = scene.rows();
    const lines = await vi.waitFor(() => {
      const written = scene.gateway.log.filter((line) => line['msg'] === 'call');
      expect(written).toHaveLength(200);
      return written;
    }, 5000);

    expect(Object.keys(tally(rows.map((row) => row.ending))).sort()).toEqual([
      'client_gone',
      'content_filter',
      'error',
      'length',
      'rejected',
      'stop',
      'timeout',
      'tool_calls',
    ]);
    const facts = rows.map(factsOfRow);
    const names = Object.keys(facts[0] ?? {});
    expect(lines.map((line) => factsOfLine(line, names))).toEqual(facts);

    const groups = tally(
      rows.map((row) =>
        [
          row.endpoint,
          knownModels.has(row.model) ? row.model : 'unknown',
          row.provider ?? 'none',
          row.ending,
        ].join(' '),
      ),
    );
    const counted = samples.filter((sample) => sample.name === 'gateway_requests_total');
    expect(
      Object.fromEntries(
        counted.map(({ labels, value }) => [
          [labels['endpoint'], labels['model'], labels['provider'], labels['ending']].join(' '),
          value,
        ]),
      ),
    ).toEqual(groups);

    const tokens = (type: string): number => sumOf(samples, 'gen_ai_client_token_usage_sum', { type });
    expect(tokens('input')).toBe(add(rows.filter(isCounted).map((row) => row.input_tokens)));
    expect(tokens('output')).toBe(add(rows.filter(isCounted).map((row) => row.output_tokens)));
    expect(tokens('input')).toBeGreaterThan(0);
    expect(sumOf(samples, 'gen_ai_client_token_usage_count', { type: 'input' })).toBe(
      rows.filter(isCounted).length,
    );

    expect(sumOf(samples, 'gen_ai_server_request_duration_seconds_count')).toBe(200);
    expect(sumOf(samples, 'gateway_overhead_seconds_count')).toBe(200);
    const seconds = add(rows.map((row) => row.duration_ms)) / 1000;
    expect(sumOf(samples, 'gen_ai_server_request_duration_seconds_sum')).toBeCloseTo(seconds, 0);
    expect(sumOf(samples, 'gen_ai_server_time_to_first_token_seconds_count')).toBe(
      rows.filter((row) => row.first_token_ms !== null).length,
    );

    const tried = rows.filter((row) => row.attempts > 0).length;
    const again = sumOf(samples, 'gateway_retries_total') + sumOf(samples, 'gateway_fallbacks_total');
    expect(again).toBe(add(rows.map((row) => row.attempts)) - tried);
    expect(again).toBeGreaterThanOrEqual(20);
    expect(sumOf(samples, 'gateway_in_flight')).toBe(0);
  }, 60_000);
});

describe('/metrics', () => {
  it('has every metric that is promised', async () => {
    const gateway = await startGateway();
    onTestFinished(() => gateway.close());
    const names = metricNames(await (await gateway.get('/metrics')).text());
    for (const name of [
      'gen_ai_server_request_duration_seconds',
      'gen_ai_server_time_to_first_token_seconds',
      'gen_ai_server_time_per_output_token_seconds',
      'gen_ai_client_token_usage',
      'gateway_requests_total',
      'gateway_overhead_seconds',
      'gateway_in_flight',
      'gateway_queue_depth',
      'gateway_queue_wait_seconds',
      'gateway_retries_total',
      'gateway_fallbacks_total',
      'gateway_provider_up',
      'gateway_breaker_state',
      'gateway_model_loaded',
      'gateway_usage_buffer_rows',
      'process_cpu_seconds_total',
      'process_resident_memory_bytes',
      'nodejs_eventloop_lag_seconds',
    ]) {
      expect(names).toContain(name);
    }
  });

  it('tells what runs and waits now, and which models are loaded', async () => {
    const studio = await startLmStudio();
    const gateway = await startGateway({ LMSTUDIO_BASE_URL: studio.url });
    onTestFinished(async () => {
      await gateway.close();
      await studio.close();
    });
    const parallel = 4;
    studio.always(faults.stall('start'));
    const { port } = new URL(gateway.url);
    const calls = Array.from({ length: parallel + 3 }, () =>
      request(Number(port), '/api/llm/chat', { body: { model: chatModel, messages } }),
    );
    await vi.waitFor(async () => {
      const samples = readMetrics(await (await gateway.get('/metrics')).text());
      expect(sumOf(samples, 'gateway_in_flight')).toBe(parallel + 3);
      expect(sumOf(samples, 'gateway_queue_depth', { provider: 'lmstudio' })).toBe(3);
      expect(sumOf(samples, 'gateway_provider_up', { provider: 'lmstudio' })).toBe(1);
      expect(sumOf(samples, 'gateway_model_loaded', { provider: 'lmstudio', model: chatModel })).toBe(1);
    }, 5000);
    for (const call of calls) call.leave();
  });

  it('makes no series of what 10,000 clients make up', async () => {
    const gateway = await startGateway();
    onTestFinished(() => gateway.close());
    const pool = new Pool(gateway.url, { connections: 16 });
    onTestFinished(() => pool.destroy());
    const send = async (index: number): Promise<void> => {
      const made = `made-up-${index}-${Math.random().toString(36).slice(2)}`;
      const endpoints = [
        '/api/llm/chat',
        '/v1/chat/completions',
        '/v1/embeddings',
        `/api/llm/${made}`,
        `/${made}`,
      ];
      const { body } = await pool.request({
        method: 'POST',
        path: endpoints[index % endpoints.length] ?? '/',
        headers: {
          'content-type': 'application/json',
          authorization: `Bearer sk-gw-${made}`,
          'x-request-id': made,
          'user-agent': made,
        },
        body: JSON.stringify({ model: made, messages, input: 'a', user: made }),
      });
      await body.dump();
    };
    const seriesNow = async (): Promise<readonly string[]> =>
      readMetrics(await (await gateway.get('/metrics')).text()).map(
        ({ name, labels }) => `${name} ${JSON.stringify(labels)}`,
      );
    const sendRange = async (from: number, to: number): Promise<void> => {
      let next = from;
      const worker = async (): Promise<void> => {
        while (next < to) await send(next++);
      };
      await Promise.all(Array.from({ length: 16 }, worker));
    };
    await sendRange(0, 100);
    const early = await seriesNow();
    await sendRange(100, 10_000);
    const late = await seriesNow();
    const withoutActivity = (series: readonly string[]): number =>
      series.filter((one) => !/^nodejs_(?:active|gc)/.test(one)).length;
    expect(withoutActivity(late)).toBe(withoutActivity(early));
    expect(late.filter((one) => one.includes('made-up'))).toEqual([]);
  }, 120_000);

  it('is for administrators only where keys are asked for', async () => {
    const admin = 'an-administrators-key-0001';
    const gateway = await startGateway({ AUTH: 'on', ADMIN_API_KEY: admin });
    onTestFinished(() => gateway.close());
    expect((await gateway.get('/metrics')).status).toBe(401);
    expect((await gateway.get('/metrics', { authorization: `Bearer ${admin}` })).status).toBe(200);
  });
});

const dashboard = readFileSync('docs/grafana.json', 'utf8');
const alerts = readFileSync('docs/alerts.yml', 'utf8');
const hasPromtool = spawnSync('promtool', ['--version']).status === 0;

describe.each([
  ['docs/grafana.json', dashboard],
  ['docs/alerts.yml', alerts],
])('%s', (_name, text) => {
  it('names only metrics that exist', async () => {
    const gateway = await startGateway();
    onTestFinished(() => gateway.close());
    const names = metricNames(await (await gateway.get('/metrics')).text());
    const named = new Set(
      [...text.matchAll(/\b(?:gateway|gen_ai|nodejs|process)_[a-z0-9_]+/g)].map(([name]) => name),
    );
    expect(named.size).toBeGreaterThan(5);
    const isKnown = (name: string): boolean =>
      names.has(name) || names.has(name.replace(/_(?:bucket|sum|count)$/, ''));
    expect([...named].filter((name) => !isKnown(name))).toEqual([]);
  });
});

describe('docs/alerts.yml', () => {
  it.skipIf(!hasPromtool)('passes promtool', () => {
    expect(execFileSync('promtool', ['check', 'rules', 'docs/alerts.yml'], { encoding: 'utf8' })).toContain(
      'SUCCESS',
    );
  });

  it.skipIf(!hasPromtool)(
    'tells of retries where nothing falls back, and of fallbacks where nothing is tried again',
    () => {
      const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-alerts-'));
      onTestFinished(() => rmSync(directory, { recursive: true }));
      const alert = (provider: string) => ({
        exp_labels: { severity: 'warning', provider },
        exp_annotations: {
          summary: `${provider} often fails at first`,
          description: 'Clients see longer waits, not errors, as long as a later try succeeds.',
        },
      });
      const calls = (provider: string) => ({
        series: `gateway_requests_total{endpoint="e",model="m",provider="${provider}",ending="stop"}`,
        values: '0+100x40',
      });
      const file = path.join(directory, 'test.json');
      const scene = {
        rule_files: [path.resolve('docs/alerts.yml')],
        tests: [
          {
            interval: '1m',
            input_series: [
              calls('retried'),
              { series: 'gateway_retries_total{model="m",provider="retried"}', values: '0+50x40' },
              { series: 'gateway_fallbacks_total{model="m",provider="given-up"}', values: '0+50x40' },
              calls('healthy'),
              { series: 'gateway_retries_total{model="m",provider="healthy"}', values: '0+5x40' },
            ],
            alert_rule_test: [
              {
                eval_time: '35m',
                alertname: 'ManyRetries',
                exp_alerts: [alert('retried'), alert('given-up')],
              },
            ],
          },
        ],
      };
      writeFileSync(file, JSON.stringify(scene));
      const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' });
      expect(status, stdout + stderr).toBe(0);
    },
  );
});
