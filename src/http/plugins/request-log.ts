/** One log line at level debug for each request that is no call; calls have their own. Names the route, never the URL. */
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';

export function registerRequestLog(app: FastifyInstance, log: Logger): void {
  if (!log.isLevelEnabled('debug')) return;
  app.addHook('onResponse', async (request, reply) => {
    if (request.call !== undefined) return;
    log.debug(
      {
        requestId: request.id,
        method: request.method,
        // A URL may hold whatever a client took for a parameter, keys included.
        route: request.routeOptions.url ?? 'none',
        status: reply.statusCode,
        totalMs: Math.round(reply.elapsedTime),
      },
      'request',
    );
  });
}
