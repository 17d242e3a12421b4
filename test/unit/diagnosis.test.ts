/** What the doctor makes of facts, each named. The facts themselves are gathered over sockets in doctor.test. */
import { describe, expect, it } from 'vitest';
import { providerKinds } from '../../src/adapters/index.ts';
import {
  judgeDatabase,
  judgeEnvironment,
  judgeProvider,
  judgeWhole,
  type ProviderFacts,
} from '../../src/admin/diagnosis.ts';
import type { ModelInfo } from '../../src/chat/adapter.ts';
import type { CatalogProvider } from '../../src/gateway/catalog.ts';
import type { Listed } from '../../src/gateway/listing.ts';
import type { ResponseHead } from '../../src/upstream/client.ts';

const now = Date.parse('2027-01-01T12:00:00Z');

function provider(changes: Partial<CatalogProvider> = {}, kindName = 'lmstudio'): CatalogProvider {
  const kind = providerKinds.get(kindName);
  if (kind === undefined) throw new Error(`no kind ${kindName}`);
  return {
    id: 1,
    key: 'studio',
    kind,
    displayName: kind.displayName,
    baseUrl: 'http://192.168.1.20:1234',
    apiKey: undefined,
    apiKeyEnv: 'STUDIO_KEY',
    apiKeyEnvRefused: false,
    missingCredential: false,
    enabled: true,
    maxConcurrency: undefined,
    maxQueue: 256,
    abortGraceMs: 500,
    passthrough: [],
    timeouts: {},
    ...changes,
  };
}

const head = (status: number, headers: ResponseHead['headers'] = {}): ResponseHead => ({
  status,
  contentType: 'application/json',
  retryAfterSeconds: undefined,
  headers: { date: new Date(now).toUTCString(), ...headers },
});

const model = (id: string, rest: Partial<ModelInfo> = {}): ModelInfo => ({
  id,
  type: 'llm',
  state: 'not-loaded',
  ...rest,
});

const list = (
  models: readonly ModelInfo[] = [model('qwen3')],
  apis: readonly string[] = ['v0', 'v1'],
  headers: ResponseHead['headers'] = {},
): Listed => ({ ok: true, apis, models, head: head(200, headers) });

const routeTo = (upstreamModel: string, rest: Partial<ProviderFacts['routes'][number]> = {}) => ({
  id: 7,
  title: upstreamModel,
  upstreamModel,
  active: true,
  ...rest,
});

const facts = (changes: Partial<ProviderFacts> = {}): ProviderFacts => ({
  provider: provider(),
  origin: 'admin',
  baseUrlVariable: undefined,
  listed: list(),
  answeredAt: now,
  routes: [routeTo('qwen3')],
  ...changes,
});

const judged = (changes: Partial<ProviderFacts>, check: string) =>
  judgeProvider(facts(changes)).find((finding) => finding.id === `studio.${check}`);

describe('a provider in good order', () => {
  it('has findings that are all ok and ask for nothing', () => {
    const findings = judgeProvider(facts());
    expect(findings.map(({ id, severity }) => [id, severity])).toEqual([
      ['studio.reachable', 'ok'],
      ['studio.generation', 'ok'],
      ['studio.auth', 'ok'],
      ['studio.models', 'ok'],
      ['studio.loaded', 'ok'],
      ['studio.clock', 'ok'],
    ]);
    for (const finding of findings) expect(finding).toMatchObject({ subject: 'studio', action: null });
  });

  it('is told with what is loaded, its context and how many run at once', () => {
    const instances = [
      { id: 'qwen3', contextLength: 8192, parallel: 4 },
      { id: 'qwen3:2', contextLength: 4096 },
    ];
    const listed = list([model('qwen3', { state: 'loaded', instances })]);
    expect(judged({ listed }, 'loaded')?.message).toBe(
      'loaded: qwen3 (context 8192, 4 in parallel); qwen3:2 (context 4096)',
    );
  });

  it('is not asked when it is disabled', () => {
    const findings = judgeProvider(facts({ provider: provider({ enabled: false }), listed: undefined }));
    expect(findings).toMatchObject([{ id: 'studio.enabled', severity: 'ok' }]);
  });
});

describe('an older LM Studio', () => {
  it('is a note that says what a newer one is good for', () => {
    expect(judged({ listed: list(undefined, ['v0']) }, 'generation')).toMatchObject({
      severity: 'note',
      message: 'speaks v0 only, not v1',
      action: expect.stringContaining('0.4.0'),
    });
  });
});

