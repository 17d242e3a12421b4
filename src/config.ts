/** The one reader of process.env: a zod schema per variable, and secrets that cannot be printed. Knows nothing else. */
import { existsSync } from 'node:fs';
import { isIP } from 'node:net';
import { inspect } from 'node:util';
import { z } from 'zod';

/** A value that refuses to be printed, logged or serialized; only `reveal()` gives it. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}

/** A variable that is missing or wrong. Its message is one line that names the variable and never shows a secret. */
export class ConfigError extends Error {}

/** `most` left out: as large as it likes. */
function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER) {
  const range = most === Number.MAX_SAFE_INTEGER ? `${least} or more` : `from ${least} to ${most}`;
  return z.coerce
    .number({ error: `must be a whole number, ${range}` })
    .int()
    .min(least)
    .max(most);
}

const milliseconds = wholeNumber(0, 2_147_483_647);
const flag = z.enum(['true', 'false', '1', '0']).transform((value) => value === 'true' || value === '1');
const commaList = z.string().transform((value) =>
  value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== ''),
);
const secret = z
  .string()
  .regex(/^[\x21-\x7e]+$/, { error: 'must be printable ASCII without blanks' })
  .transform((value) => new Secret(value));
const httpUrl = z.string().superRefine((value, context) => {
  const url = URL.parse?.(value) ?? tryUrl(value);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    context.addIssue('must be an http or https URL');
  } else if (url.username !== '' || url.password !== '') {
    context.addIssue('must not hold a user name or password');
  }
});

/**
 * An origin as browsers send it: lower case, without a path and without the port that the scheme implies. `*` stands for any run of
 * characters that holds no `/`. Undefined for what no browser ever sends: a page that it was meant for would wait for ever.
 */
