/** The API's description and the two pages that show it, from local files and under a policy that allows no other host. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { createJsonSchemaTransform } from 'fastify-type-provider-zod';
import { z } from 'zod';

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
  const path = createRequire(import.meta.url).resolve('redoc/bundles/redoc.standalone.js');
  return readFileSync(path, 'utf8').replace(/https:\/\/cdn\.redoc\.ly\/[^"'`]*\.svg/g, transparentPixel);
}

const toJsonSchema = createJsonSchemaTransform({
  zodToJsonConfig: {
    override: ({ jsonSchema }) => {
      // zod writes out that an integer is a safe one; nobody reads that twice.
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
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

/** Registers the description before the routes that it describes. */
export async function registerDocs(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'LLM Gateway',
        version: '1.0.0',
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

  await app.register(async (pages) => {
    pages.addHook('onRoute', (route) => {
      route.config = { ...route.config, access: 'open' };
      route.schema = { ...route.schema, hide: true };
    });
    pages.addHook('onSend', async (_request, reply) => {
      reply.header('content-security-policy', policy);
    });
    await pages.register(swaggerUi, {
      routePrefix: '/docs',
      uiConfig: { validatorUrl: null, tryItOutEnabled: true, displayRequestDuration: true },
      theme: { title: 'LLM Gateway API' },
    });
    let redoc: string | undefined;
    pages.get('/redoc', async (_request, reply) => reply.type('text/html; charset=utf-8').send(redocPage));
    pages.get('/redoc/redoc.standalone.js', async (_request, reply) => {
      redoc ??= loadRedoc();
      return reply.type('text/javascript; charset=utf-8').header('cache-control', 'max-age=3600').send(redoc);
    });
    pages.get('/', async (_request, reply) => reply.redirect('/docs'));
    pages.get('/openapi.json', async (_request, reply) => {
      return reply.type('application/json; charset=utf-8').send(app.swagger());
    });
  });
}