describe('a key', () => {
  it.each([
    ['environment', 'note'],
    ['admin', 'problem'],
  ] as const)('that is missing is named, for a provider from the %s a %s', (origin, severity) => {
    const without = provider({ missingCredential: true, apiKeyEnv: 'DASHSCOPE_API_KEY' }, 'bailian');
    const findings = judgeProvider(facts({ provider: without, origin, listed: undefined }));
    expect(findings).toMatchObject([
      {
        id: 'studio.auth',
        severity,
        message: 'its key is missing: DASHSCOPE_API_KEY is not set',
        action: expect.stringContaining('set DASHSCOPE_API_KEY'),
      },
    ]);
  });

  it('that PROVIDER_KEY_ENV keeps from its variable is a problem that names both', () => {
    const without = provider({ missingCredential: true, apiKeyEnvRefused: true });
    const [finding] = judgeProvider(facts({ provider: without, listed: undefined }));
    expect(finding).toMatchObject({ id: 'studio.auth', severity: 'problem' });
    expect(finding?.message).toMatch(/STUDIO_KEY.*PROVIDER_KEY_ENV/);
    expect(finding?.action).toMatch(/add STUDIO_KEY to PROVIDER_KEY_ENV/);
  });

  it('that is missing and has no variable yet gets one by a command', () => {
    const without = provider({ missingCredential: true, apiKeyEnv: undefined }, 'bailian');
    const [finding] = judgeProvider(facts({ provider: without, listed: undefined }));
    expect(finding?.action).toContain('llm-gateway providers set studio --api-key-env NAME');
  });

  it.each([
    ['wanted, with an unset variable', {}, /STUDIO_KEY is not set/, /^set STUDIO_KEY; make a token/],
    ['wanted, with no variable', { apiKeyEnv: undefined }, /none is configured/, /--api-key-env NAME/],
    ['refused', { apiKey: 'lm-very-secret' }, /refuses the key of STUDIO_KEY \(401\)/, /^correct STUDIO_KEY/],
  ])('that is %s is a problem of auth, not of reachability', (_, changes, message, action) => {
    const listed: Listed = { ok: false, error: 'the provider answered 401', head: head(401) };
    const given = { provider: provider(changes), listed };
    expect(judged(given, 'reachable')?.severity).toBe('ok');
    const finding = judged(given, 'auth');
    expect(finding).toMatchObject({
      severity: 'problem',
      message: expect.stringMatching(message),
      action: expect.stringMatching(action),
    });
    expect(JSON.stringify(finding)).not.toContain('very-secret');
  });
});

describe('a provider that cannot be reached', () => {
  const failed = (code: string, changes: Partial<ProviderFacts> = {}) =>
    judged(
      { listed: { ok: false, error: `no connection (${code})`, failure: 'connect', code }, ...changes },
      'reachable',
    );

  it('is told to be started, or its address to be corrected where that is set', () => {
    expect(failed('ECONNREFUSED')).toMatchObject({
      severity: 'problem',
      message: 'no connection (ECONNREFUSED) at http://192.168.1.20:1234',
      action: expect.stringMatching(/^start LM Studio.*providers set studio --base-url URL\)$/),
    });
    expect(failed('ECONNREFUSED', { baseUrlVariable: 'LMSTUDIO_BASE_URL' })?.action).toContain(
      'correct its address (LMSTUDIO_BASE_URL)',
    );
  });

  it.each(['http://127.0.0.1:1234', 'http://localhost:1234', 'http://[::1]:1234'])(
    'at %s may be sought from inside a container',
    (baseUrl) => {
      expect(failed('ECONNREFUSED', { provider: provider({ baseUrl }) })?.action).toContain(
        'host.docker.internal',
      );
      expect(failed('ECONNREFUSED')?.action).not.toContain('host.docker.internal');
    },
  );

  it.each([
    ['ENOTFOUND', /nobody knows its host name/],
    ['EAI_AGAIN', /nobody knows its host name/],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', /NODE_EXTRA_CA_CERTS/],
    ['CERT_HAS_EXPIRED', /NODE_EXTRA_CA_CERTS/],
  ])('for %s gets its own advice', (code, action) => {
    expect(failed(code)?.action).toMatch(action);
  });

  it('because it takes connections and says nothing is not told to be started', () => {
    const listed: Listed = { ok: false, error: 'no complete answer within 10 s', failure: 'timeout' };
    expect(judged({ listed }, 'reachable')?.action).toMatch(/takes connections and does not answer/);
  });
});

describe('an address with something else behind it', () => {
  it.each([
    ['a web page', { head: head(200), isPage: true }, /a web page, of a proxy/],
    [
      'a redirect',
      { head: head(301, { location: 'https://login.example.com/x?y' }) },
      /redirects to https:\/\/login\.example\.com$/,
    ],
    ['another API', { head: head(404) }, /no server of the kind lmstudio/],
    ['a failing server', { head: head(503) }, /^try again/],
  ])('is a problem: %s', (_, answer, action) => {
    const listed: Listed = { ok: false, error: 'the provider answered without a model list', ...answer };
    expect(judged({ listed }, 'reachable')).toMatchObject({
      severity: 'problem',
      action: expect.stringMatching(action),
    });
  });
});

