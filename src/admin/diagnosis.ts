/** What the facts about database, environment and providers mean, and what to do about them. Pure: asks nobody. */
import type { LoadedInstance, ModelInfo } from '../chat/adapter.ts';
import type { CatalogProvider } from '../gateway/catalog.ts';
import type { Listed } from '../gateway/listing.ts';
import type { DatabaseFacts } from '../store/health.ts';

/** `ok`: as it should be. `note`: good to know. `problem`: somebody has to do something. */
export type Severity = 'ok' | 'note' | 'problem';

export interface Finding {
  /** Stable, e.g. `lmstudio.auth`. */
  readonly id: string;
  /** `database`, `environment`, or a provider's key. */
  readonly subject: string;
  readonly severity: Severity;
  /** One line. */
  readonly message: string;
  /** What to do, where there is something; one line. */
  readonly action: string | null;
}

/** A route of the catalog that leads to the provider, disabled ones too. */
export interface RouteFacts {
  readonly id: number;
  readonly title: string;
  readonly upstreamModel: string;
  /** The route and its model are enabled, and the model did not vanish. */
  readonly active: boolean;
}

export interface ProviderFacts {
  readonly provider: CatalogProvider;
  readonly origin: 'environment' | 'admin';
  /** The variable that gives it its address, if one does. */
  readonly baseUrlVariable: string | undefined;
  /** What it answered; undefined where it was not asked. */
  readonly listed: Listed | undefined;
  /** This machine's clock when the answer was there. Milliseconds since 1970. */
  readonly answeredAt: number;
  readonly routes: readonly RouteFacts[];
}

type Judged = readonly [Severity, string, (string | null)?];

const finding = (subject: string, check: string, [severity, message, action]: Judged): Finding => ({
  id: `${subject}.${check}`,
  subject,
  severity,
  message,
  action: action ?? null,
});

/** Lists of names are cut here; the models of a platform are hundreds. */
const mostNames = 5;

function namesOf(names: readonly string[]): string {
  const shown = names.slice(0, mostNames).join(', ');
  return names.length > mostNames ? `${shown} and ${names.length - mostNames} more` : shown;
}

const megabyte = 1024 * 1024;

function sizeOf(bytes: number): string {
  if (bytes < megabyte) return `${Math.ceil(bytes / 1024)} KiB`;
  const megabytes = bytes / megabyte;
  return megabytes < 1024 ? `${megabytes.toFixed(1)} MiB` : `${(megabytes / 1024).toFixed(1)} GiB`;
}

/** A usage row takes about 300 bytes: this much is used up by 300,000 calls. */
const littleSpace = 100 * megabyte;

export function judgeDatabase(facts: DatabaseFacts): Finding[] {
  const { file, applied, schema, bytes, freeBytes, damage, unwritable } = facts;
  const judged = (check: string, verdict: Judged): Finding => finding('database', check, verdict);
  const migrated = applied.length === 0 ? '' : `; ${applied.length} migrations were run just now`;
  return [
    judged('opens', ['ok', `${file} opens, schema ${schema}${migrated}`]),
    damage === undefined
      ? judged('integrity', ['ok', 'the file is sound'])
      : judged('integrity', [
          'problem',
          `the file is damaged: ${damage}`,
          'stop the server and put a backup in its place',
        ]),
    unwritable === undefined
      ? judged('writable', ['ok', 'can be written'])
      : judged('writable', [
          'problem',
          `cannot be written: ${unwritable}`,
          'see who owns the file and its directory, and whether another process holds its lock',
        ]),
    freeBytes !== undefined && freeBytes < littleSpace
      ? judged('size', [
          'problem',
          `${sizeOf(bytes)}, and only ${sizeOf(freeBytes)} are left on its disk`,
          'free some space, or keep less with USAGE_RETENTION_DAYS',
        ])
      : judged('size', [
          'ok',
          `${sizeOf(bytes)}${freeBytes === undefined ? ', in memory' : `, ${sizeOf(freeBytes)} left on its disk`}`,
        ]),
  ];
}

