/**
 * What browsers ask of an API that a page of another origin calls. Decides nothing by itself.
 * Wire: https://fetch.spec.whatwg.org/#http-cors-protocol.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

const methods = 'GET, POST, PUT, PATCH, DELETE';

/** How long a browser may remember what a preflight said. Seconds. */
const maxAge = '600';

/**
 * Names allowed origins in all answers, and answers their preflights before anybody asks for a key: browsers send none with them.
 * @param exposed the headers of answers that pages may read
 */
export function registerCors(
  app: FastifyInstance,
  exposed: readonly string[],
  isAllowed: (origin: string) => boolean,
): void {
  const exposedText = exposed.join(', ');
  app.addHook('onRequest', (request, reply, done) => {
    const { origin } = request.headers;
    // Also for those who are told nothing: a cache must not give their answer to others.
    reply.header('vary', 'Origin');
    if (origin === undefined || !isAllowed(origin)) {
      done();
      return;
    }
    reply.header('access-control-allow-origin', origin);
    reply.header('access-control-expose-headers', exposedText);
    if (request.method === 'OPTIONS') answerPreflight(request, reply);
    else done();
  });
}

function answerPreflight(request: FastifyRequest, reply: FastifyReply): void {
  const asked = request.headers['access-control-request-headers'];
  reply.header('vary', 'Origin, Access-Control-Request-Headers');
  reply.header('access-control-allow-methods', methods);
  if (asked !== undefined) reply.header('access-control-allow-headers', asked);
  reply.header('access-control-max-age', maxAge);
  reply.code(204).header('content-length', '0').send();
}
