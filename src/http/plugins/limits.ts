/** Holds inference calls to their caller's models and limits, and tells how much is left. Counts nothing itself. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { GatewayError } from '../../chat/errors.ts';
import type { EmbeddingRequest, GenerationRequest } from '../../chat/request.ts';
import type { Allowances, Quota, Standing } from '../../gateway/allowances.ts';
import type { Call } from '../../gateway/call.ts';
import { mayUse } from '../../gateway/keys.ts';
import { reportRefusal } from '../audit.ts';

type Asked = GenerationRequest | EmbeddingRequest;

/** A time as OpenAI writes it: `6s`, `1m0s`, `2h5m0s`. */
export function formatReset(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  return `${hours > 0 ? `${hours}h` : ''}${seconds >= 60 ? `${minutes}m` : ''}${seconds % 60}s`;
}

const headersOf = (what: 'requests' | 'tokens', quota: Quota | undefined): Record<string, string> =>
  quota === undefined
    ? {}
    : {
        [`x-ratelimit-limit-${what}`]: String(quota.limit),
        [`x-ratelimit-remaining-${what}`]: String(quota.remaining),
        [`x-ratelimit-reset-${what}`]: formatReset(quota.resetMs),
      };

const rateLimitHeaders = ({ requests, tokens }: Standing): Record<string, string> => ({
  ...headersOf('requests', requests),
  ...headersOf('tokens', tokens),
});

/** @throws GatewayError where the call may not run now */
function tell(reply: FastifyReply, standing: Standing): void {
  reply.headers(rateLimitHeaders(standing));
  if (standing.refusal !== undefined) throw standing.refusal;
}

/** Register it after the calls. What a call has reserved is held until its observers are told of its end. */
export function registerLimits(app: FastifyInstance, allowances: Allowances): void {
  // Shared by all whom nothing limits: a function for each request would keep the request and its reply until the call's end.
  const admitFreely = (call: Call, asked: Asked): undefined => {
    void allowances.admit(call, asked);
  };
  const admitWithin =
    (request: FastifyRequest, reply: FastifyReply) =>
    (call: Call, asked: Asked): Promise<void> | undefined => {
      if (!mayUse(call.caller, asked.model)) {
        reportRefusal(request, 'model', call.caller.keyPrefix);
        throw new GatewayError('FORBIDDEN', {
          detail: `此 API Key 不可使用模型 ${asked.model}`,
          param: 'model',
        });
      }
      const standing = allowances.admit(call, asked);
      return standing instanceof Promise ? standing.then((found) => tell(reply, found)) : undefined;
    };

  app.addHook('onRequest', (request, reply, done) => {
    const { call } = request;
    if (call !== undefined) {
      const isFree = call.caller.key?.models === undefined && !allowances.limits(call.caller);
      call.admit = isFree ? admitFreely : admitWithin(request, reply);
    }
    done();
  });
}
