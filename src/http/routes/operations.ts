/** Health for load balancers and people. Tells states, never addresses. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Catalog } from '../../gateway/catalog.ts';
import type { Discovery } from '../../gateway/discovery.ts';

const health = z.object({ status: z.literal('ok') }).meta({ title: 'Health' });

const readiness = z
  .object({
    status: z.enum(['ok', 'degraded', 'draining', 'unavailable']),
    database: z.enum(['ok', 'unavailable']),
    providers: z.record(z.string(), z.enum(['up', 'down', 'untested', 'no-credential'])),
  })
  .meta({ title: 'Readiness' });

const answer = (description: string, schema: z.ZodType) => ({
  description,
  content: { 'application/json': { schema } },
});

export interface OperationsDependencies {
  readonly catalog: Catalog;
  readonly discovery: Discovery;
  readonly isDraining: () => boolean;
  readonly isDatabaseHealthy: () => boolean;
}

function readinessOf(deps: OperationsDependencies): z.output<typeof readiness> {
  const providers: Record<string, 'up' | 'down' | 'untested' | 'no-credential'> = {};
  for (const provider of deps.catalog.providers()) {
    if (!provider.enabled) continue;
    providers[provider.key] = provider.missingCredential
      ? 'no-credential'
      : deps.discovery.state(provider.key).reachability;
  }
  const healthy = Object.values(providers).some((state) => state === 'up' || state === 'untested');
  const database = deps.isDatabaseHealthy() ? 'ok' : 'unavailable';
  const status = deps.isDraining()
    ? 'draining'
    : !healthy
      ? 'unavailable'
      : database === 'ok'
        ? 'ok'
        : 'degraded';
  return { status, database, providers };
}

export function registerOperations(app: FastifyInstance, deps: OperationsDependencies): void {
  app.get(
    '/healthz',
    {
      config: { access: 'open', anyOrigin: true },
      schema: {
        tags: ['operations'],
        operationId: 'getHealth',
        summary: 'The process lives',
        security: [],
        response: { 200: answer('Always, as long as the process answers', health) },
      },
    },
    async () => ({ status: 'ok' }),
  );
  app.get(
    '/readyz',
    {
      config: { access: 'open', anyOrigin: true },
      schema: {
        tags: ['operations'],
        operationId: 'getReadiness',
        summary: 'The gateway can serve',
        security: [],
        response: {
          200: answer('`ok`, or `degraded` while traffic is served without the database', readiness),
          503: answer('`draining`, or `unavailable`: no provider is healthy', readiness),
        },
      },
    },
    async (_request, reply) => {
      const state = readinessOf(deps);
      return reply
        .code(state.status === 'ok' || state.status === 'degraded' ? 200 : 503)
        .header('cache-control', 'no-store')
        .send(state);
    },
  );
}