describe('the models', () => {
  it('are a problem where there are none, with the command that gets one', () => {
    expect(judged({ listed: list([]), routes: [] }, 'models')).toMatchObject({
      severity: 'problem',
      action: 'download one: llm-gateway providers download studio MODEL',
    });
  });

  it('that the catalog leads to and the list lacks are a problem, with the route', () => {
    const routes = [routeTo('qwen3'), routeTo('gone', { id: 9, title: 'my-assistant' })];
    expect(judged({ routes }, 'routes')).toMatchObject({
      severity: 'problem',
      message: expect.stringContaining('my-assistant (route 9 to gone)'),
      action: expect.stringContaining('models sync studio'),
    });
  });

  it('that are disabled or known to have vanished are none of it', () => {
    const routes = [routeTo('qwen3'), routeTo('gone', { active: false })];
    expect(judged({ routes }, 'routes')).toBeUndefined();
  });

  it('that a platform does not list may be there all the same', () => {
    const given = {
      provider: provider({ apiKey: 'k' }, 'bailian'),
      listed: list([model('qwen-max')], ['compatible']),
      routes: [routeTo('qwen-max'), routeTo('qwen-secret')],
    };
    expect(judged(given, 'routes')?.severity).toBe('note');
    expect(judged(given, 'generation')).toBeUndefined();
  });

  it('that are on the list and not in the catalog are named, the first five', () => {
    const models = ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((id) => model(id));
    const given = { listed: list(models), routes: [routeTo('a')] };
    expect(judged(given, 'catalog')).toMatchObject({
      severity: 'note',
      message: 'on its list and not in the catalog: b, c, d, e, f and 1 more',
      action: expect.stringContaining('llm-gateway models sync studio'),
    });
    expect(judged({ ...given, provider: provider({}, 'bailian') }, 'catalog')?.severity).toBe('ok');
  });

  it('are in the catalog also where their route is disabled', () => {
    expect(judged({ routes: [routeTo('qwen3', { active: false })] }, 'catalog')).toBeUndefined();
  });
});

describe('the clock', () => {
  it.each([
    [59, 'ok', 'agrees'],
    [90, 'note', '2 min ahead of ours'],
    [-600, 'problem', '10 min behind ours'],
    [86_400, 'problem', '24 h ahead of ours'],
  ])('that is %i seconds off is: %s', (seconds, severity, message) => {
    const listed = list(undefined, undefined, { date: new Date(now + seconds * 1000).toUTCString() });
    expect(judged({ listed }, 'clock')).toMatchObject({
      severity,
      message: expect.stringContaining(message),
    });
  });

  it('is also read from a refusal, and passed over where there is none', () => {
    const refusal: Listed = {
      ok: false,
      error: 'x',
      head: head(401, { date: new Date(now - 1e6).toUTCString() }),
    };
    expect(judged({ listed: refusal }, 'clock')?.severity).toBe('problem');
    expect(judged({ listed: list(undefined, undefined, { date: undefined }) }, 'clock')).toBeUndefined();
  });
});

describe('a proxy', () => {
  it('that answers for a provider is a note', () => {
    const listed = list(undefined, undefined, { via: '1.1 squid\u001b[31m' });
    expect(judged({ listed }, 'proxy')).toMatchObject({
      severity: 'note',
      message: 'a proxy answers for it (via: 1.1 squid[31m)',
    });
  });

  it('that only variables name is a note that shows no address', () => {
    expect(judgeEnvironment([])).toEqual([]);
    expect(judgeEnvironment(['HTTPS_PROXY', 'no_proxy'])).toMatchObject([
      {
        id: 'environment.proxy',
        severity: 'note',
        message: expect.stringMatching(/^HTTPS_PROXY, no_proxy: set, and not used/),
      },
    ]);
  });
});

describe('the database', () => {
  const sound = {
    file: './data/gateway.db',
    schema: '0005_keys',
    applied: [],
    bytes: 5000,
    freeBytes: 9e9,
    damage: undefined,
    unwritable: undefined,
  };
  const problems = (changes: object) =>
    judgeDatabase({ ...sound, ...changes }).filter((finding) => finding.severity === 'problem');

  it('in good order has nothing to do', () => {
    expect(judgeDatabase(sound).map(({ severity, action }) => [severity, action])).toEqual(
      Array.from({ length: 4 }, () => ['ok', null]),
    );
    expect(
      judgeDatabase({ ...sound, freeBytes: undefined })
        .map((one) => one.message)
        .join(),
    ).toContain('in memory');
  });

  it.each([
    ['integrity', { damage: 'row 3 missing from index' }, /row 3 missing/],
    ['writable', { unwritable: 'attempt to write a readonly database' }, /readonly/],
    ['size', { freeBytes: 1024 * 1024 }, /1\.0 MiB are left/],
  ])('is a problem of %s', (check, changes, message) => {
    expect(problems(changes)).toMatchObject([
      { id: `database.${check}`, message: expect.stringMatching(message), action: expect.any(String) },
    ]);
  });
});

it('is a problem where no provider at all can be called', () => {
  const down: Listed = { ok: false, error: 'no connection', failure: 'connect' };
  const none = [
    facts({ listed: down }),
    facts({ provider: provider({ missingCredential: true }), listed: undefined }),
  ];
  expect(judgeWhole(none)).toMatchObject([{ id: 'gateway.usable', severity: 'problem' }]);
  expect(judgeWhole([...none, facts()])).toEqual([]);
});
