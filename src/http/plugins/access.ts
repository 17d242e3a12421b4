/** Who may ask: keys, and what is open without one. Host and Origin were judged before; see origins.ts. */
import { timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { GatewayError } from '../../chat/errors.ts';
import { type Config, isLoopbackHost } from '../../config.ts';
import type { Caller } from '../../gateway/call.ts';
import { callerIdOf, type GatewayKey, hashKey, type KeyRing, prefixLength } from '../../gateway/keys.ts';
import { reportRefusal } from '../audit.ts';
import { networkOf } from '../network.ts';
import { isOwnOrigin, registerOrigins, withoutPort } from './origins.ts';

/** Who may call a route: anyone, whoever has a key, or the administrator. */
export type Access = 'open' | 'key' | 'admin';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the route was registered with. Fastify's own `routeOptions` is a new object of twelve members each time it is read. */
    route: Readonly<FastifyContextConfig & { url?: string }> | undefined;
    /** Set once access was granted. */
    caller: Caller | undefined;
  }
  interface FastifyContextConfig {
    /** Default `key`. */
    access?: Access;
  }
}

const proxyHeaders = ['forwarded', 'x-real-ip', 'via'];

const apiPath = /^\/(?:api|v1)(?:[/?]|$)/;

/** Whether a request is for an API. The router also reads percent-encoded paths, so that the route counts as well as the URL. */
export const isForApi = ({ url, route }: FastifyRequest): boolean =>
  apiPath.test(url) || apiPath.test(route?.url ?? '');

/** A peer on this machine that no proxy speaks for. */
function isLocalPeer(request: FastifyRequest): boolean {
  const address = request.raw.socket.remoteAddress?.replace(/^::ffff:/, '') ?? '';
  if (isIP(address) === 0 || !isLoopbackHost(address)) return false;
  return !Object.keys(request.headers).some(
    (name) => name.startsWith('x-forwarded-') || proxyHeaders.includes(name),
  );
}

/** What browsers say of requests that no foreign page made. */
const ownSites: readonly unknown[] = [undefined, 'same-origin', 'none'];

/**
 * Why administration without a key is refused; undefined where it is not. A browser on this machine is a local peer of every page that
 * it shows, and a page that had its name rebound to a loopback address is even of our own origin: only its Host betrays it.
 */
function reasonNotLocal(request: FastifyRequest): 'not local' | 'foreign host' | 'foreign page' | undefined {
  const { host = '', origin, 'sec-fetch-site': site } = request.headers;
  if (!isLocalPeer(request)) return 'not local';
  if (!isLoopbackHost(withoutPort(host))) return 'foreign host';
  if (origin !== undefined && !isOwnOrigin(origin, host)) return 'foreign page';
  return ownSites.includes(site) ? undefined : 'foreign page';
}

