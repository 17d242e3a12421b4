/** GET /metrics: the Prometheus text, for the administrator or for peers on this machine. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Metrics } from '../../gateway/metrics.ts';

export function registerMetrics(app: FastifyInstance, metrics: Pick<Metrics, 'text' | 'contentType'>): void {
  app.get(
    '/metrics',
    {
      config: { access: 'admin' },
      schema: {
        tags: ['operations'],
        operationId: 'getMetrics',
        summary: 'Metrics in the Prometheus text format',
        description: 'With AUTH=on for the admin scope, else for peers on this machine.',
        response: { 200: { description: 'The metrics', content: { 'text/plain': { schema: z.string() } } } },
      },
    },
    async (_request, reply) =>
      reply
        .type(metrics.contentType)
        .header('cache-control', 'no-store')
        .send(await metrics.text()),
  );
}
