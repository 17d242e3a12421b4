/** /api/admin: providers, models, routes, keys and usage over HTTP. All that is done here is done by src/admin. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { parseInput } from '../../admin/administration.ts';
import type { Controller } from '../../admin/control.ts';
import { createKey, keySettings, listKeys, newKey, revokeKey, setKey } from '../../admin/keys.ts';
import { addModel, listModels, modelSettings, newModel, removeModel, setModel } from '../../admin/models.ts';
import {
  addProvider,
  listProviders,
  newProvider,
  providerSettings,
  removeProvider,
  setProvider,
} from '../../admin/providers.ts';
import {
  addRoute,
  listRoutes,
  newRoute,
  removeRoute,
  routeSettings,
  routeTarget,
  setRoute,
} from '../../admin/routes.ts';
import { reportUsage } from '../../admin/usage.ts';
import { GatewayError, invalidParameter } from '../../chat/errors.ts';
import { envelope } from '../../facades/unified.ts';
import type { KeyRing } from '../../gateway/keys.ts';
import type { Page } from '../../store/pages.ts';
import { reportChange } from '../audit.ts';
import { sendError } from '../errors.ts';
import { asCallersError, created, idOf } from './admin-answers.ts';
import {
  adminDescription,
  createdKey,
  keyView,
  modelView,
  pageQuery,
  providerView,
  removal,
  routeView,
  usageQuery,
  usageView,
  withTexts,
} from './admin-descriptions.ts';
import { registerOrders } from './admin-orders.ts';

export interface AdminDependencies {
  readonly administration: Controller;
  readonly keys: KeyRing;
}

interface Row {
  readonly id: number;
}

interface Removal {
  readonly id: number;
  readonly outcome: 'removed' | 'disabled' | 'revoked';
  readonly models?: readonly string[];
}

/** One table, as the administration offers it. */
interface Resource {
  /** In the path. */
  readonly name: 'providers' | 'models' | 'routes' | 'keys';
  /** In descriptions. */
  readonly one: string;
  readonly view: z.ZodType;
  readonly created?: z.ZodType;
  readonly creation: z.ZodObject;
  readonly settings: z.ZodObject;
  /** Bodies that show how it is made and changed. */
  readonly examples: { readonly creation: object; readonly settings: object };
  list(page?: Page): Promise<readonly Row[]>;
  create(input: unknown): Promise<Row>;
  change(id: number, input: unknown, version: number): Promise<Row>;
  remove(id: number, version: number): Promise<Removal>;
}

const idParams = z.object({ id: z.string().describe('The row id') });

/** The version that the caller has seen. @throws GatewayError INVALID_PARAMS */
function seenVersion(request: FastifyRequest): number {
  const [, version] = /^(?:W\/)?"?(\d{1,15})"?$/.exec(request.headers['if-match']?.trim() ?? '') ?? [];
  if (version === undefined) throw invalidParameter('if-match', '必须是所读到的 version');
  return Number(version);
}

/** The names of what a body sets; values stay out of the log. */
const fieldsIn = (body: unknown): string[] =>
  typeof body === 'object' && body !== null ? Object.keys(body) : [];

function resourcesOf(administration: Controller, keys: KeyRing): readonly Resource[] {
  /** This process knows at once what it changed; others look once a second. */
  const thenReload = async <T>(change: Promise<T>): Promise<T> => {
    const done = await change;
    await keys.load();
    return done;
  };
  return [
    {
      name: 'providers',
      one: 'provider',
      view: providerView,
      creation: newProvider,
      settings: providerSettings,
      examples: {
        creation: { key: 'vllm', kind: 'openai', base_url: 'http://127.0.0.1:8001/v1' },
        settings: { max_concurrency: 8 },
      },
      list: (page) => listProviders(administration, page),
      create: (input) => addProvider(administration, input),
      change: (id, input, version) => setProvider(administration, id, input, version),
      async remove(id, version) {
        const { models } = await removeProvider(administration, id, version);
        return { id, outcome: 'removed', models };
      },
    },
    {
      name: 'models',
      one: 'model',
      view: modelView,
      creation: newModel.extend(routeTarget.partial().shape),
      settings: modelSettings,
      examples: {
        creation: { title: 'assistant', provider: 'lmstudio', upstream_model: 'qwen/qwen3-8b' },
        settings: { is_featured: true },
      },
      list: (page) => listModels(administration, page),
      create: (input) => addModel(administration, input),
      change: (id, input, version) => setModel(administration, id, input, version),
      async remove(id, version) {
        const { outcome } = await removeModel(administration, id, version);
        return { id, outcome };
      },
    },
    {
      name: 'routes',
      one: 'route',
      view: routeView,
      creation: newRoute,
      settings: routeSettings,
      examples: {
        creation: { model: 'qwen/qwen3-8b', provider: 'bailian', upstream_model: 'qwen-plus', priority: 10 },
        settings: { priority: 10 },
      },
      list: (page) => listRoutes(administration, undefined, page),
      create: (input) => addRoute(administration, input),
      change: (id, input, version) => setRoute(administration, id, input, version),
      async remove(id, version) {
        const { outcome } = await removeRoute(administration, id, version);
        return { id, outcome };
      },
    },
    {
      name: 'keys',
      one: 'key',
      view: keyView,
      created: createdKey,
      creation: newKey,
      settings: keySettings,
      examples: { creation: { name: 'laptop', rpm: 60 }, settings: { rpm: 120 } },
      list: (page) => listKeys(administration, page),
      create: (input) => thenReload(createKey(administration, input)),
      change: (id, input, version) => thenReload(setKey(administration, id, input, version)),
      async remove(id, version) {
        await thenReload(revokeKey(administration, id, version));
        return { id, outcome: 'revoked' };
      },
    },
  ];
}

