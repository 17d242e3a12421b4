/** A gateway in front of one upstream of each kind, for tests that must pass against all of them alike. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openStore } from '../../src/store/database.ts';
import { insertModel } from '../../src/store/models.ts';
import { insertProvider } from '../../src/store/providers.ts';
import { insertRoute } from '../../src/store/routes.ts';
import type { ProviderChanges } from '../../src/store/schema.ts';
import { defaultKey, startBailian } from '../simulators/bailian.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import type { Script } from '../simulators/script.ts';
import type { RecordingServer } from '../simulators/server.ts';
import { type RunningGateway, startGateway } from './gateway.ts';

export interface Upstream {
  /** The catalog's titles, which are the upstream's own names too. */
  readonly model: string;
  readonly embeddingModel: string;
  readonly server: RecordingServer;
  /** The fate of the next generation requests, each once. */
  next(...scripts: readonly Script[]): void;
}

export const upstreamNames = ['lmstudio', 'bailian', 'openai'] as const;

/** Beside them LM Studio's own v1, which takes neither tools nor answer formats. */
export const wireNames = [...upstreamNames, 'lmstudio-v1'] as const;
type WireName = (typeof wireNames)[number];

export interface Upstreams {
  readonly gateway: RunningGateway;
  /** For clients of OpenAI. */
  readonly baseUrl: string;
  readonly of: Readonly<Record<WireName, Upstream>>;
  /** Forgets all scripts and past requests. */
  reset(): void;
  close(): Promise<void>;
}

/**
 * Close it, or its sockets keep the process alive.
 * @param local what the row of the OpenAI-compatible server says
 */
export async function startUpstreams(
  environment: Readonly<Record<string, string | undefined>> = {},
  local: ProviderChanges = {},
): Promise<Upstreams> {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-'));
  const file = path.join(directory, 'gateway.db');
  const studio = await startLmStudio();
  const bailian = await startBailian();
  // LM Studio's OpenAI paths are a chat-completions server like any other.
  const server = await startLmStudio({
    models: [
      { id: 'local-chat', type: 'llm', loaded: true, toolUse: true },
      { id: 'local-embed', type: 'embeddings', loaded: true },
    ],
  });
  const store = await openStore(file);
  await insertProvider(store.db, {
    key: 'local',
    kind: 'openai',
    base_url: `${server.url}/v1`,
    origin: 'admin',
    ...local,
  });
  const lmstudio = await insertProvider(store.db, {
    key: 'lmstudio',
    kind: 'lmstudio',
    base_url: studio.url,
    origin: 'environment',
  });
  const ownWire = await insertModel(store.db, { title: 'studio-v1', origin: 'admin' });
  await insertRoute(store.db, {
    model_id: ownWire.id,
    provider_id: lmstudio.id,
    upstream_model: 'qwen2.5-7b-instruct',
    api: 'v1',
    origin: 'admin',
  });
  await store.close();
  const gateway = await startGateway({
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: studio.url,
    BAILIAN_BASE_URL: bailian.baseUrl,
    DASHSCOPE_API_KEY: defaultKey,
    ...environment,
  });
  const embeddingModel = 'text-embedding-nomic-embed-text-v1.5';
  return {
    gateway,
    baseUrl: `${gateway.url}/v1`,
    of: {
      lmstudio: { model: 'qwen2.5-7b-instruct', embeddingModel, server: studio, next: studio.next },
      'lmstudio-v1': { model: 'studio-v1', embeddingModel, server: studio, next: studio.next },
      bailian: {
        model: 'qwen-max',
        embeddingModel: 'text-embedding-v4',
        server: bailian,
        next: bailian.scripts.next,
      },
      openai: { model: 'local-chat', embeddingModel: 'local-embed', server, next: server.next },
    },
    reset() {
      studio.reset();
      server.reset();
      bailian.scripts.clear();
      bailian.forget();
    },
    async close() {
      await gateway.close();
      await Promise.all([studio.close(), bailian.stop(), server.close()]);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