/** @param proxyVariables names of those that are set */
export function judgeEnvironment(proxyVariables: readonly string[]): Finding[] {
  if (proxyVariables.length === 0) return [];
  return [
    finding('environment', 'proxy', [
      'note',
      `${proxyVariables.join(', ')}: set, and not used; the gateway connects to providers directly`,
      'where only a proxy leads out, give a provider the address of a gateway that forwards to it',
    ]),
  ];
}

export function judgeProvider(facts: ProviderFacts): Finding[] {
  const { provider, listed } = facts;
  const { key } = provider;
  const judged = (check: string, verdict: Judged): Finding => finding(key, check, verdict);
  if (!provider.enabled) return [judged('enabled', ['ok', 'disabled, and not asked'])];
  if (provider.missingCredential) return [judged('auth', judgeMissingKey(facts))];
  if (listed === undefined) return [];
  const proxies = judgeProxy(listed);
  const clock = judgeClock(listed, facts.answeredAt);
  const about = [
    ...(proxies === undefined ? [] : [judged('proxy', proxies)]),
    ...(clock === undefined ? [] : [judged('clock', clock)]),
  ];
  if (!listed.ok) return [...judgeRefusal(facts, listed), ...about];
  return [
    judged('reachable', ['ok', `answers at ${provider.baseUrl}`]),
    ...judgeGeneration(provider, listed.apis).map((verdict) => judged('generation', verdict)),
    judged('auth', judgeKey(provider)),
    ...judgeModels(facts, listed.models),
    ...about,
  ];
}

function judgeMissingKey({ provider, origin }: ProviderFacts): Judged {
  const { key, kind, apiKeyEnv } = provider;
  if (provider.apiKeyEnvRefused) {
    return [
      'problem',
      `its key may not be read from ${apiKeyEnv}, which PROVIDER_KEY_ENV does not name`,
      `add ${apiKeyEnv} to PROVIDER_KEY_ENV, or give the key a variable that it names: llm-gateway providers set ${key} --api-key-env NAME`,
    ];
  }
  const where = kind.advice?.key === undefined ? '' : ` (${kind.advice.key})`;
  const action =
    apiKeyEnv === undefined
      ? `name the variable that holds its key: llm-gateway providers set ${key} --api-key-env NAME${where}`
      : `set ${apiKeyEnv}${where}, or do without it: llm-gateway providers set ${key} --enabled false`;
  // Every installation has the environment's providers, wanted or not; what a person added is wanted.
  const severity = origin === 'admin' ? 'problem' : 'note';
  return [
    severity,
    `its key is missing${apiKeyEnv === undefined ? '' : `: ${apiKeyEnv} is not set`}`,
    action,
  ];
}

function judgeKey({ apiKey, apiKeyEnv }: CatalogProvider): Judged {
  if (apiKey === undefined) return ['ok', 'wants no key'];
  return ['ok', `the key of ${apiKeyEnv ?? 'its variable'} is accepted`];
}

type Refusal = Extract<Listed, { ok: false }>;

const authStatuses: ReadonlySet<number | undefined> = new Set([401, 403]);

function judgeRefusal(facts: ProviderFacts, refusal: Refusal): Finding[] {
  const { provider } = facts;
  const { key, baseUrl } = provider;
  const status = refusal.head?.status;
  if (status === undefined) {
    return [
      finding(key, 'reachable', ['problem', `${refusal.error} at ${baseUrl}`, unreached(facts, refusal)]),
    ];
  }
  if (authStatuses.has(status)) {
    return [
      finding(key, 'reachable', ['ok', `answers at ${baseUrl}`]),
      finding(key, 'auth', judgeRefusedKey(provider, status)),
    ];
  }
  return [finding(key, 'reachable', ['problem', refusal.error, unlisted(facts, refusal, status)])];
}