/** The key of `Authorization: Bearer …`, `x-api-key` or `api-key`: the first that is there, whether it is good or not. Empty if none is. */
function presentedKey({ headers }: FastifyRequest): string {
  const bearer = /^Bearer +(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return bearer;
  return keyIn(headers['x-api-key']) || keyIn(headers['api-key']);
}

const keyIn = (header: string | string[] | undefined): string =>
  typeof header === 'string' ? header.trim() : '';

const notLocal = {
  'not local': '仅限本机直接访问',
  'foreign host': '仅限本机直接访问, Host 必须是本机地址',
  'foreign page': '仅限本机直接访问, 不接受其他网页的请求',
} as const;

/** Fit for logs: of a key that was not made here, nothing is. */
const prefixOf = (presented: string): string | undefined =>
  /^sk-gw-[\w-]{43}$/.test(presented) ? presented.slice(0, prefixLength) : undefined;

/** What a presented key is, as far as its characters tell. */
interface Credential {
  readonly hash: string;
  readonly isAdmin: boolean;
}

/** Good keys that are kept at hand; the oldest give way. */
const mostRemembered = 1000;

const callerOf = (key: GatewayKey, address: string): Caller => ({
  id: callerIdOf(key.id),
  address,
  keyId: key.id,
  keyName: key.name,
  keyPrefix: key.prefix,
  key,
});

/** Wrong keys that one address may present in a minute before it is told to wait. */
const wrongKeysPerMinute = 30;

/** Ends a request with a wrong key. Good keys never come here, so that nobody can lock others out. */
function createKeyRefusal(): (request: FastifyRequest, presented: string, state: string) => Promise<never> {
  const guesses = new RateLimiterMemory({ points: wrongKeysPerMinute, duration: 60 });
  return async (request, presented, state) => {
    const reason = state === 'revoked' || state === 'expired' ? (`${state} key` as const) : 'unknown key';
    try {
      await guesses.consume(networkOf(request.ip));
    } catch (counted) {
      if (!(counted instanceof RateLimiterRes)) throw counted;
      // One line tells of the flood; the rest of it would only fill the disk.
      if (counted.consumedPoints === wrongKeysPerMinute + 1) {
        reportRefusal(request, 'too many wrong keys', prefixOf(presented));
      }
      throw new GatewayError('RATE_LIMITED', { retryAfterSeconds: Math.ceil(counted.msBeforeNext / 1000) });
    }
    reportRefusal(request, reason, prefixOf(presented));
    throw new GatewayError('UNAUTHORIZED');
  };
}

export async function registerAccess(app: FastifyInstance, config: Config, keys: KeyRing): Promise<void> {
  const adminHash =
    config.adminKey === undefined ? undefined : Buffer.from(hashKey(config.adminKey.reveal()));
  const credentialOf = (presented: string): Credential => {
    const hash = hashKey(presented);
    return { hash, isAdmin: adminHash !== undefined && timingSafeEqual(Buffer.from(hash), adminHash) };
  };
  /** Good keys as they were presented, with their hashes, since hashing takes 5 us a request. Of wrong keys nothing is kept. */
  const accepted = new Map<string, Credential>();
  const remember = (presented: string, credential: Credential): void => {
    const [oldest] = accepted.size >= mostRemembered ? accepted.keys() : [];
    if (oldest !== undefined) accepted.delete(oldest);
    accepted.set(presented, credential);
  };
  const refuseKey = createKeyRefusal();

  registerOrigins(app, config);
  app.decorateRequest('caller', undefined);

  /** Lets the request in, at once for a good key, or throws. */
  const decide = (request: FastifyRequest): Promise<never> | undefined => {
    const access = request.route?.access ?? 'key';
    const address = request.ip;
    const presented = presentedKey(request);
    const remembered = accepted.get(presented);
    const credential = remembered ?? (presented === '' ? undefined : credentialOf(presented));
    const found = credential === undefined || credential.isAdmin ? undefined : keys.find(credential.hash);
    const key = found?.state === 'good' ? found.key : undefined;
    const isGood = credential?.isAdmin === true || key !== undefined;
    if (credential !== undefined && isGood && remembered === undefined) remember(presented, credential);
    if (remembered !== undefined && !isGood) accepted.delete(presented);
    if (credential?.isAdmin === true) {
      request.caller = { id: 'admin', address, keyPrefix: 'ADMIN_API_KEY' };
      return undefined;
    }
    if (key !== undefined) request.caller = callerOf(key, address);
    if (access === 'open') return undefined;
    if (!config.auth) {
      if (access === 'admin' && key?.scope !== 'admin') {
        const reason = reasonNotLocal(request);
        if (reason !== undefined) {
          if (found !== undefined && key === undefined) return refuseKey(request, presented, found.state);
          reportRefusal(request, reason, key?.prefix);
          throw new GatewayError('FORBIDDEN', { detail: notLocal[reason] });
        }
      }
      request.caller ??= { id: networkOf(address), address };
      return undefined;
    }
    if (found === undefined) {
      reportRefusal(request, 'no key', undefined);
      throw new GatewayError('UNAUTHORIZED');
    }
    if (key === undefined) return refuseKey(request, presented, found.state);
    if (access === 'admin' && key.scope !== 'admin') {
      reportRefusal(request, 'scope', key.prefix);
      throw new GatewayError('FORBIDDEN', { detail: '此 API Key 没有 admin 权限' });
    }
    return undefined;
  };

  app.addHook('onRequest', (request, _reply, done) => {
    const refusal = decide(request);
    if (refusal === undefined) done();
    else refusal.catch(done);
  });
}
