/** LM Studio as a real HTTP server: both its wires, its refusals, and faults on request. Knows nothing of the gateway. */

import { createDownloads, loadModel, unloadModel } from './lmstudio-control.ts';
import {
  type House,
  type LmStudioScript,
  type Outcome,
  refuse,
  refuseInWords,
  succeed,
  unexpectedEndpoint,
} from './lmstudio-house.ts';
import {
  createModelShelf,
  defaultModels,
  modelOnV0,
  modelOnV1,
  type SimulatedModel,
} from './lmstudio-models.ts';
import { chatOnV0, completionOnV0 } from './lmstudio-v0.ts';
import { embeddingsOnV0 } from './lmstudio-v0-embeddings.ts';
import { modelNotFound } from './lmstudio-v0-refusals.ts';
import { chatOnV1 } from './lmstudio-v1.ts';
import { createScriptQueue, deliver } from './script.ts';
import { type Exchange, type RecordedRequest, type RecordingServer, startRecordingServer } from './server.ts';

export interface LmStudioOptions {
  /** 0 or unset: one that is free. */
  readonly port?: number;
  /** `v0`: a server older than 0.4, which does not know /api/v1. `v1` (the newer, with both wires) if unset. */
  readonly generation?: 'v0' | 'v1';
  /** Calls without this bearer token are a 401. */
  readonly token?: string;
  /** `defaultModels` if unset. */
  readonly models?: readonly SimulatedModel[];
  /** Milliseconds for each piece of text, for reading a prompt, and for loading a model. All 0 if unset. */
  readonly tokenMs?: number;
  readonly promptMs?: number;
  readonly loadMs?: number;
  /** With exactly one model in memory, answer with it whatever was asked for, as some versions do. */
  readonly answersAnyModel?: boolean;
  /** Requests that are remembered; the oldest go first. All if unset. */
  readonly remember?: number;
  /** Several models fail on `system_prompt` beside `previous_response_id`; true: these do not. */
  readonly acceptsRepeatedSystemPrompt?: boolean;
}

export interface LmStudioSimulator extends RecordingServer {
  /** For the next generation requests that the server does not refuse, in this order, each once. */
  next(...scripts: readonly LmStudioScript[]): void;
  /** For every one after those; undefined ends it. */
  always(script: LmStudioScript | undefined): void;
  /** The same for all other calls: model lists, load, unload, download. Only their delivery can be scripted. */
  nextControl(...scripts: readonly LmStudioScript[]): void;
  alwaysControl(script: LmStudioScript | undefined): void;
  /** Other models from now on, loaded as they say. */
  setModels(models: readonly SimulatedModel[]): void;
  /** Forgets the requests of the past and all scripts. */
  reset(): void;
  close(): Promise<void>;
}

const generationPath = /^\/(?:api\/v0|v1)\/(?:chat\/completions|completions|embeddings)$|^\/api\/v1\/chat$/;

/** Listens on 127.0.0.1. Close it, or its sockets keep the process alive. */
export async function startLmStudio(options: LmStudioOptions = {}): Promise<LmStudioSimulator> {
  const house: House = {
    shelf: createModelShelf(options.models ?? defaultModels),
    chats: new Map(),
    tokenMs: options.tokenMs ?? 0,
    promptMs: options.promptMs ?? 0,
    loadMs: options.loadMs ?? 0,
    answersAnyModel: options.answersAnyModel ?? false,
    acceptsRepeatedSystemPrompt: options.acceptsRepeatedSystemPrompt ?? false,
  };
  const scripts = createScriptQueue<LmStudioScript>();
  const controlScripts = createScriptQueue<LmStudioScript>();
  const routes = routesOf(house, options.generation ?? 'v1', () => scripts.take() ?? {});

  async function handle(exchange: Exchange): Promise<void> {
    const { record } = exchange;
    if (options.token !== undefined && record.headers.authorization !== `Bearer ${options.token}`) {
      const { answer } = refuse(401, 'An LM Studio API token is required to make requests to this server.', {
        type: 'invalid_request_error',
        param: null,
        code: 'invalid_api_key',
      });
      return deliver(exchange, answer);
    }
    const outcome = route(routes, record);
    const script = record.generation ? outcome.script : (controlScripts.take() ?? {});
    await deliver(exchange, outcome.answer, script);
  }

  const server = await startRecordingServer({
    ...(options.port === undefined ? {} : { port: options.port }),
    ...(options.remember === undefined ? {} : { remember: options.remember }),
    isGeneration: (method, path) => method === 'POST' && generationPath.test(path),
    handle,
  });
  return Object.assign(server, {
    next: scripts.next,
    always: scripts.always,
    nextControl: controlScripts.next,
    alwaysControl: controlScripts.always,
    setModels: house.shelf.set,
    reset() {
      server.forget();
      scripts.clear();
      controlScripts.clear();
    },
    close: server.stop,
  });
}

