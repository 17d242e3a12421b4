/** Holds inference calls to their caller's models and limits, and tells how much is left. Counts nothing itself. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import { GatewayError } from '../../chat/errors.ts';
import type { Allowances, Quota, Standing } from '../../gateway/allowances.ts';
import { mayUse } from '../../gateway/keys.ts';
import { reportRefusal } from '../audit.ts';

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

/** Register it after the calls. What a call has reserved is settled by them, at its end. */
export function registerLimits(app: FastifyInstance, allowances: Allowances): void {
  app.addHook('onRequest', (request, reply, done) => {
    const { call } = request;
    if (call !== undefined) {
      call.admit = (asked) => {
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
    }
    done();
  });
}
