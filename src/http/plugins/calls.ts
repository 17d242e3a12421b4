/** Gives every inference request its Call, and ends it once, whatever becomes of the response. */
import type { ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';
import { GatewayError } from '../../chat/errors.ts';
import { Call, type Endpoint } from '../../gateway/call.ts';
import type { EndedCall, Observer } from '../../gateway/observer.ts';
import { atEndOfTurn } from '../../turn.ts';
import { onClose } from '../connection.ts';

/** Where a response has the call that it answers. */
const callOfResponse = Symbol('call');

declare module 'node:http' {
  interface ServerResponse {
    [callOfResponse]?: Call;
  }
}

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
  /** Resolves when none runs any more, and all were told of. */
  settled(): Promise<void>;
}

/**
 * The running calls. Not a Set: V8 makes a Set's table anew every hundred calls, and as long as the old table waits for the
 * collector, it keeps what was in it, and with that half of all requests survive long after their answers.
 */
class Roster implements Iterable<Call> {
  readonly #calls: Call[] = [];

  get size(): number {
    return this.#calls.length;
  }

  add(call: Call): void {
    call.seat = this.#calls.length;
    this.#calls.push(call);
  }

  /** The last one takes the place that becomes free. */
  remove(call: Call): void {
    const last = this.#calls.pop();
    if (last === undefined || last === call) return;
    last.seat = call.seat;
    this.#calls[call.seat] = last;
  }

  /** Those that run now, whatever happens meanwhile. */
  [Symbol.iterator](): Iterator<Call> {
    return [...this.#calls].values();
  }
}

/** What nginx logs for a client that left before it was answered; no such status is ever sent. */
const clientClosedRequest = 499;

/** Gateways that a request may have come through. One that comes from further asks itself, and each round would multiply the call. */
const mostHops = 3;

const hopsIn = (header: string | string[] | undefined): number =>
  typeof header === 'string' && /^\d+$/.test(header) ? Number(header) : 0;

export function registerCalls(
  app: FastifyInstance,
  observer: Pick<Observer, 'callStarted' | 'callsEnded'>,
): LiveCalls {
  const live = new Roster();
  /** What ended in this turn: those who keep records of it are told of all at once, behind their answers. */
  let ended: EndedCall[] = [];
  let onSettled: (() => void)[] = [];

  const report = (): void => {
    const now = ended;
    ended = [];
    observer.callsEnded(now);
    if (live.size > 0) return;
    for (const resolve of onSettled) resolve();
    onSettled = [];
  };

  const end = (response: ServerResponse): void => {
    const call = response[callOfResponse];
    if (call === undefined) return;
    if (!response.writableFinished) call.stop('client_gone');
    call.end('rejected');
    call.close();
    live.remove(call);
    if (ended.length === 0) atEndOfTurn(report);
    ended.push({ call, status: response.headersSent ? response.statusCode : clientClosedRequest });
  };

  app.decorateRequest('call', undefined);
  app.addHook('onRequest', (request, reply, done) => {
    const hops = hopsIn(request.headers['x-gateway-hops']);
    const endpoint = request.route?.endpoint;
    if (endpoint !== undefined && request.caller !== undefined) {
      const call = new Call(request.id, request.caller, endpoint);
      call.hops = hops + 1;
      request.call = call;
      live.add(call);
      observer.callStarted(call, request.headers);
      reply.raw[callOfResponse] = call;
      reply.raw[onClose] = end;
    }
    if (hops > mostHops && request.route?.access !== 'open') {
      reply.header('x-should-retry', 'false');
      throw new GatewayError('UPSTREAM_ERROR', { message: '请求循环', retryable: false });
    }
    done();
  });
  return {
    [Symbol.iterator]: () => live[Symbol.iterator](),
    get size() {
      return live.size;
    },
    settled: () =>
      live.size === 0 && ended.length === 0
        ? Promise.resolve()
        : new Promise((resolve) => void onSettled.push(resolve)),
  };
}

/** The call of an inference route. */
export function callOf(request: { readonly call: Call | undefined }): Call {
  if (request.call === undefined) throw new Error('not an inference route');
  return request.call;
}
