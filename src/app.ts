/** The HTTP application: every plugin and route in the order in which they apply. Opens no socket and no database. */
import type { ServerResponse } from 'node:http';
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import type { Logger } from 'pino';
import type { z } from 'zod';
import type { Controller } from './admin/control.ts';
import { GatewayError } from './chat/errors.ts';
import type { Config } from './config.ts';
import { bodyParser } from './facades/validation.ts';
import type { Allowances } from './gateway/allowances.ts';
import type { Catalog } from './gateway/catalog.ts';
import type { Discovery } from './gateway/discovery.ts';
import type { Engine } from './gateway/engine.ts';
import { exampleModel } from './gateway/example-model.ts';
import type { KeyRing } from './gateway/keys.ts';
import type { Metrics } from './gateway/metrics.ts';
import type { Observer } from './gateway/observer.ts';
import { registerBodies } from './http/body.ts';
import { answerMalformed, trackExchange, whenItsTurn } from './http/connection.ts';
import { registerErrors, registerMethodNotAllowed, sendError } from './http/errors.ts';
import { meantTarget } from './http/paths.ts';
import { isForApi, registerAccess } from './http/plugins/access.ts';
import { type LiveCalls, registerCalls } from './http/plugins/calls.ts';
import type { Running } from './http/plugins/description.ts';
import { registerDocs } from './http/plugins/docs.ts';
import { registerLimits } from './http/plugins/limits.ts';
import { registerRequestLog } from './http/plugins/request-log.ts';
import { newRequestId } from './http/request-id.ts';
import { registerAdmin } from './http/routes/admin.ts';
import { registerChat } from './http/routes/chat.ts';
import { registerEmbeddings } from './http/routes/embeddings.ts';
import { registerMetrics } from './http/routes/metrics.ts';
import { registerModels } from './http/routes/models.ts';
import { registerOpenAI } from './http/routes/openai.ts';
import { registerOperations } from './http/routes/operations.ts';

export interface AppDependencies {
  readonly config: Config;
  readonly catalog: Catalog;
  readonly discovery: Discovery;
  readonly engine: Engine;
  readonly keys: KeyRing;
  readonly allowances: Allowances;
  readonly administration: Controller;
  readonly log: Logger;
  readonly isDraining: () => boolean;
  readonly isDatabaseHealthy: () => boolean;
  readonly metrics: Pick<Metrics, 'text' | 'contentType'>;
  readonly observer: Observer;
}

export interface App {
  readonly http: FastifyInstance;
  readonly calls: LiveCalls;
}

/** Where a response has the name of its request. */
const requestId = Symbol('request id');

declare module 'node:http' {
  interface ServerResponse {
    [requestId]?: string;
  }
}

const saneRequestId = /^[A-Za-z0-9._-]{1,128}$/;

function requestIdOf(header: string | string[] | undefined): string {
  return typeof header === 'string' && saneRequestId.test(header) ? header : newRequestId();
}

/** A number counts the proxies in front: each hop below it is believed. */
function trustProxyOf(trusted: Config['trustProxy']) {
  return typeof trusted === 'number' ? (_address: string, hop: number) => hop < trusted : trusted;
}

export async function buildApp(deps: AppDependencies): Promise<App> {
  const { config, catalog, discovery, engine } = deps;
  const log = deps.log as FastifyBaseLogger;
  /** Shared by all responses: without a listener, Node would end the process. */
  function noteFailedResponse(this: ServerResponse, error: Error): void {
    log.error({ requestId: this[requestId], err: error }, 'response failed');
  }
  /** What every request begins with, also one that the router cannot read. */
  const begin = (request: FastifyRequest, reply: FastifyReply): void => {
    request.log = log;
    reply.log = log;
    reply.raw[requestId] = request.id;
    reply.raw.on('error', noteFailedResponse);
    trackExchange(reply.raw);
    reply.header('x-request-id', request.id);
  };
  const http = Fastify({
    // Given a logger, Fastify checks it for each request, and waits for the end of every answer with two listeners that keep the
    // request till then, some 2 us in all. For its few own lines it gets the logger behind its back.
    logger: false,
    // One own line per request instead of two of Fastify's, which cost 33 us. Those about errors would have whole
    // requests in them, with their keys.
    logController: new LogController({ disableRequestLogging: true }),
    requestIdHeader: false,
    genReqId: (request) => requestIdOf(request.headers['x-request-id']),
    trustProxy: trustProxyOf(config.trustProxy),
    bodyLimit: config.bodyLimitBytes,
    // Receiving only: streams are not cut. Node swaps the two if the headers' limit is the longer one.
    requestTimeout: 60_000,
    keepAliveTimeout: 75_000,
    // Node would refuse a request without Host in its own words; see origins.ts.
    http: {
      headersTimeout: 20_000,
      connectionsCheckingInterval: 5000,
      maxHeaderSize: 16_384,
      requireHostHeader: false,
    },
    return503OnClosing: false,
    // No longer than a request's head: what is longer than any id or title is one that does not exist, and no fault of ours.
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 16_384 },
    frameworkErrors: (error, request, reply) => {
      // Hooks do not run for what the router cannot read.
      begin(request, reply);
      sendError(request, reply, error);
    },
    clientErrorHandler: answerMalformed,
    rewriteUrl: ({ url = '/' }) => meantTarget(url),
  });
  http.log = log;

  registerBodies(http, config);
  http.setValidatorCompiler<z.ZodType>(({ schema }) => {
    const parse = bodyParser(schema);
    return (data) => {
      try {
        return { value: parse(data) };
      } catch (error) {
        return { error: error instanceof Error ? error : new Error(String(error)) };
      }
    };
  });
  // Response schemas describe; what is sent was built by typed code and is not checked a second time.
  http.setSerializerCompiler(() => JSON.stringify);

  http.decorateRequest('route', undefined);
  // Hooks with a callback: a promise for each costs every request 1 us.
  http.addHook('onRequest', (request, reply, done) => {
    begin(request, reply);
    whenItsTurn(reply.raw, done);
  });
  http.addHook('onRequest', (request, reply, done) => {
    request.route = request.routeOptions.config;
    if (isForApi(request)) reply.header('cache-control', 'no-store');
    // While draining, connections are still taken, so that every client is told and not merely refused.
    if (deps.isDraining()) {
      reply.header('connection', 'close');
      if (request.route?.access !== 'open') {
        throw new GatewayError('SHUTTING_DOWN', { retryAfterSeconds: 1 });
      }
    }
    done();
  });
  registerErrors(http);
  const methodNotAllowed = registerMethodNotAllowed(http);
  await registerAccess(http, config, deps.keys);
  registerRequestLog(http, deps.log);
  const calls = registerCalls(http, deps.observer);
  registerLimits(http, deps.allowances);
  const running: Running = {
    auth: config.auth,
    exampleModel: (kind) => exampleModel(kind, catalog, discovery, config.timeouts),
  };
  await registerDocs(http, running, (listener) => catalog.onChange(listener));

  const streamOptions = { commitMs: config.streamCommitMs, heartbeatMs: config.heartbeatMs };
  registerChat(http, { engine, streamOptions });
  registerEmbeddings(http, { engine });
  registerOpenAI(http, { engine, streamOptions, catalog, discovery });
  registerModels(http, { catalog, discovery });
  registerOperations(http, {
    catalog,
    discovery,
    isDraining: deps.isDraining,
    isDatabaseHealthy: deps.isDatabaseHealthy,
  });
  registerMetrics(http, deps.metrics);
  await registerAdmin(http, deps);
  methodNotAllowed.complete();
  return { http, calls };
}