function normalizeOrigin(item: string): string | undefined {
  if (item === '*' || item === 'null' || item === 'file://') return item;
  const [, scheme, host] = /^([a-z*][a-z0-9+.*-]*):\/\/([^/?#@\\]+)\/?$/i.exec(item) ?? [];
  if (scheme === undefined || host === undefined || !/^[\x21-\x7e]+$/.test(host)) return undefined;
  const lowered = scheme.toLowerCase();
  if (lowered.includes('*')) return item.includes('*://') ? `${lowered}://${host.toLowerCase()}` : undefined;
  if (lowered !== 'http' && lowered !== 'https') return `${lowered}://${host}`;
  // A digit may stand wherever a star may: in a name, an address or a port.
  const url = tryUrl(`${lowered}://${host.replaceAll('*', '1')}`);
  if (url === null) return undefined;
  if (!host.includes('*')) return url.origin;
  return `${lowered}://${host.toLowerCase().replace(lowered === 'http' ? /:80$/ : /:443$/, '')}`;
}

/** Names of environment variables in which `*` stands for any run of characters. */
const variablePatterns = commaList.refine((items) => items.every((item) => /^[A-Za-z0-9_*]+$/.test(item)), {
  error: 'must be a comma list of names of variables, in which * may stand for anything',
});

const originList = commaList.transform((items, context) =>
  items.map((item) => {
    const origin = normalizeOrigin(item);
    if (origin !== undefined) return origin;
    context.addIssue(`"${item}" can match no origin; origins look like https://app.example`);
    return z.NEVER;
  }),
);

const addressNames: readonly string[] = ['loopback', 'linklocal', 'uniquelocal'];

/** Whether Fastify understands it as one proxy's address or as a block of them. */
function isProxyAddress(item: string): boolean {
  const [address = '', bits, ...rest] = item.split('/');
  const version = isIP(address);
  if (addressNames.includes(item)) return true;
  if (version === 0 || rest.length > 0) return false;
  return bits === undefined || (/^[1-9]\d{0,2}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}

const trustedProxies = z
  .string()
  .refine(
    (value) =>
      /^(?:true|false|\d+)$/.test(value) || value.split(',').every((item) => isProxyAddress(item.trim())),
    {
      error:
        'must be true, false, a number of proxies, or a comma list of addresses and blocks like 10.0.0.0/8',
    },
  );

function tryUrl(value: string): URL | null {
  try {
    return new URL(value);
  } catch {
    return null;
  }
}

/** Variable by variable, as the documentation lists them. Defaults that depend on another variable are set in `load`. */
export const environmentSchema = z.object({
  HOST: z.string().min(1).default('127.0.0.1'),
  PORT: wholeNumber(0, 65_535).default(8000),
  DATABASE_URL: z
    .string()
    .regex(/^sqlite:.+/, { error: 'must look like sqlite:./data/gateway.db' })
    .default('sqlite:./data/gateway.db'),
  LMSTUDIO_BASE_URL: httpUrl.default('http://127.0.0.1:1234'),
  LMSTUDIO_API_KEY: secret.optional(),
  BAILIAN_BASE_URL: httpUrl.default('https://dashscope.aliyuncs.com/compatible-mode/v1'),
  DASHSCOPE_API_KEY: secret.optional(),
  AUTH: z.enum(['on', 'off']).optional(),
  ALLOW_ANONYMOUS: flag.default(false),
  ADMIN_API_KEY: secret
    .refine((value) => value.reveal().length >= 24, { error: 'must have 24 characters or more' })
    .optional(),
  TRUST_PROXY: trustedProxies.optional(),
  CORS_ORIGINS: originList.optional(),
  MCP_ALLOWED_HOSTS: commaList.optional(),
  MCP_ALLOWED_PLUGINS: commaList.optional(),
  RATE_LIMIT_RPM: wholeNumber(0).default(0),
  UPSTREAM_CONNECT_TIMEOUT_MS: milliseconds.default(5000),
  UPSTREAM_FIRST_EVENT_TIMEOUT_MS: milliseconds.default(300_000),
  UPSTREAM_IDLE_TIMEOUT_MS: milliseconds.default(60_000),
  UPSTREAM_TOTAL_TIMEOUT_MS: milliseconds.default(1_800_000),
  UPSTREAM_MAX_RETRIES: wholeNumber(0, 20).default(2),
  STREAM_COMMIT_MS: milliseconds.default(5000),
  HEARTBEAT_MS: milliseconds.default(15_000),
  QUEUE_TIMEOUT_MS: milliseconds.default(60_000),
  BODY_LIMIT_BYTES: wholeNumber(1024, 1_073_741_824).default(20_971_520),
  PROVIDER_KEY_ENV: variablePatterns.default(['*_API_KEY']),
  BODIES_IN_FLIGHT_BYTES: wholeNumber(0).default(268_435_456),
  SHUTDOWN_GRACE_MS: milliseconds.default(30_000),
  USAGE_RETENTION_DAYS: wholeNumber(0).default(90),
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl.optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
});

type Environment = z.output<typeof environmentSchema>;

/** The limits of one upstream call, in milliseconds; 0 switches one off. */
export interface Timeouts {
  readonly connectMs: number;
  readonly firstEventMs: number;
  readonly idleMs: number;
  readonly totalMs: number;
}

export interface Config {
  readonly host: string;
  readonly port: number;
  /** Path of the SQLite file, or `:memory:`. */
  readonly databasePath: string;
  readonly lmstudio: { readonly baseUrl: string };
  readonly bailian: { readonly baseUrl: string };
  readonly auth: boolean;
  /** Whether the server listens where only this machine reaches it. */
  readonly loopback: boolean;
  readonly adminKey: Secret | undefined;
  /** As Fastify's `trustProxy` takes it. */
  readonly trustProxy: boolean | number | string;
  /** Origins, in which `*` stands for any run of characters without `/`; undefined: loopback origins on any port. */
  readonly corsOrigins: readonly string[] | undefined;
  readonly mcpAllowedHosts: readonly string[];
  readonly mcpAllowedPlugins: readonly string[];
  readonly rateLimitRpm: number;
  readonly timeouts: Timeouts;
  readonly maxRetries: number;
  readonly streamCommitMs: number;
  readonly heartbeatMs: number;
  readonly queueTimeoutMs: number;
  readonly bodyLimitBytes: number;
  /** Patterns of the variables that may hold a provider's key; see `mayHoldProviderKey`. */
  readonly providerKeyEnv: readonly string[];
  /** Of all bodies together; 0 = no bound. */
  readonly bodiesInFlightBytes: number;
  readonly shutdownGraceMs: number;
  readonly usageRetentionDays: number;
  readonly otlpEndpoint: string | undefined;
  readonly logLevel: Environment['LOG_LEVEL'];
  /** Names of proxy variables that are set. The gateway uses none of them. */
  readonly proxyVariables: readonly string[];
  /** The value of the environment variable that a provider names for its key; undefined where it is not set, or may not hold one. */
  secret(name: string): Secret | undefined;
}

/** The keys of the environment's own providers. */
const ownKeyVariables: readonly string[] = ['LMSTUDIO_API_KEY', 'DASHSCOPE_API_KEY'];

/**
 * Whether a variable may hold a provider's key. Not every one: whoever may name a provider's address and its variable could have any
 * secret of the process sent to a host of his own.
 */
export function mayHoldProviderKey(name: string, patterns: readonly string[]): boolean {
  if (name === 'ADMIN_API_KEY') return false;
  if (ownKeyVariables.includes(name)) return true;
  return patterns.some((pattern) => new RegExp(`^${pattern.replace(/\*+/g, '.*')}$`).test(name));
}

/** Whether a host name or address means this machine and nothing else: `localhost`, 127.0.0.0/8, `::1`. */
export function isLoopbackHost(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  return bare === 'localhost' || bare === '::1' || /^127(?:\.\d{1,3}){3}$/.test(bare);
}

/** Whether the name of a Host or Origin header leads to this machine in every browser: names under `.localhost` do, too. */
export function isLoopbackName(host: string): boolean {
  return isLoopbackHost(host) || /^(?:[a-z0-9_-]+\.)+localhost$/i.test(host);
}

function parseTrustProxy(value: string | undefined): boolean | number | string {
  if (value === undefined || value === 'false') return false;
  if (value === 'true') return true;
  return /^\d+$/.test(value) ? Number(value) : value;
}

/** Reads `.env` in the working directory, if there is one; variables that are already set win. */
export function loadDotEnv(): void {
  if (existsSync('.env')) process.loadEnvFile('.env');
}

/**
 * Checks the environment and fixes what follows from it. An empty variable counts as not set.
 * @throws ConfigError with one line that names the variable
 */
export function loadConfig(environment: Readonly<Record<string, string | undefined>> = process.env): Config {
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value.trim() !== ''),
  );
  const parsed = environmentSchema.safeParse(given);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new ConfigError(`${String(issue?.path[0])}: ${issue?.message ?? 'invalid'}`);
  }
  const env = parsed.data;
  const loopback = isLoopbackHost(env.HOST);
  const auth = env.AUTH === undefined ? !loopback : env.AUTH === 'on';
  if (!auth && !loopback && !env.ALLOW_ANONYMOUS) {
    throw new ConfigError(
      `AUTH: off on HOST=${env.HOST} would open the gateway to the network; set AUTH=on with ADMIN_API_KEY, or ALLOW_ANONYMOUS=true if that is meant`,
    );
  }
  if (env.BODIES_IN_FLIGHT_BYTES > 0 && env.BODIES_IN_FLIGHT_BYTES < env.BODY_LIMIT_BYTES) {
    throw new ConfigError(
      `BODIES_IN_FLIGHT_BYTES: must be 0 or at least BODY_LIMIT_BYTES (${env.BODY_LIMIT_BYTES}), else no such body would ever be taken`,
    );
  }
  const open = !auth && loopback;
  return {
    host: env.HOST.replace(/^\[|\]$/g, ''),
    port: env.PORT,
    databasePath: env.DATABASE_URL.slice('sqlite:'.length),
    lmstudio: { baseUrl: env.LMSTUDIO_BASE_URL },
    bailian: { baseUrl: env.BAILIAN_BASE_URL },
    auth,
    loopback,
    adminKey: env.ADMIN_API_KEY,
    trustProxy: parseTrustProxy(env.TRUST_PROXY),
    corsOrigins: env.CORS_ORIGINS,
    mcpAllowedHosts: env.MCP_ALLOWED_HOSTS ?? (open ? ['*'] : []),
    mcpAllowedPlugins: env.MCP_ALLOWED_PLUGINS ?? (open ? ['*'] : []),
    rateLimitRpm: env.RATE_LIMIT_RPM,
    timeouts: {
      connectMs: env.UPSTREAM_CONNECT_TIMEOUT_MS,
      firstEventMs: env.UPSTREAM_FIRST_EVENT_TIMEOUT_MS,
      idleMs: env.UPSTREAM_IDLE_TIMEOUT_MS,
      totalMs: env.UPSTREAM_TOTAL_TIMEOUT_MS,
    },
    maxRetries: env.UPSTREAM_MAX_RETRIES,
    streamCommitMs: env.STREAM_COMMIT_MS,
    heartbeatMs: env.HEARTBEAT_MS,
    queueTimeoutMs: env.QUEUE_TIMEOUT_MS,
    bodyLimitBytes: env.BODY_LIMIT_BYTES,
    providerKeyEnv: env.PROVIDER_KEY_ENV,
    bodiesInFlightBytes: env.BODIES_IN_FLIGHT_BYTES,
    shutdownGraceMs: env.SHUTDOWN_GRACE_MS,
    usageRetentionDays: env.USAGE_RETENTION_DAYS,
    otlpEndpoint: env.OTEL_EXPORTER_OTLP_ENDPOINT,
    logLevel: env.LOG_LEVEL,
    proxyVariables: Object.keys(given).filter((name) => /^(?:https?|all|no)_proxy$/i.test(name)),
    secret(name) {
      if (!mayHoldProviderKey(name, env.PROVIDER_KEY_ENV)) return undefined;
      const value = given[name]?.trim();
      return value === undefined || value === '' ? undefined : new Secret(value);
    },
  };
}
