/** The API's description and the two pages that show it, from local files and under a policy that allows no other host. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { createJsonSchemaTransform } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { GatewayError } from '../../chat/errors.ts';
import { type Document, makeDocument, sendDocument, tagText } from '../documents.ts';
import { describeRunning, nameSchemas, type Running } from './description.ts';

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  "worker-src 'self' blob:",
  "base-uri 'self'",
  "form-action 'self'",
  "frame-ancestors 'self'",
].join('; ');

const redocPage = `<!doctype html>
<html lang="zh-CN">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>LLM Gateway API</title>
    <link rel="icon" type="image/png" href="/docs/static/favicon-32x32.png">
    <style>body { margin: 0 }</style>
  </head>
  <body>
    <redoc spec-url="/openapi.json" disable-search></redoc>
    <script src="/redoc/redoc.standalone.js"></script>
  </body>
</html>
`;

const transparentPixel = 'data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7';

/** The bundle shows its maker's logo from a CDN; the policy forbids that, so the bundle is served without it. */
function loadRedoc(): string {
  const file = require.resolve('redoc/bundles/redoc.standalone.js');
  return readFileSync(file, 'utf8').replace(/https:\/\/cdn\.redoc\.ly\/[^"'`]*\.svg/g, transparentPixel);
}

const require = createRequire(import.meta.url);

/** How long a browser keeps a file of the pages. Seconds. */
const filesMaxAge = 3600;

const fileTypes: Readonly<Record<string, string>> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
};

/** The documents of the pages by name, each made when it is first asked for. @throws GatewayError NOT_FOUND */
function keepDocuments(make: (name: string) => Document | undefined): (name: string) => Document {
  const kept = new Map<string, Document>();
  return (name) => {
    const document = kept.get(name) ?? make(name);
    if (document === undefined) throw new GatewayError('NOT_FOUND');
    kept.set(name, document);
    return document;
  };
}

/** A file of Swagger UI; undefined where it has none of that name. */
function readSwaggerFile(name: string): Document | undefined {
  const type = fileTypes[path.extname(name)];
  if (type === undefined || !/^[a-z0-9.-]+$/.test(name)) return undefined;
  try {
    const directory = path.join(path.dirname(require.resolve('@fastify/swagger-ui')), 'static');
    return makeDocument(type, readFileSync(path.join(directory, name)), filesMaxAge);
  } catch {
    return undefined;
  }
}

const toJsonSchema = createJsonSchemaTransform({
  zodToJsonConfig: {
    override: ({ jsonSchema }) => {
      // zod writes out that an integer is a safe one; nobody reads that twice.
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      // What is said of a value is said of the field, also where the field may be null.
      const [value, none] = jsonSchema.anyOf ?? [];
      if (value?.description !== undefined && none?.type === 'null') {
        jsonSchema.description ??= value.description;
      }
    },
  },
});

const titleParameter = {
  type: 'object',
  properties: { title: { type: 'string', description: 'May hold `/`, percent-encoded or plain' } },
  required: ['title'],
};

const described = z.record(
  z.string(),
  z.looseObject({
    headers: z.record(z.string(), z.unknown()).optional(),
    content: z.record(z.string(), z.looseObject({})).optional(),
  }),
);

/** The transform keeps only schemas; headers and worked examples of the answers are put back beside them. */
function withExamples(original: unknown, transformed: unknown): { response?: unknown } {
  const given = described.safeParse(original);
  const kept = described.safeParse(transformed);
  if (!given.success || !kept.success) return {};
  const response: Record<string, unknown> = {};
  for (const [status, answer] of Object.entries(kept.data)) {
    const { headers, content } = given.data[status] ?? {};
    response[status] = {
      ...answer,
      ...(headers === undefined ? {} : { headers }),
      ...(answer.content === undefined
        ? {}
        : {
            content: Object.fromEntries(
              Object.entries(answer.content).map(([type, body]) => [type, { ...content?.[type], ...body }]),
            ),
          }),
    };
  }
  return { response };
}

/** Swagger UI remembers a key for good; for this page the browser's memory ends with the tab. */
const forgetWithTab = `Object.defineProperty(window, 'localStorage', { value: window.sessionStorage });`;

/**
 * Registers the description before the routes that it describes.
 * @param onChange tells of every change of what the document is made of
 */
export async function registerDocs(
  app: FastifyInstance,
  running: Running,
  onChange: (listener: () => void) => void,
): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'LLM Gateway',
        version: '1.0.0',
        license: { name: 'MIT', identifier: 'MIT' },
        description:
          'One small, stable API over LM Studio, Bailian and every OpenAI-compatible model server. ' +
          'JSON answers under /api are `{code, message, data}`; the machine-readable error name stands in the `x-error-code` header.',
      },
      servers: [{ url: '/' }],
      tags: [
        { name: 'llm', description: 'The unified API' },
        { name: 'openai', description: 'The OpenAI-compatible API' },
        { name: 'operations', description: 'Health and description' },
        { name: 'admin', description: 'Administration; wants a key with the admin scope' },
      ],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer' },
          apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
        },
      },
      security: [{}, { bearer: [] }, { apiKey: [] }],
    },
    transformObject: (document) =>
      'openapiObject' in document ? nameSchemas({ ...document.openapiObject }) : document.swaggerObject,
    transform: (document) => {
      const { schema, url } = toJsonSchema(document);
      return {
        schema: {
          ...schema,
          ...withExamples(document.schema?.response, schema?.response),
          // A title may hold slashes, so its path is a wildcard; whoever reads the document needs its name.
          ...(url.endsWith('/*') ? { params: titleParameter } : {}),
        },
        url: url.replace(/\/\*$/, '/:title'),
      };
    },
  });

  const describe = (format: string): Document =>
    format === 'yaml'
      ? makeDocument('application/x-yaml', app.swagger({ yaml: true }))
      : makeDocument(
          'application/json; charset=utf-8',
          JSON.stringify(describeRunning({ ...app.swagger() }, running)),
        );
  let description = keepDocuments(describe);
  onChange(() => {
    description = keepDocuments(describe);
  });
  const swaggerFile = keepDocuments(readSwaggerFile);
  const redocFile = keepDocuments(() =>
    makeDocument('text/javascript; charset=utf-8', loadRedoc(), filesMaxAge),
  );
  const redoc = makeDocument('text/html; charset=utf-8', redocPage);

  await app.register(async (pages) => {
    pages.addHook('onRoute', (route) => {
      route.config = { ...route.config, access: 'open', anyOrigin: true };
      route.schema = { ...route.schema, hide: true };
      // The plugin would open a file for each answer, and make the document anew.
      if (route.url === '/docs/static/*') {
        route.handler = (request, reply) =>
          sendDocument(request, reply, swaggerFile((request.params as { '*': string })['*']));
      } else if (route.url === '/docs/json' || route.url === '/docs/yaml') {
        const format = route.url.slice('/docs/'.length);
        route.handler = (request, reply) => sendDocument(request, reply, description(format));
      }
    });
    pages.addHook('onSend', async (request, reply, payload) => {
      reply.header('content-security-policy', policy);
      // The plugin's own two short texts.
      const isPage = typeof payload === 'string' && reply.statusCode === 200;
      return isPage ? tagText(request, reply, payload) : payload;
    });
    await pages.register(swaggerUi, {
      routePrefix: '/docs',
      uiConfig: {
        validatorUrl: null,
        tryItOutEnabled: true,
        displayRequestDuration: true,
        persistAuthorization: true,
      },
      theme: { title: 'LLM Gateway API', js: [{ filename: 'tab.js', content: forgetWithTab }] },
    });
    pages.get('/redoc', (request, reply) => sendDocument(request, reply, redoc));
    pages.get('/redoc/redoc.standalone.js', (request, reply) =>
      sendDocument(request, reply, redocFile('redoc.standalone.js')),
    );
    pages.get('/', async (_request, reply) => reply.redirect('/docs'));
    pages.get('/openapi.json', (request, reply) => sendDocument(request, reply, description('json')));
  });
}
