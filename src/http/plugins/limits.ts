/** Holds inference calls to their caller's models and limits. Counts nothing itself. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { GatewayError } from '../../chat/errors.ts';
import type { Allowances } from '../../gateway/allowances.ts';
import { type Caller, shortName } from '../../gateway/call.ts';
import { mayUse } from '../../gateway/keys.ts';
import { reportRefusal } from '../audit.ts';

/** @throws GatewayError FORBIDDEN for a model that the caller's key may not use */
function checkModel(request: FastifyRequest, caller: Caller, model: string, param = 'model'): void {
  if (mayUse(caller, model)) return;
  reportRefusal(request, 'model', caller.keyPrefix);
  throw new GatewayError('FORBIDDEN', { detail: `此 API Key 不可使用模型 ${shortName(model)}`, param });
}

/** Register it after the calls: requests a minute are counted before the body is read. What a call has reserved is held until its observers are told of its end. */
export function registerLimits(app: FastifyInstance, allowances: Allowances): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const { call } = request;
    if (call !== undefined) {
      call.admit = (asked) => {
        checkModel(request, call.caller, asked.model);
        // It runs beside the model, and is one that somebody may have been denied.
        const draft = asked.kind === 'embedding' ? undefined : asked.parameters.draft_model;
        if (draft !== undefined) checkModel(request, call.caller, draft, 'draft_model');
        allowances.admit(call, asked);
      };
      allowances.count(call);
    }
    done();
  });
}
