/** The audit trail in the log: who was refused, and who changed what. Never a key, only its first characters. */
import type { FastifyRequest } from 'fastify';
import { networkOf } from './network.ts';

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

/** What anybody can be refused for without knowing anything: it must not fill the disk. */
const cheap: ReadonlySet<Refusal> = new Set(['no key', 'not local']);

/** An address has one line of a cheap refusal, then for this long none. Milliseconds. */
const quietMs = 1000;

/** Addresses that are quiet at once, at most; all that are told then are told as they come. */
const mostQuiet = 10_000;

/** How many lines each quiet address was spared; by log, so that gateways of one process do not silence one another. */
const quiet = new WeakMap<object, Map<string, number>>();

/** Whether this refusal is only counted; its count is told once the second is over. */
function isSuppressed(request: FastifyRequest, reason: Refusal): boolean {
  const { log } = request;
  const spared = quiet.get(log) ?? new Map<string, number>();
  quiet.set(log, spared);
  const address = networkOf(request.ip);
  const name = `${reason} ${address}`;
  const before = spared.get(name);
  if (before !== undefined) {
    spared.set(name, before + 1);
    return true;
  }
  if (spared.size >= mostQuiet) return false;
  const begin = (): void => {
    spared.set(name, 0);
    setTimeout(() => {
      const suppressed = spared.get(name) ?? 0;
      spared.delete(name);
      if (suppressed === 0) return;
      log.warn({ audit: 'refusal', reason, address, suppressed }, 'access refused');
      begin();
    }, quietMs).unref();
  };
  begin();
  return false;
}

/** @param key the key's first characters, where it is one of this gateway's form */
export function reportRefusal(request: FastifyRequest, reason: Refusal, key: string | undefined): void {
  if (cheap.has(reason) && isSuppressed(request, reason)) return;
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
