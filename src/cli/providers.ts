/** The commands `providers …`. */
import { providerKinds } from '../adapters/index.ts';
import {
  addProvider,
  checkProviders,
  listProviders,
  type ProviderReport,
  type ProviderView,
  removeProvider,
  setProvider,
} from '../admin/providers.ts';
import { type Arguments, type Command, fieldsOf, jsonOption, type Option } from './command.ts';
import { print, printJson, printTable, yesNo } from './output.ts';
import { withSession } from './session.ts';

export const timeoutOptions: Readonly<Record<string, Option>> = {
  'connect-timeout-ms': { kind: 'number', clearable: true, about: 'limit for connecting; 0: no limit' },
  'first-event-timeout-ms': { kind: 'number', clearable: true, about: 'limit until the first event' },
  'idle-timeout-ms': { kind: 'number', clearable: true, about: 'limit for silence between events' },
  'total-timeout-ms': { kind: 'number', clearable: true, about: 'limit for the whole call' },
};

const settings: Readonly<Record<string, Option>> = {
  name: { kind: 'text', about: 'name in error messages' },
  'base-url': { kind: 'text', value: 'URL', about: 'address, http or https' },
  'api-key-env': {
    kind: 'text',
    value: 'NAME',
    clearable: true,
    about: 'environment variable that holds its key; the key itself is never stored',
  },
  enabled: { kind: 'truth', about: 'whether it is used' },
  'max-concurrency': { kind: 'number', clearable: true, about: 'requests at once; 0: unlimited' },
  'max-queue': { kind: 'number', clearable: true, about: 'requests that wait before the next is refused' },
  'abort-grace-ms': {
    kind: 'number',
    clearable: true,
    about: 'how long an aborted call that had no event yet keeps its slot',
  },
  passthrough: {
    kind: 'text',
    value: 'NAMES',
    clearable: true,
    about: 'request fields unknown to the gateway that it gets, with commas between; *: nearly all',
  },
  ...timeoutOptions,
};

/** The fields of the administration that the options come to. */
function providerFieldsOf(given: Arguments): Record<string, unknown> {
  const { passthrough, ...fields } = fieldsOf(given);
  if (typeof passthrough !== 'string') return passthrough === undefined ? fields : { ...fields, passthrough };
  const names = passthrough.split(',').map((name) => name.trim());
  return { ...fields, passthrough: names.filter((name) => name !== '') };
}

function printProviders(providers: readonly ProviderView[]): void {
  printTable(
    ['ID', 'KEY', 'KIND', 'BASE URL', 'API KEY', 'ENABLED', 'ORIGIN'],
    providers.map((one) => [
      String(one.id),
      one.key,
      one.kind,
      one.base_url,
      one.api_key_env === null ? 'none' : `${one.api_key_env} (${one.api_key})`,
      yesNo(one.enabled),
      one.origin,
    ]),
  );
}

function printReports(reports: readonly ProviderReport[]): void {
  printTable(
    ['PROVIDER', 'RESULT', 'APIS', 'MODELS', 'LOADED', 'ERROR'],
    reports.map((one) => [
      one.key,
      one.result,
      one.apis.join(', '),
      String(one.models),
      String(one.loaded),
      one.error ?? '',
    ]),
  );
}

export const providerCommands: readonly Command[] = [
  {
    name: 'providers list',
    about: 'List the model servers and platforms that the gateway can call',
    options: jsonOption,
    run: ({ options }) =>
      withSession(async (session) => {
        const providers = await listProviders(session);
        if (options['json'] === true) printJson(providers);
        else printProviders(providers);
        return 0;
      }),
  },
  {
    name: 'providers add',
    about: 'Add a model server',
    positionals: ['key'],
    options: {
      kind: { kind: 'text', value: 'KIND', about: `what it is: ${[...providerKinds.keys()].join(', ')}` },
      ...settings,
      ...jsonOption,
    },
    notes:
      'Example: llm-gateway providers add studio-2 --kind lmstudio --base-url http://192.168.1.20:1234\n' +
      'A running server begins to ask it for its models within 2 seconds.',
    run: (given) =>
      withSession(async (session) => {
        const provider = await addProvider(session, {
          key: given.positionals[0],
          ...providerFieldsOf(given),
        });
        if (given.options['json'] === true) printJson(provider);
        else print(`added provider ${provider.key} (id ${provider.id}) at ${provider.base_url}`);
        return 0;
      }),
  },
  {
    name: 'providers set',
    about: 'Change settings of a provider',
    positionals: ['key or id'],
    options: { ...settings, ...jsonOption },
    notes:
      'The address of a provider that comes from the environment is changed there, e.g. LMSTUDIO_BASE_URL.',
    run: (given) =>
      withSession(async (session) => {
        const provider = await setProvider(session, given.positionals[0] ?? '', providerFieldsOf(given));
        if (given.options['json'] === true) printJson(provider);
        else printProviders([provider]);
        return 0;
      }),
  },
  {
    name: 'providers remove',
    about: 'Remove a provider, with the routes and models that only discovery made for it',
    positionals: ['key or id'],
    notes:
      'Refused while routes that somebody added lead to it, and for providers that come from the environment: those are\n' +
      'switched off with: providers set <key> --enabled false',
    run: ({ positionals }) =>
      withSession(async (session) => {
        const { provider, models } = await removeProvider(session, positionals[0] ?? '');
        const count = models.length === 0 ? '' : `, and ${models.length} discovered models with it`;
        print(`removed provider ${provider.key}${count}`);
        return 0;
      }),
  },
  {
    name: 'providers check',
    about: 'Ask providers for their models, and say whether they answer',
    positionals: ['[key or id]'],
    options: jsonOption,
    notes:
      'Loads no model and costs nothing. What is new on a list enters the catalog.\n' +
      'Exit code 1 if one is down, or if the one that was named lacks its key.',
    run: ({ positionals, options }) =>
      withSession(async (session) => {
        const reports = await checkProviders(session, positionals[0]);
        if (options['json'] === true) printJson(reports);
        else printReports(reports);
        const failed = positionals[0] === undefined ? ['down'] : ['down', 'no-key'];
        return reports.some((one) => failed.includes(one.result)) ? 1 : 0;
      }),
  },
];
