/** The configuration: every variable, what follows from it, and how a mistake is told. */
import { format, inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  type Config,
  ConfigError,
  isLoopbackHost,
  isLoopbackName,
  loadConfig,
  Secret,
} from '../../src/config.ts';

const adminKey = 'admin-key-of-24-characters';

/** The message with which a start would end. */
function refusalOf(environment: Record<string, string>): string {
  try {
    loadConfig(environment);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

describe('with nothing set', () => {
  it('has the documented defaults', () => {
    const { secret, ...config } = loadConfig({});
    expect(config).toEqual({
      host: '127.0.0.1',
      port: 8000,
      databasePath: './data/gateway.db',
      lmstudio: { baseUrl: 'http://127.0.0.1:1234' },
      bailian: { baseUrl: 'https://dashscope.aliyuncs.com/compatible-mode/v1' },
      auth: false,
      loopback: true,
      adminKey: undefined,
      trustProxy: false,
      corsOrigins: undefined,
      mcpAllowedHosts: ['*'],
      mcpAllowedPlugins: ['*'],
      rateLimitRpm: 0,
      timeouts: { connectMs: 5000, firstEventMs: 300_000, idleMs: 60_000, totalMs: 1_800_000 },
      maxRetries: 2,
      streamCommitMs: 5000,
      heartbeatMs: 15_000,
      queueTimeoutMs: 60_000,
      bodyLimitBytes: 20_971_520,
      providerKeyEnv: ['*_API_KEY'],
      bodiesInFlightBytes: 268_435_456,
      shutdownGraceMs: 30_000,
      usageRetentionDays: 90,
      otlpEndpoint: undefined,
      proxyVariables: [],
      logLevel: 'info',
    });
    expect(secret('LMSTUDIO_API_KEY')).toBeUndefined();
  });

  it('takes an empty variable for one that is not set', () => {
    const { secret: _, ...unset } = loadConfig({});
    const names = [
      'HOST',
      'PORT',
      'AUTH',
      'ADMIN_API_KEY',
      'CORS_ORIGINS',
      'MCP_ALLOWED_HOSTS',
      'TRUST_PROXY',
    ];
    const { secret, ...empty } = loadConfig(
      Object.fromEntries(
        [...names, 'LMSTUDIO_API_KEY', 'HEARTBEAT_MS', 'LOG_LEVEL'].map((name) => [name, '']),
      ),
    );
    expect(empty).toEqual(unset);
    expect(secret('LMSTUDIO_API_KEY')).toBeUndefined();
  });

  it('tells the range of a number that is out of it', () => {
    expect(() => loadConfig({ PORT: '70000' })).toThrow('PORT: must be a whole number, from 0 to 65535');
    expect(() => loadConfig({ RATE_LIMIT_RPM: 'x' })).toThrow(
      'RATE_LIMIT_RPM: must be a whole number, 0 or more',
    );
  });

  it('ignores variables that are not its own', () => {
    expect(() => loadConfig({ PATH: '/usr/bin', npm_config_color: 'yes' })).not.toThrow();
  });
});

describe('each variable', () => {
  it.each([
    ['HOST', 'localhost', 'host', 'localhost'],
    ['HOST', '[::1]', 'host', '::1'],
    ['PORT', '0', 'port', 0],
    ['PORT', '65535', 'port', 65_535],
    ['DATABASE_URL', 'sqlite:/data/gateway.db', 'databasePath', '/data/gateway.db'],
    ['DATABASE_URL', 'sqlite::memory:', 'databasePath', ':memory:'],
    ['LMSTUDIO_BASE_URL', 'http://studio:1234/v1', 'lmstudio', { baseUrl: 'http://studio:1234/v1' }],
    ['BAILIAN_BASE_URL', 'https://example.com/v1', 'bailian', { baseUrl: 'https://example.com/v1' }],
    ['TRUST_PROXY', 'true', 'trustProxy', true],
    ['TRUST_PROXY', 'false', 'trustProxy', false],
    ['TRUST_PROXY', '2', 'trustProxy', 2],
    ['TRUST_PROXY', '10.0.0.0/8, 127.0.0.1', 'trustProxy', '10.0.0.0/8, 127.0.0.1'],
    [
      'CORS_ORIGINS',
      'https://a.example, https://b.example,',
      'corsOrigins',
      ['https://a.example', 'https://b.example'],
    ],
    ['CORS_ORIGINS', '*', 'corsOrigins', ['*']],
    [
      'CORS_ORIGINS',
      'https://*.Example.com:443,http://*:80,Chrome-Extension://*,*://a.example,null,file://',
      'corsOrigins',
      ['https://*.example.com', 'http://*', 'chrome-extension://*', '*://a.example', 'null', 'file://'],
    ],
    [
      'CORS_ORIGINS',
      'https://App.example:443/,http://c:81,tauri://localhost',
      'corsOrigins',
      ['https://app.example', 'http://c:81', 'tauri://localhost'],
    ],
    ['TRUST_PROXY', 'loopback, fd00::/8', 'trustProxy', 'loopback, fd00::/8'],
    ['MCP_ALLOWED_HOSTS', 'mcp.example', 'mcpAllowedHosts', ['mcp.example']],
    ['MCP_ALLOWED_PLUGINS', 'mcp/one,mcp/two', 'mcpAllowedPlugins', ['mcp/one', 'mcp/two']],
    ['RATE_LIMIT_RPM', '60', 'rateLimitRpm', 60],
    ['UPSTREAM_MAX_RETRIES', '0', 'maxRetries', 0],
    ['STREAM_COMMIT_MS', '0', 'streamCommitMs', 0],
    ['HEARTBEAT_MS', '1000', 'heartbeatMs', 1000],
    ['QUEUE_TIMEOUT_MS', '10', 'queueTimeoutMs', 10],
    ['BODY_LIMIT_BYTES', '1024', 'bodyLimitBytes', 1024],
    ['PROVIDER_KEY_ENV', 'A_*, B_TOKEN', 'providerKeyEnv', ['A_*', 'B_TOKEN']],
    ['SHUTDOWN_GRACE_MS', '0', 'shutdownGraceMs', 0],
    ['USAGE_RETENTION_DAYS', '7', 'usageRetentionDays', 7],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://collector:4318', 'otlpEndpoint', 'http://collector:4318'],
    ['LOG_LEVEL', 'silent', 'logLevel', 'silent'],
  ] as const)('%s=%s is read', (name, value, field, expected) => {
    expect(loadConfig({ [name]: value })[field]).toEqual(expected);
  });

  it.each([
    ['UPSTREAM_CONNECT_TIMEOUT_MS', 'connectMs'],
    ['UPSTREAM_FIRST_EVENT_TIMEOUT_MS', 'firstEventMs'],
    ['UPSTREAM_IDLE_TIMEOUT_MS', 'idleMs'],
    ['UPSTREAM_TOTAL_TIMEOUT_MS', 'totalMs'],
  ] as const)('%s sets its own limit alone, and 0 is a value', (name, field) => {
    const { timeouts } = loadConfig({});
    expect(loadConfig({ [name]: '0' }).timeouts).toEqual({ ...timeouts, [field]: 0 });
  });

  it.each([
    ['PORT', 'eight'],
    ['PORT', '65536'],
    ['PORT', '80.5'],
    ['DATABASE_URL', 'postgres://localhost/gateway'],
    ['DATABASE_URL', 'sqlite:'],
    ['LMSTUDIO_BASE_URL', 'localhost:1234'],
    ['LMSTUDIO_BASE_URL', 'ftp://localhost'],
    ['BAILIAN_BASE_URL', 'not a url'],
    ['LMSTUDIO_API_KEY', 'with a blank'],
    ['DASHSCOPE_API_KEY', 'zwei\nzeilen'],
    ['AUTH', 'yes'],
    ['ALLOW_ANONYMOUS', 'perhaps'],
    ['ADMIN_API_KEY', 'short'],
    ['RATE_LIMIT_RPM', '-1'],
    ['TRUST_PROXY', 'proxy.example'],
    ['TRUST_PROXY', '10.0.0.0/33'],
    ['TRUST_PROXY', '10.0.0.1,,'],
    ['PROVIDER_KEY_ENV', '*_API_KEY, sk-123'],
    ['CORS_ORIGINS', 'app.example'],
    ['CORS_ORIGINS', 'https://app.example/page'],
    ['CORS_ORIGINS', 'localhost:3000'],
    // What no browser ever sends.
    ['CORS_ORIGINS', 'https://*.example.com/page'],
    ['CORS_ORIGINS', '*.example.com'],
    ['CORS_ORIGINS', 'https://app.example?x'],
    ['CORS_ORIGINS', 'https://me@*.example.com'],
    ['CORS_ORIGINS', 'https://*.example.com:port'],
    ['CORS_ORIGINS', 'https://*.exämple.com'],
    ['CORS_ORIGINS', 'chrome-extension://'],
    ['CORS_ORIGINS', 'NULL'],
    ['UPSTREAM_CONNECT_TIMEOUT_MS', '5s'],
    ['UPSTREAM_FIRST_EVENT_TIMEOUT_MS', '-1'],
    ['UPSTREAM_IDLE_TIMEOUT_MS', '1e10'],
    ['UPSTREAM_TOTAL_TIMEOUT_MS', 'NaN'],
    ['UPSTREAM_MAX_RETRIES', '1.5'],
    ['STREAM_COMMIT_MS', 'soon'],
    ['HEARTBEAT_MS', '-5'],
    ['QUEUE_TIMEOUT_MS', 'Infinity'],
    ['BODY_LIMIT_BYTES', '0'],
    ['SHUTDOWN_GRACE_MS', '30 s'],
    ['USAGE_RETENTION_DAYS', 'ninety'],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector'],
    ['LOG_LEVEL', 'loud'],
  ])('%s=%j is refused in one line that begins with its name', (name, value) => {
    expect(refusalOf({ [name]: value })).toMatch(new RegExp(`^${name}: .+$`));
    expect(refusalOf({ [name]: value })).not.toContain('\n');
  });

  it.each([
    ['true', true],
    ['1', true],
    ['false', false],
    ['0', false],
  ])('ALLOW_ANONYMOUS=%s decides whether the open door is meant', (value, meant) => {
    const start = () => loadConfig({ HOST: '0.0.0.0', AUTH: 'off', ALLOW_ANONYMOUS: value });
    if (meant) expect(start().auth).toBe(false);
    else expect(start).toThrow(ConfigError);
  });
});

describe('AUTH', () => {
  it.each(['127.0.0.1', '127.8.9.10', 'localhost', '::1', '[::1]'])('is off by default on %s', (HOST) => {
    expect(loadConfig({ HOST })).toMatchObject({ auth: false, loopback: true });
  });

  it.each(['0.0.0.0', '::', '192.168.1.5', 'gateway.example', '128.0.0.1'])(
    'is on by default on %s',
    (HOST) => {
      expect(loadConfig({ HOST })).toMatchObject({ auth: true, loopback: false });
    },
  );

  it('can be switched on for loopback', () => {
    expect(loadConfig({ AUTH: 'on' })).toMatchObject({ auth: true, loopback: true });
  });

  it('ends the start when it is off where others can reach the server', () => {
    expect(refusalOf({ HOST: '0.0.0.0', AUTH: 'off' })).toMatch(/^AUTH: .*0\.0\.0\.0.*ALLOW_ANONYMOUS/);
  });

  it('may be off there when ALLOW_ANONYMOUS says so', () => {
    const config = loadConfig({ HOST: '0.0.0.0', AUTH: 'off', ALLOW_ANONYMOUS: 'true' });
    expect(config).toMatchObject({ auth: false, loopback: false });
  });
});

describe('what MCP servers requests may name', () => {
  it.each([
    [{}, ['*']],
    [{ AUTH: 'on' }, []],
    [{ HOST: '0.0.0.0' }, []],
    [{ HOST: '0.0.0.0', AUTH: 'off', ALLOW_ANONYMOUS: 'true' }, []],
  ])('with %j is by default %j', (environment, expected) => {
    const config = loadConfig(environment);
    expect(config.mcpAllowedHosts).toEqual(expected);
    expect(config.mcpAllowedPlugins).toEqual(expected);
  });

  it('is what the settings say, each for itself', () => {
    const config = loadConfig({ AUTH: 'on', MCP_ALLOWED_PLUGINS: '*' });
    expect(config.mcpAllowedPlugins).toEqual(['*']);
    expect(config.mcpAllowedHosts).toEqual([]);
  });
});

describe('proxy variables', () => {
  it('are named, in either case, but not their values', () => {
    const set = {
      HTTPS_PROXY: 'http://user:word@proxy:3128',
      no_proxy: 'localhost',
      HTTP_PROXY: '',
      MY_PROXY: 'x',
    };
    expect(loadConfig(set).proxyVariables).toEqual(['HTTPS_PROXY', 'no_proxy']);
  });
});

describe('secrets', () => {
  const value = 'sk-very-secret-0123456789';

  it('never show in what a refused start says', () => {
    for (const name of ['ADMIN_API_KEY', 'LMSTUDIO_API_KEY', 'DASHSCOPE_API_KEY']) {
      const refusal = refusalOf({ [name]: `${value} with a blank` });
      expect(refusal).toMatch(new RegExp(`^${name}: `));
      expect(refusal).not.toContain('very-secret');
    }
    expect(refusalOf({ ADMIN_API_KEY: 'too-short-secret' })).not.toContain('too-short-secret');
  });

  it('never show in an address that is refused for holding one', () => {
    const refusal = refusalOf({ LMSTUDIO_BASE_URL: `http://user:${value}@studio:1234` });
    expect(refusal).toMatch(/^LMSTUDIO_BASE_URL: /);
    expect(refusal).not.toContain(value);
  });

  const printers: Record<string, (config: Config) => string> = {
    'a template': (config) => `${config.adminKey}`,
    JSON: (config) => JSON.stringify(config),
    'util.inspect with everything on': (config) =>
      inspect(config, { showHidden: true, depth: 9, getters: true }),
    'its entries': (config) => String(Object.entries(config).flat(3)),
  };
  it.each(Object.entries(printers))('cannot be printed through %s', (_, print) => {
    const config = loadConfig({ ADMIN_API_KEY: value, LMSTUDIO_API_KEY: value });
    expect(print(config)).not.toContain(value);
  });

  it('cannot be printed through console.log', () => {
    const { adminKey: key } = loadConfig({ ADMIN_API_KEY: value });
    expect(format(key)).toBe('[secret]');
    expect(format('%s %o %O %j', key, key, key, key)).not.toContain(value);
  });

  it('are given by reveal() alone', () => {
    expect(loadConfig({ ADMIN_API_KEY: value }).adminKey?.reveal()).toBe(value);
    expect(new Secret(value).reveal()).toBe(value);
  });

  it('are found under the name that a provider gives, if PROVIDER_KEY_ENV has it', () => {
    const config = loadConfig({
      MY_PROVIDER_KEY: ` ${value}\n`,
      ADMIN_API_KEY: value,
      LMSTUDIO_API_KEY: value,
      PROVIDER_KEY_ENV: '*_KEY',
    });
    expect(config.secret('MY_PROVIDER_KEY')?.reveal()).toBe(value);
    expect(
      loadConfig({ PROVIDER_KEY_ENV: 'X', LMSTUDIO_API_KEY: value }).secret('LMSTUDIO_API_KEY')?.reveal(),
    ).toBe(value);
    expect(loadConfig({ MY_PROVIDER_KEY: value }).secret('MY_PROVIDER_KEY')).toBeUndefined();
    expect(config.secret('ADMIN_API_KEY')).toBeUndefined();
    expect(config.secret('ANOTHER_KEY')).toBeUndefined();
  });

  it('that are blank count as not set', () => {
    expect(loadConfig({ MY_API_KEY: '  ' }).secret('MY_API_KEY')).toBeUndefined();
  });

  it('of an administrator need 24 characters', () => {
    expect(loadConfig({ ADMIN_API_KEY: adminKey.slice(0, 24) }).adminKey?.reveal()).toHaveLength(24);
    expect(refusalOf({ ADMIN_API_KEY: adminKey.slice(0, 23) })).toMatch(/^ADMIN_API_KEY: .*24/);
  });
});

describe('isLoopbackHost', () => {
  it.each(['localhost', 'LOCALHOST', '127.0.0.1', '127.255.255.254', '::1', '[::1]'])('takes %s', (host) => {
    expect(isLoopbackHost(host)).toBe(true);
  });

  it('leaves names under .localhost to headers: HOST is no such name', () => {
    expect(['app.localhost', 'a.b.LOCALHOST', 'localhost', '[::1]'].every(isLoopbackName)).toBe(true);
    expect(isLoopbackHost('app.localhost')).toBe(false);
    expect(refusalOf({ HOST: 'app.localhost', AUTH: 'off' })).toMatch(/^AUTH: off on HOST=app.localhost/);
  });

  it.each(['', '0.0.0.0', '::', '127.0.0.1.example.com', 'localhost.example.com', '1.127.0.0', '127.1'])(
    'refuses %j',
    (host) => {
      expect(isLoopbackHost(host)).toBe(false);
    },
  );
});
