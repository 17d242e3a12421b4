/** Which names and which browser pages reach the gateway: Host and Origin rules, then CORS. Knows no keys. */
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { GatewayError } from '../../chat/errors.ts';
import { type Config, isLoopbackName } from '../../config.ts';
import { registerCors } from './cors.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether pages of every origin may ask for it: health, documentation and our own pages' files. */
    anyOrigin?: boolean;
  }
}

const exposedHeaders = [
  'x-request-id',
  'x-error-code',
  'retry-after',
  'x-should-retry',
  'x-gateway-provider',
  'x-gateway-model',
  'x-gateway-requested-model',
  'x-gateway-attempts',
  'x-gateway-ignored',
  'x-gateway-usage',
  'x-next-after',
  'request-id',
  'x-ratelimit-limit-requests',
  'x-ratelimit-remaining-requests',
  'x-ratelimit-reset-requests',
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-tokens',
];

/** The host of a Host header or origin, without its port. */
export const withoutPort = (host: string): string => host.replace(/:\d*$/, '');

function hostOfOrigin(origin: string): string | undefined {
  try {
    return new URL(origin).host;
  } catch {
    return undefined;
  }
}

/** Whether a page of the web, and no app's, comes from where its request goes to. */
export const isOwnOrigin = (origin: string, host: string): boolean =>
  /^https?:/.test(origin) && hostOfOrigin(origin) === host.toLowerCase();

/** Longer than any name of a page; a pattern of several stars takes long over what is long. Characters. */
const longestOrigin = 512;

/** Whether one of these entries of CORS_ORIGINS stands for an origin. */
function matcherOf(entries: readonly string[]): (origin: string) => boolean {
  const exact = new Set(entries);
  const patterns = entries
    .filter((entry) => entry.includes('*') && entry !== '*')
    .map((entry) => entry.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replace(/\*+/g, '[^/]*'))
    .map((pattern) => new RegExp(`^${pattern}$`));
  return (origin) => {
    if (exact.has(origin)) return true;
    // `null` is what sandboxed pages of anybody have.
    if (origin === 'null' || origin.length > longestOrigin) return false;
    return exact.has('*') || patterns.some((pattern) => pattern.test(origin));
  };
}

function isLoopbackOrigin(origin: string): boolean {
  const host = hostOfOrigin(origin);
  return host !== undefined && isLoopbackName(withoutPort(host));
}

const notedMs = 60_000;

/** Values that are told of in one minute; whoever invents more of them is a flood, and no operator's concern. */
const mostNoted = 100;

/** Whether a value is to be told of: once a minute each. */
function createNotebook(): (value: string) => boolean {
  const noted = new Map<string, number>();
  return (value) => {
    const now = performance.now();
    const last = noted.get(value);
    if (last !== undefined && now - last < notedMs) return false;
    noted.delete(value);
    // The oldest come first.
    for (const [old, at] of noted) {
      if (now - at < notedMs) break;
      noted.delete(old);
    }
    if (noted.size >= mostNoted) return false;
    noted.set(value, now);
    return true;
  };
}

/** A header's value as a log may have it. */
const printable = (value: string): string => value.replace(/[^\x20-\x7e]/g, '?').slice(0, 200);

/** Whether a request names more than one host: proxies and we could each believe another. Node keeps the first, and says nothing. */
function hasTwoHosts({ rawHeaders }: IncomingMessage): boolean {
  let hosts = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index];
    if (name?.length === 4 && name.toLowerCase() === 'host') hosts += 1;
  }
  return hosts > 1;
}

/** The authority of a target in absolute form (`GET http://host/path`), lower case; undefined for the usual form. */
function authorityOf(target: string): string | undefined {
  if (target.startsWith('/')) return undefined;
  return /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(target)?.[1]?.toLowerCase();
}

/** @throws GatewayError INVALID_PARAMS for a request that does not say plainly whom it is for */
function requireOneHost(request: FastifyRequest): void {
  const { host } = request.headers;
  if (host === undefined && request.raw.httpVersion === '1.1') {
    throw new GatewayError('INVALID_PARAMS', { detail: '缺少 Host' });
  }
  if (hasTwoHosts(request.raw)) throw new GatewayError('INVALID_PARAMS', { detail: 'Host 只能有一个' });
  const authority = authorityOf(request.originalUrl);
  if (authority !== undefined && authority !== host?.toLowerCase()) {
    throw new GatewayError('INVALID_PARAMS', { detail: '请求目标与 Host 不一致' });
  }
}

/** Judges Host and Origin of every request, names allowed origins in all answers, and answers their preflights. */
export function registerOrigins(app: FastifyInstance, config: Config): void {
  const isListed = config.corsOrigins === undefined ? isLoopbackOrigin : matcherOf(config.corsOrigins);
  const isNews = createNotebook();
  const onlyLoopback = !config.auth && config.loopback;

  app.addHook('onRequest', (request, _reply, done) => {
    requireOneHost(request);
    const { host, origin } = request.headers;
    const anyOrigin = request.route?.anyOrigin === true;
    // Balancers ask for health in HTTP/1.0, without a Host; no browser does.
    const isProbe = host === undefined && anyOrigin;
    if (onlyLoopback && !isProbe && !isLoopbackName(withoutPort(host ?? ''))) {
      if (isNews(`host ${host}`)) {
        request.log.warn(
          { audit: 'refusal', requestId: request.id, host: printable(host ?? ''), address: request.ip },
          'a Host that is not this machine is refused while AUTH=off; set AUTH=on to be reached by other names',
        );
      }
      throw new GatewayError('FORBIDDEN', { detail: 'Host 必须是本机地址' });
    }
    if (origin !== undefined && !anyOrigin && !isOwnOrigin(origin, host ?? '') && !isListed(origin)) {
      if (isNews(`origin ${origin}`)) {
        request.log.warn(
          { audit: 'refusal', requestId: request.id, origin: printable(origin), address: request.ip },
          'pages of this origin are refused; name it in CORS_ORIGINS if they may call',
        );
      }
      throw new GatewayError('FORBIDDEN', { detail: 'Origin 不在 CORS_ORIGINS 之内' });
    }
    done();
  });

  // The gateway's own pages need no such header.
  registerCors(app, exposedHeaders, isListed);
}
