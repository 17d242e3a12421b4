/** A gateway in front of simulated LM Studios, on a database file of its own: the scene of the tests over real sockets. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { onTestFinished, vi } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { insertModel } from '../../src/store/models.ts';
import { insertProvider } from '../../src/store/providers.ts';
import { insertRoute } from '../../src/store/routes.ts';
import type { Database, ProviderChanges, RouteChanges, UsageRow } from '../../src/store/schema.ts';
import { type LmStudioOptions, type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { startGateway } from './gateway.ts';
import { ask, type WireAnswer } from './wire.ts';

/** One that is in memory and does not think. */
export const chatModel = 'qwen2.5-7b-instruct';

export interface StageRoute extends RouteChanges {
  /** The catalog's title; `chatModel` if unset. */
  readonly model?: string;
  /** Position of its LM Studio. */
  readonly studio: number;
  /** `chatModel` if unset. */
  readonly upstream?: string;
}

export interface StageOptions {
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** One for each LM Studio; one of the default kind if unset. Their keys are `lmstudio`, `lmstudio-2`, … */
  readonly studios?: readonly LmStudioOptions[];
  /** What the providers' rows say, by position. */
  readonly providers?: readonly (ProviderChanges & { readonly base_url?: string })[];
  /** Routes made by a person before the start; discovery then adds none to their models. */
  readonly routes?: readonly StageRoute[];
}

export interface Stage {
  readonly url: string;
  readonly port: number;
  /** The first. */
  readonly studio: LmStudioSimulator;
  readonly studios: readonly LmStudioSimulator[];
  /** The database file. */
  readonly file: string;
  /** The rows of the usage log, oldest first. */
  usage(): readonly UsageRow[];
  /** The one row of a request, once it is written. */
  usageOf(requestId: string): Promise<UsageRow>;
  /** POST /api/llm/chat of `chatModel`, over a socket that the test's end closes. */
  chat(body?: Readonly<Record<string, unknown>>, headers?: Readonly<Record<string, string>>): WireAnswer;
  close(): Promise<void>;
}

/** The body of a plain chat. */
export const chatBody = (
  rest: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> => ({
  model: chatModel,
  messages: [{ role: 'user', content: '你好' }],
  ...rest,
});

const keyOf = (position: number): string => (position === 0 ? 'lmstudio' : `lmstudio-${position + 1}`);

/** Writes what a gateway will find in its database when it starts. */
export async function prepareDatabase(
  file: string,
  studios: readonly LmStudioSimulator[],
  { providers = [], routes = [] }: Pick<StageOptions, 'providers' | 'routes'>,
): Promise<void> {
  const store = await openStore(file);
  try {
    const ids: number[] = [];
    for (const [position, studio] of studios.entries()) {
      const row = await insertProvider(store.db, {
        key: keyOf(position),
        kind: 'lmstudio',
        base_url: studio.url,
        origin: position === 0 ? 'environment' : 'admin',
        ...providers[position],
      });
      ids.push(row.id);
    }
    await insertRoutes(store.db, ids, routes);
  } finally {
    await store.close();
  }
}

async function insertRoutes(
  db: Database,
  providerIds: readonly number[],
  routes: readonly StageRoute[],
): Promise<void> {
  const modelIds = new Map<string, number>();
  for (const { model: title = chatModel, studio, upstream = chatModel, ...rest } of routes) {
    const modelId = modelIds.get(title) ?? (await insertModel(db, { title, origin: 'admin' })).id;
    modelIds.set(title, modelId);
    const providerId = providerIds[studio];
    if (providerId === undefined) throw new Error(`no LM Studio ${studio}`);
    await insertRoute(db, {
      ...rest,
      model_id: modelId,
      provider_id: providerId,
      upstream_model: upstream,
      origin: 'admin',
    });
  }
}

/** Starts one. Close it, or use `stage`. */
export async function startStage(options: StageOptions = {}): Promise<Stage> {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-'));
  const file = path.join(directory, 'gateway.db');
  const studios = await Promise.all((options.studios ?? [{}]).map((one) => startLmStudio(one)));
  const [studio] = studios;
  if (studio === undefined) throw new Error('a stage needs an LM Studio');
  await prepareDatabase(file, studios, options);
  const gateway = await startGateway({
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: options.providers?.[0]?.base_url ?? studio.url,
    ...options.environment,
  });
  const port = Number(new URL(gateway.url).port);
  const usage = (): readonly UsageRow[] => {
    const database = new SqliteDatabase(file, { readonly: true });
    try {
      return database.prepare<[], UsageRow>('SELECT * FROM usage ORDER BY id').all();
    } finally {
      database.close();
    }
  };
  return {
    url: gateway.url,
    port,
    studio,
    studios,
    file,
    usage,
    usageOf: (requestId) =>
      vi.waitFor(
        () => {
          const rows = usage().filter((row) => row.request_id.startsWith(requestId));
          const [row] = rows;
          if (row === undefined || rows.length > 1) throw new Error(`${rows.length} rows of ${requestId}`);
          return row;
        },
        { timeout: 3000, interval: 20 },
      ),
    chat: (body = {}, headers = {}) => ask(port, '/api/llm/chat', { body: chatBody(body), headers }),
    async close() {
      await gateway.close();
      await Promise.all(studios.map((one) => one.close()));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Starts one that ends with the test. */
export async function stage(options: StageOptions = {}): Promise<Stage> {
  const started = await startStage(options);
  onTestFinished(() => started.close());
  return started;
}

/** Milliseconds since a moment of performance.now(). */
export const since = (start: number): number => performance.now() - start;
