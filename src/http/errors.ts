/** Turns every failure into the caller's dialect: the envelope under /api, OpenAI's shape under /v1. Knows no provider. */
import type {
  FastifyContextConfig,
  FastifyError,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
} from 'fastify';
import { GatewayError } from '../chat/errors.ts';
import { openaiError } from '../facades/openai.ts';
import { errorEnvelope } from '../facades/unified.ts';
import { wrongPathError, wrongPathOf } from '../facades/wrong-path.ts';
import { takenBodies } from './body.ts';
import { callHeaders } from './headers.ts';

/** Fastify's own refusals, by its error code. */
const byCode: Readonly<Record<string, () => GatewayError>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () => new GatewayError('UNSUPPORTED_MEDIA_TYPE', { detail: takenBodies }),
  FST_ERR_CTP_BODY_TOO_LARGE: () => new GatewayError('PAYLOAD_TOO_LARGE'),
  FST_ERR_CTP_EMPTY_JSON_BODY: () => new GatewayError('INVALID_PARAMS', { detail: '请求体为空' }),
  FST_ERR_CTP_INVALID_JSON_BODY: () =>
    new GatewayError('INVALID_PARAMS', { detail: '请求体不是有效的 JSON' }),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    new GatewayError('INVALID_PARAMS', { detail: '请求体长度与 content-length 不符' }),
  FST_ERR_BAD_URL: () => new GatewayError('NOT_FOUND'),
};

/** Whatever was thrown, as the error that the caller may see. */
function asGatewayError(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error;
  if (error instanceof Error) {
    const { code, statusCode } = error as Partial<FastifyError>;
    const known = code === undefined ? undefined : byCode[code];
    if (known !== undefined) return known();
    // Fastify's JSON parser gives a bare SyntaxError with a status, also for `__proto__`.
    if (statusCode === 400) return new GatewayError('INVALID_PARAMS', { detail: '请求体不是有效的 JSON' });
    if (statusCode === 413) return new GatewayError('PAYLOAD_TOO_LARGE');
    if (statusCode === 415) return new GatewayError('UNSUPPORTED_MEDIA_TYPE');
  }
  return new GatewayError('INTERNAL_ERROR', { cause: error });
}

/** The dialect follows the path, so that a path which does not exist, too, is refused in the words of its API. */
const bodyOf = (url: string, error: GatewayError) =>
  /^\/v1(?:[/?]|$)/.test(url) ? openaiError(error) : errorEnvelope(error);

export function sendError(request: FastifyRequest, reply: FastifyReply, thrown: unknown): void {
  const error = asGatewayError(thrown);
  // Nobody reads an answer to a call that was left: what its end threw is no failure of ours.
  if (request.call?.stopped !== true) {
    const internal = error.code === 'INTERNAL_ERROR';
    if (internal) request.log.error({ requestId: request.id, err: thrown }, 'request failed');
    request.call?.end(internal ? 'error' : 'rejected', error);
  }
  reply.code(error.status).header('x-error-code', error.code);
  if (error.retryAfterSeconds !== undefined) {
    reply.header('retry-after', String(Math.ceil(error.retryAfterSeconds)));
  }
  if (error.allow !== undefined) reply.header('allow', error.allow);
  if (error.acceptEncoding !== undefined) reply.header('accept-encoding', error.acceptEncoding);
  if (request.call !== undefined) reply.headers(callHeaders(request.call, false));
  // The tries of this call are used up: a client that repeats it by itself would only multiply them. Another instance, though,
  // may serve what this one had to drop at its end.
  if (request.call !== undefined && request.call.attempts > 0 && error.code !== 'SHUTTING_DOWN') {
    reply.header('x-should-retry', 'false');
  }
  reply.type('application/json; charset=utf-8').send(bodyOf(request.url, error));
}

/** What a Host header may hold to be repeated in an answer. */
const plainHost = /^[A-Za-z0-9._:[\]-]{1,255}$/;

/** This gateway's address as the caller knows it; empty where that is not plain. */
const addressOf = ({ protocol, host }: FastifyRequest): string =>
  plainHost.test(host) ? `${protocol}://${host}` : '';

/** A client with the wrong base URL reads in its own dialect which one is right. */
function sendNotFound(request: FastifyRequest, reply: FastifyReply): void {
  const wrong = wrongPathOf(request.url.replace(/[?#].*$/s, ''));
  if (wrong === undefined) {
    sendError(request, reply, new GatewayError('NOT_FOUND'));
    return;
  }
  const error = wrongPathError(wrong, addressOf(request));
  reply
    .code(error.status)
    .header('x-error-code', error.code)
    // Where Anthropic's clients look for it.
    .header('request-id', request.id)
    .type('application/json; charset=utf-8')
    .send(wrong.body(error, request.id));
}

export function registerErrors(app: FastifyInstance): void {
  app.setErrorHandler((error, request, reply) => sendError(request, reply, error));
  app.setNotFoundHandler(sendNotFound);
}

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'] as const;

/** Who may ask for a path at all, whatever the method is. */
type Rules = Pick<FastifyContextConfig, 'access' | 'anyOrigin'>;

/** The paths that are told apart from those that do not exist; without the files that belong to the pages. */
const servedPath = /^\/(?:(?:api|v1)\/.+|healthz|readyz|metrics|openapi\.json|docs|redoc)?$/;

/**
 * Answers 405 with `allow` on paths that exist under another method. Call it before the first route: it collects them, and
 * adds what is missing when all are there.
 */
export function registerMethodNotAllowed(app: FastifyInstance): { complete(): void } {
  const known = new Map<string, { readonly listed: Set<string>; readonly config: Rules }>();
  let collecting = true;
  app.addHook('onRoute', (route) => {
    if (!collecting || !servedPath.test(route.url)) return;
    const { access, anyOrigin } = route.config ?? {};
    const config = { ...(access && { access }), ...(anyOrigin && { anyOrigin }) };
    const path = known.get(route.url) ?? { listed: new Set<string>(), config };
    for (const method of [route.method].flat()) path.listed.add(method.toUpperCase());
    known.set(route.url, path);
  });
  return {
    complete() {
      collecting = false;
      for (const [url, { listed, config }] of known) {
        const allow = [...listed].sort().join(', ');
        const missing = methods.filter((method) => !listed.has(method));
        if (missing.length === 0) continue;
        app.route({
          method: [...missing],
          url,
          schema: { hide: true },
          config,
          // Before the body is read: its type and shape do not matter here.
          onRequest: async () => {
            throw new GatewayError('METHOD_NOT_ALLOWED', { allow });
          },
          handler: async () => {},
        });
      }
    },
  };
}
