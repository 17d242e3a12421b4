/** The audit trail in the log: who was refused, and who changed what. Never a key, only its first characters. */
import type { FastifyRequest } from 'fastify';

/** Why somebody was not let in. The caller is told less. */
type Refusal =
  | 'no key'
  | 'unknown key'
  | 'revoked key'
  | 'expired key'
  | 'too many wrong keys'
  | 'scope'
  | 'model'
  | 'not local'
  | 'foreign host'
  | 'foreign page';

/** @param key the key's first characters, where it is one of this gateway's form */
export function reportRefusal(request: FastifyRequest, reason: Refusal, key: string | undefined): void {
  request.log.warn(
    {
      audit: 'refusal',
      requestId: request.id,
      reason,
      key,
      address: request.ip,
      method: request.method,
      route: request.routeOptions.url,
    },
    'access refused',
  );
}

/** @param action e.g. `providers.create`; `target` the row's id and whatever else names it */
export function reportChange(
  request: FastifyRequest,
  action: string,
  target: Readonly<Record<string, unknown>>,
): void {
  request.log.info(
    {
      audit: 'change',
      requestId: request.id,
      action,
      ...target,
      key: request.caller?.keyPrefix,
      address: request.ip,
    },
    'administration',
  );
}
