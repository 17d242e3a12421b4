/** Gives every inference request its Call, and ends it once, whatever becomes of the response. */
import type { FastifyInstance } from 'fastify';
import { Call, type Endpoint } from '../../gateway/call.ts';
import type { Observer } from '../../gateway/observer.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Set on inference routes once access was granted. */
    call: Call | undefined;
  }
  interface FastifyContextConfig {
    /** Marks an inference route. */
    endpoint?: Endpoint;
  }
}

/** The calls that run now. */
export interface LiveCalls extends Iterable<Call> {
  readonly size: number;
  /** Resolves when none runs any more. */
  settled(): Promise<void>;
}

/** What nginx logs for a client that left before it was answered; no such status is ever sent. */
const clientClosedRequest = 499;

export function registerCalls(
  app: FastifyInstance,
  observer: Pick<Observer, 'callStarted' | 'callEnded'>,
): LiveCalls {
  const live = new Set<Call>();
  let onSettled: (() => void)[] = [];
  app.decorateRequest('call', undefined);
  app.addHook('onRequest', async (request, reply) => {
    const { endpoint } = request.routeOptions.config;
    if (endpoint === undefined || request.caller === undefined) return;
    const call = new Call(request.id, request.caller, endpoint);
    request.call = call;
    live.add(call);
    observer.callStarted(call, request.headers);
    // The response's close is the one event that comes for every ending: Fastify's onResponse is silent when the client leaves,
    // and the request's own close comes as soon as its body was read.
    reply.raw.once('close', () => {
      if (!reply.raw.writableFinished) call.stop('client_gone');
      call.end('rejected');
      call.close();
      live.delete(call);
      observer.callEnded(call, reply.raw.headersSent ? reply.raw.statusCode : clientClosedRequest);
      if (live.size > 0) return;
      for (const resolve of onSettled) resolve();
      onSettled = [];
    });
  });
  return {
    [Symbol.iterator]: () => live.values(),
    get size() {
      return live.size;
    },
    settled: () =>
      live.size === 0 ? Promise.resolve() : new Promise((resolve) => void onSettled.push(resolve)),
  };
}

/** The call of an inference route. */
export function callOf(request: { readonly call: Call | undefined }): Call {
  if (request.call === undefined) throw new Error('not an inference route');
  return request.call;
}