function judgeRefusedKey({ key, kind, apiKey, apiKeyEnv }: CatalogProvider, status: number): Judged {
  const where = kind.advice?.key === undefined ? '' : `; ${kind.advice.key}`;
  if (apiKeyEnv === undefined) {
    const action = `name the variable that holds its key: llm-gateway providers set ${key} --api-key-env NAME`;
    return ['problem', `wants a key (${status}), and none is configured`, action + where];
  }
  return apiKey === undefined
    ? ['problem', `wants a key (${status}), and ${apiKeyEnv} is not set`, `set ${apiKeyEnv}${where}`]
    : ['problem', `refuses the key of ${apiKeyEnv} (${status})`, `correct ${apiKeyEnv}${where}`];
}

const addressOf = ({ provider, baseUrlVariable }: ProviderFacts): string =>
  `correct its address (${baseUrlVariable ?? `llm-gateway providers set ${provider.key} --base-url URL`})`;

const unknownHost: ReadonlySet<string | undefined> = new Set(['ENOTFOUND', 'EAI_AGAIN']);

const ownMachine = /^https?:\/\/(?:localhost|127\.[\d.]+|\[::1\])(?:[:/]|$)/;

function unreached(facts: ProviderFacts, { failure, code }: Refusal): string {
  const { kind, baseUrl } = facts.provider;
  const start = kind.advice?.start ?? 'start the server';
  if (code === 'ELINKLOCAL') {
    return `${addressOf(facts)}: it leads to a link-local or metadata address, and such are never connected to`;
  }
  if (unknownHost.has(code)) return `${addressOf(facts)}: nobody knows its host name`;
  if (code !== undefined && /CERT|SIGNED|TLS|SSL|VERIFY/.test(code)) {
    return 'let NODE_EXTRA_CA_CERTS name the file of the certificate that signed it, or use http';
  }
  if (failure !== 'connect' && failure !== 'connect-timeout')
    return 'see what the server is doing; it takes connections and does not answer';
  const container = ownMachine.test(baseUrl)
    ? '; inside a container this address is the container itself, and the machine is host.docker.internal'
    : '';
  return `${start}, or ${addressOf(facts)}${container}`;
}

function unlisted(facts: ProviderFacts, { head, isPage }: Refusal, status: number): string {
  if (status >= 300 && status < 400) {
    const target = originOf(head?.headers['location']);
    return `${addressOf(facts)}: it redirects${target === undefined ? '' : ` to ${target}`}`;
  }
  if (isPage === true) {
    return `${addressOf(facts)}: what answers is a web page, of a proxy in between or of another server`;
  }
  if (status >= 500 || status === 429) return 'try again; if it stays, see what the server or its proxy logs';
  return `${addressOf(facts)}, or its kind: what answers there is no server of the kind ${facts.provider.kind.kind}`;
}

function originOf(location: string | string[] | undefined): string | undefined {
  try {
    return new URL(String(location)).origin;
  } catch {
    return undefined;
  }
}

function judgeGeneration({ kind }: CatalogProvider, apis: readonly string[]): Judged[] {
  if (kind.apis.length === 0) return [];
  const missing = kind.apis.filter((api) => !apis.includes(api));
  if (missing.length === 0) return [['ok', `speaks ${apis.join(' and ')}`]];
  return [
    ['note', `speaks ${apis.join(' and ')} only, not ${missing.join(', ')}`, kind.advice?.update ?? null],
  ];
}

const describeInstance = (instance: LoadedInstance): string => {
  const facts = [
    ...(instance.contextLength === undefined ? [] : [`context ${instance.contextLength}`]),
    ...(instance.parallel === undefined ? [] : [`${instance.parallel} in parallel`]),
  ];
  return facts.length === 0 ? instance.id : `${instance.id} (${facts.join(', ')})`;
};