/** The rows that a query asks for; where more follow, a header names the last id. @throws AdminError */
async function readPage(resource: Resource, query: unknown, reply: FastifyReply): Promise<readonly Row[]> {
  const { limit, after } = parseInput(pageQuery, query);
  if (limit === undefined) return resource.list({ after });
  const rows = await resource.list({ after, limit: limit + 1 });
  if (rows.length <= limit) return rows;
  const page = rows.slice(0, limit);
  reply.header('x-next-after', String(page.at(-1)?.id));
  return page;
}

const config = { access: 'admin' } as const;

const ifMatch = z.object({ 'if-match': z.string().describe('The `version` that was read') });

function registerResource(app: FastifyInstance, resource: Resource): void {
  const { name, one, view, creation, settings, examples } = resource;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const all = `/api/admin/${name}`;
  const single = `${all}/:id`;
  /** As ids of operations name it: the models that callers see are listed by `listModels`. */
  const noun = name === 'models' ? 'ManagedModel' : one.charAt(0).toUpperCase() + one.slice(1);
  routes.get(
    all,
    {
      config,
      schema: {
        ...adminDescription(`list${noun}s`, `All ${name}`, 200, z.array(view), 'INVALID_PARAMS'),
        querystring: pageQuery,
      },
    },
    async (request, reply) => envelope(await readPage(resource, request.query, reply)),
  );
  routes.post(
    all,
    {
      config,
      schema: {
        ...adminDescription(
          `create${noun}`,
          `Make a ${one}`,
          201,
          resource.created ?? view,
          'INVALID_PARAMS',
          'NOT_FOUND',
          'CONFLICT',
        ),
        body: withTexts(creation).meta({ title: `New${noun}`, examples: [examples.creation] }),
      },
    },
    async (request, reply) => {
      const row = await resource.create(request.body);
      reportChange(request, `${name}.create`, { id: row.id, fields: fieldsIn(request.body) });
      return reply.code(201).send(created(row));
    },
  );
  routes.get(
    single,
    {
      config,
      schema: { ...adminDescription(`get${noun}`, `One ${one}`, 200, view, 'NOT_FOUND'), params: idParams },
    },
    async (request) => {
      const id = idOf(request.params.id);
      const [row] = await resource.list({ after: id - 1, limit: 1 });
      if (row?.id !== id) throw new GatewayError('NOT_FOUND');
      return envelope(row);
    },
  );
  routes.patch(
    single,
    {
      config,
      schema: {
        ...adminDescription(
          `change${noun}`,
          `Change a ${one}`,
          200,
          view,
          'INVALID_PARAMS',
          'NOT_FOUND',
          'CONFLICT',
        ),
        params: idParams,
        headers: ifMatch,
        body: withTexts(settings).meta({ title: `${noun}Settings`, examples: [examples.settings] }),
      },
    },
    async (request) => {
      const id = idOf(request.params.id);
      const row = await resource.change(id, request.body, seenVersion(request));
      reportChange(request, `${name}.change`, { id, fields: fieldsIn(request.body) });
      return envelope(row);
    },
  );
  routes.delete(
    single,
    {
      config,
      schema: {
        ...adminDescription(
          `${name === 'keys' ? 'revoke' : 'remove'}${noun}`,
          name === 'keys' ? 'Revoke a key for good; its row stays' : `Remove a ${one}`,
          200,
          removal,
          'INVALID_PARAMS',
          'NOT_FOUND',
          'CONFLICT',
        ),
        params: idParams,
        headers: ifMatch,
      },
    },
    async (request) => {
      const removed = await resource.remove(idOf(request.params.id), seenVersion(request));
      reportChange(request, `${name}.remove`, { ...removed });
      return envelope(removed);
    },
  );
}

/** Bodies are checked by the functions that use them; an empty one is none, since some orders need nothing said. */
function readBodiesLeniently(app: FastifyInstance): void {
  app.setValidatorCompiler(() => (data) => ({ value: data }));
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body.length === 0) done(null, undefined);
    else parse(request, body.toString(), done);
  });
}

export async function registerAdmin(app: FastifyInstance, deps: AdminDependencies): Promise<void> {
  const { administration, keys } = deps;
  await app.register(async (admin) => {
    admin.setErrorHandler((error: unknown, request: FastifyRequest, reply: FastifyReply) =>
      sendError(request, reply, asCallersError(error)),
    );
    readBodiesLeniently(admin);
    for (const resource of resourcesOf(administration, keys)) registerResource(admin, resource);
    registerOrders(admin, administration);
    admin.get(
      '/api/admin/usage',
      {
        config,
        schema: {
          ...adminDescription('reportUsage', 'What was used', 200, z.array(usageView), 'INVALID_PARAMS'),
          querystring: usageQuery,
        },
      },
      async (request) => envelope(await reportUsage(administration, request.query)),
    );
  });
}