type Route = (body: unknown) => Outcome;
interface Routes {
  readonly exact: ReadonlyMap<string, Route>;
  /** `GET` paths that end in a name. */
  readonly byName: readonly { readonly prefix: string; answer(name: string): Outcome }[];
}

function routesOf(house: House, generation: 'v0' | 'v1', take: () => LmStudioScript): Routes {
  const { shelf } = house;
  const downloads = createDownloads();
  const openAiModel = (model: SimulatedModel): object => ({
    id: model.id,
    object: 'model',
    owned_by: 'organization_owner',
  });
  const exact = new Map<string, Route>([
    [
      'GET /api/v0/models',
      () => succeed({ object: 'list', data: shelf.all().map((model) => modelOnV0(model, shelf)) }),
    ],
    ['POST /api/v0/chat/completions', (body) => chatOnV0(body, house, take)],
    ['POST /api/v0/completions', (body) => completionOnV0(body, house, take)],
    ['POST /api/v0/embeddings', (body) => embeddingsOnV0(body, house, take)],
    ['GET /v1/models', () => succeed({ object: 'list', data: shelf.all().map(openAiModel) })],
    ['POST /v1/chat/completions', (body) => chatOnV0(body, house, take, false)],
    ['POST /v1/completions', (body) => completionOnV0(body, house, take, false)],
    ['POST /v1/embeddings', (body) => embeddingsOnV0(body, house, take)],
  ]);
  const v0Model = (name: string): Outcome => {
    const model = shelf.find(name);
    return model === undefined ? modelNotFound(house, name) : succeed(modelOnV0(model, shelf));
  };
  const byName = [{ prefix: '/api/v0/models/', answer: v0Model }];
  if (generation === 'v0') return { exact, byName };
  exact.set('GET /api/v1/models', () =>
    succeed({ models: shelf.all().map((model) => modelOnV1(model, shelf)) }),
  );
  exact.set('POST /api/v1/chat', (body) => chatOnV1(body, house, take));
  exact.set('POST /api/v1/models/load', (body) => loadModel(body, house));
  exact.set('POST /api/v1/models/unload', (body) => unloadModel(body, house));
  exact.set('POST /api/v1/models/download', (body) => downloads.start(body, house));
  const download = (jobId: string): Outcome => downloads.status(jobId, house);
  return { exact, byName: [...byName, { prefix: '/api/v1/models/download/status/', answer: download }] };
}

function route(routes: Routes, record: RecordedRequest): Outcome {
  const { method, path } = record;
  const exact = routes.exact.get(`${method} ${path}`);
  if (exact !== undefined) {
    if (method === 'POST' && record.body === undefined)
      return refuseInWords(400, 'Invalid JSON in request body');
    return exact(record.body);
  }
  const named = routes.byName.find(({ prefix }) => method === 'GET' && path.startsWith(prefix));
  return named === undefined
    ? unexpectedEndpoint(method, path)
    : named.answer(path.slice(named.prefix.length));
}