function judgeModels({ provider, routes }: ProviderFacts, models: readonly ModelInfo[]): Finding[] {
  const { key, kind } = provider;
  const judged = (check: string, verdict: Judged): Finding => finding(key, check, verdict);
  const findings: Finding[] = [];
  if (models.length === 0) {
    const action =
      kind.control === undefined
        ? 'put a model on the server'
        : `download one: llm-gateway providers download ${key} MODEL`;
    findings.push(judged('models', ['problem', 'has no models', action]));
  } else {
    findings.push(judged('models', ['ok', `${models.length} models`]));
  }
  const instances = models.flatMap((model) => model.instances ?? []);
  if (instances.length > 0) {
    findings.push(judged('loaded', ['ok', `loaded: ${instances.map(describeInstance).join('; ')}`]));
  } else if (models.some((model) => model.state === 'not-loaded')) {
    findings.push(judged('loaded', ['ok', 'nothing is loaded; the first request loads its model']));
  }
  const names = new Set(models.map((model) => model.id));
  const astray = routes.filter((route) => route.active && !names.has(route.upstreamModel));
  if (astray.length > 0) findings.push(judged('routes', judgeAstray(provider, astray)));
  const routed = new Set(routes.map((route) => route.upstreamModel));
  const unknown = models.map((model) => model.id).filter((name) => !routed.has(name));
  if (unknown.length > 0) findings.push(judged('catalog', judgeUnknown(provider, unknown)));
  return findings;
}

/** Routes to what the list lacks. Where models are discovered, the list is all that there is. */
function judgeAstray({ key, kind }: CatalogProvider, routes: readonly RouteFacts[]): Judged {
  const named = namesOf(
    routes.map(({ id, title, upstreamModel }) =>
      title === upstreamModel ? `${title} (route ${id})` : `${title} (route ${id} to ${upstreamModel})`,
    ),
  );
  return kind.discovers
    ? [
        'problem',
        `the catalog leads here for models that are not on its list: ${named}`,
        `bring the catalog up to date (llm-gateway models sync ${key}), then download what is missing or remove the route`,
      ]
    : ['note', `not on its list, which may be incomplete: ${named}`];
}

/** Models that no route leads to. */
function judgeUnknown({ key, kind }: CatalogProvider, names: readonly string[]): Judged {
  return kind.discovers
    ? [
        'note',
        `on its list and not in the catalog: ${namesOf(names)}`,
        `a running server takes them in by itself; at once: llm-gateway models sync ${key}`,
      ]
    : [
        'ok',
        `on its list and not in the catalog: ${namesOf(names)}; to offer one: llm-gateway models add TITLE --provider ${key} --upstream-model NAME`,
      ];
}

const noticeableSkewMs = 60_000;
/** Signatures and certificates of a few minutes' life fail from here on. */
const harmfulSkewMs = 300_000;

function judgeClock({ head }: Listed, answeredAt: number): Judged | undefined {
  const theirs = Date.parse(String(head?.headers['date']));
  if (Number.isNaN(theirs)) return undefined;
  const skew = theirs - answeredAt;
  const size = Math.abs(skew);
  if (size < noticeableSkewMs) return ['ok', 'its clock agrees with ours'];
  const amount =
    size < 2 * 3_600_000 ? `${Math.round(size / 60_000)} min` : `${Math.round(size / 3_600_000)} h`;
  return [
    size < harmfulSkewMs ? 'note' : 'problem',
    `its clock is ${amount} ${skew > 0 ? 'ahead of' : 'behind'} ours`,
    'set both clocks by a time server',
  ];
}

function judgeProxy({ head }: Listed): Judged | undefined {
  const via = head?.headers['via'];
  if (via === undefined) return undefined;
  const said = String(via)
    .replace(/[^\x20-\x7e]/g, '')
    .slice(0, 100);
  return [
    'note',
    `a proxy answers for it (via: ${said})`,
    'if streams arrive in lumps, switch off buffering there',
  ];
}

/** Whether anything at all can be called. */
export function judgeWhole(providers: readonly ProviderFacts[]): Finding[] {
  const usable = providers.some(({ provider, listed }) => provider.enabled && listed?.ok === true);
  if (usable) return [];
  return [
    finding('gateway', 'usable', [
      'problem',
      'no provider can be called',
      'mend one of those below, or add one: llm-gateway providers add KEY --kind KIND --base-url URL',
    ]),
  ];
}

/** What stands in the way of any further look, e.g. a database that does not open. */
export const fatal = (subject: 'configuration' | 'database', message: string, action: string): Finding =>
  finding(subject, subject === 'database' ? 'opens' : 'valid', ['problem', message, action]);
