/** POST /api/admin/providers/{id}/…: what a provider is asked or told to do: check, sync, load, unload, download. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import {
  type Controller,
  downloadNews,
  downloadWish,
  listLoaded,
  loadModel,
  loadWish,
  startDownload,
  unloadModel,
  unloadWish,
} from '../../admin/control.ts';
import { checkProviders, syncProviders } from '../../admin/providers.ts';
import { envelope } from '../../facades/unified.ts';
import { reportChange } from '../audit.ts';
import { asCallersError, created, idOf } from './admin-answers.ts';
import {
  adminDescription,
  downloadView,
  loadedView,
  loadView,
  providerReport,
  withTexts,
} from './admin-descriptions.ts';

const config = { access: 'admin' } as const;
const params = z.object({ id: z.string().describe('The row id') });

interface Order {
  readonly name: 'check' | 'sync' | 'load' | 'unload' | 'download';
  readonly operationId: string;
  readonly about: string;
  readonly body?: z.ZodType;
  readonly view: z.ZodType;
  run(id: number, input: unknown): Promise<unknown>;
}

function ordersOf(administration: Controller): readonly Order[] {
  const refresh = async (id: number): Promise<void> => {
    await checkProviders(administration, id);
  };
  return [
    {
      name: 'check',
      operationId: 'checkProvider',
      about: 'Ask a provider for its models, and tell whether it answers. Loads none and costs nothing.',
      view: providerReport,
      run: async (id) => (await checkProviders(administration, id))[0],
    },
    {
      name: 'sync',
      operationId: 'syncProvider',
      about: 'Bring the catalog up to date with the models that a provider lists',
      view: providerReport,
      run: async (id) => (await syncProviders(administration, id))[0],
    },
    {
      name: 'load',
      operationId: 'loadModel',
      about: 'Load a model into memory; answers when it is loaded, which may take minutes',
      body: withTexts(loadWish).meta({ title: 'LoadOrder', examples: [{ model: 'qwen/qwen3-8b' }] }),
      view: loadView,
      async run(id, input) {
        const loaded = await loadModel(administration, id, input);
        await refresh(id);
        return loaded;
      },
    },
    {
      name: 'unload',
      operationId: 'unloadModel',
      about: 'Put a model away: the copy of that id, or every copy of the model of that name',
      body: withTexts(unloadWish).meta({ title: 'UnloadOrder', examples: [{ model: 'qwen/qwen3-8b' }] }),
      view: z.array(z.string()).describe('The ids of the copies that were put away'),
      async run(id, input) {
        const copies = await unloadModel(administration, id, input);
        await refresh(id);
        return copies;
      },
    },
    {
      name: 'download',
      operationId: 'startDownload',
      about: 'Begin to download a model; GET …/download/{job} tells how far it is',
      body: withTexts(downloadWish).meta({ title: 'DownloadOrder', examples: [{ model: 'qwen/qwen3-8b' }] }),
      view: downloadView,
      run: (id, input) => startDownload(administration, id, input),
    },
  ];
}

export function registerOrders(app: FastifyInstance, administration: Controller): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  /** A provider's refusal names it as its models' callers know it. */
  const told = async <T>(id: number, work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      const provider = administration.catalog.providers().find((one) => one.id === id);
      throw asCallersError(error, provider?.displayName);
    }
  };
  for (const { name, operationId, about, body, view, run } of ordersOf(administration)) {
    routes.post(
      `/api/admin/providers/:id/${name}`,
      {
        config,
        schema: {
          ...adminDescription(
            operationId,
            about,
            201,
            view,
            'INVALID_PARAMS',
            'NOT_FOUND',
            'CONFLICT',
            'UPSTREAM_ERROR',
          ),
          params,
          ...(body === undefined ? {} : { body }),
        },
      },
      async (request, reply) => {
        const id = idOf(request.params.id);
        const result = await told(id, run(id, request.body));
        reportChange(request, `providers.${name}`, { id });
        return reply.code(201).send(created(result));
      },
    );
  }
  routes.get(
    '/api/admin/providers/:id/loaded',
    {
      config,
      schema: {
        ...adminDescription(
          'listLoadedModels',
          "What is in a provider's memory now",
          200,
          z.array(loadedView),
          'INVALID_PARAMS',
          'NOT_FOUND',
          'UPSTREAM_ERROR',
        ),
        params,
      },
    },
    async (request) => {
      const id = idOf(request.params.id);
      return envelope(await told(id, listLoaded(administration, id)));
    },
  );
  routes.get(
    '/api/admin/providers/:id/download/:job',
    {
      config,
      schema: {
        ...adminDescription(
          'getDownload',
          'How far a download is',
          200,
          downloadView.omit({ model: true }).meta({ title: 'DownloadNews' }),
          'INVALID_PARAMS',
          'NOT_FOUND',
          'UPSTREAM_ERROR',
        ),
        params: params.extend({ job: z.string().describe('The `id` that the download was given') }),
      },
    },
    async (request) => {
      const id = idOf(request.params.id);
      return envelope(await told(id, downloadNews(administration, id, request.params.job)));
    },
  );
}
