/** A gateway in front of simulated LM Studios, on a database file of its own: the scene of the tests over real sockets. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onTestFinished, vi } from 'vitest';
import type { UsageRow } from '../../src/store/schema.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { type LmStudioOptions, type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { ask } from './ask.ts';
import { startGateway } from './gateway.ts';
import { chatBody, type Preparation, prepareDatabase } from './prepare.ts';
import type { WireAnswer } from './wire.ts';

const SqliteDatabase = await loadSqlite();

export interface StageOptions extends Preparation {
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** One for each LM Studio; one of the default kind if unset. Their keys are `lmstudio`, `lmstudio-2`, … */
  readonly studios?: readonly LmStudioOptions[];
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
