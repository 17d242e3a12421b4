/** The commands `models …`. */
import { addModel, listModels, type ModelView, removeModel, setModel } from '../admin/models.ts';
import { type ProviderReport, syncProviders } from '../admin/providers.ts';
import { type Command, fieldsOf, jsonOption, type Option } from './command.ts';
import { print, printJson, printTable, yesNo } from './output.ts';
import { routeOptions } from './routes.ts';
import { withSession } from './session.ts';

const settings: Readonly<Record<string, Option>> = {
  name: { kind: 'text', about: 'name for people' },
  description: { kind: 'text', about: 'one or two sentences' },
  keyword: { kind: 'text', about: 'what it is good for' },
  img: { kind: 'text', value: 'URL', about: 'picture' },
  time: { kind: 'text', value: 'DATE', about: 'day of release, e.g. 2025-01-01' },
  tag1: { kind: 'text', about: 'first tag' },
  tag2: { kind: 'text', about: 'second tag' },
  type: { kind: 'number', about: '0: language model, 1: embeddings' },
  'is-featured': { kind: 'truth', about: 'whether it is listed first, as recommended' },
  enabled: { kind: 'truth', about: 'whether it can be called' },
  'context-length': { kind: 'number', clearable: true, about: 'tokens of context' },
  'max-output-tokens': { kind: 'number', clearable: true, about: 'most tokens of an answer' },
};

function printModels(models: readonly ModelView[]): void {
  printTable(
    ['ID', 'TITLE', 'NAME', 'TYPE', 'AVAILABLE', 'ENABLED', 'FEATURED', 'PROVIDERS', 'ORIGIN'],
    models.map((one) => [
      String(one.id),
      one.title,
      one.name,
      String(one.type),
      yesNo(one.available),
      yesNo(one.enabled),
      yesNo(one.is_featured),
      one.routes.map((route) => route.provider + (route.vanished ? ' (vanished)' : '')).join(', '),
      one.origin,
    ]),
  );
}

function printChanges(report: ProviderReport): void {
  if (report.result !== 'up') {
    print(`${report.key}: ${report.error ?? report.result}`);
    return;
  }
  const changes = (['added', 'joined', 'vanished', 'returned'] as const)
    .filter((change) => report[change].length > 0)
    .map((change) => `${change} ${report[change].join(', ')}`);
  print(
    `${report.key}: ${report.models} models${changes.length === 0 ? ', nothing changed' : `; ${changes.join('; ')}`}`,
  );
}

export const modelCommands: readonly Command[] = [
  {
    name: 'models list',
    about: 'List all models of the catalog, also those that cannot be called now',
    options: jsonOption,
    run: ({ options }) =>
      withSession(async (session) => {
        const models = await listModels(session);
        if (options['json'] === true) printJson(models);
        else printModels(models);
        return 0;
      }),
  },
  {
    name: 'models add',
    about: 'Add a model, and with --provider its first route',
    positionals: ['title'],
    options: { ...routeOptions, ...settings, ...jsonOption },
    notes:
      'The title is the name that callers use. A second name for a model:\n' +
      '  llm-gateway models add my-assistant --provider lmstudio --upstream-model qwen/qwen3-4b-2507',
    run: (given) =>
      withSession(async (session) => {
        const model = await addModel(session, { title: given.positionals[0], ...fieldsOf(given) });
        if (given.options['json'] === true) printJson(model);
        else
          print(`added model ${model.title} (id ${model.id})${model.available ? '' : '; not available yet'}`);
        return 0;
      }),
  },
  {
    name: 'models set',
    about: 'Change a model; discovery never takes that back',
    positionals: ['title or id'],
    options: { title: { kind: 'text', about: 'another title' }, ...settings, ...jsonOption },
    run: (given) =>
      withSession(async (session) => {
        const model = await setModel(session, given.positionals[0] ?? '', fieldsOf(given));
        if (given.options['json'] === true) printJson(model);
        else printModels([model]);
        return 0;
      }),
  },
  {
    name: 'models remove',
    about: 'Remove a model and its routes',
    positionals: ['title or id'],
    notes:
      'A model that a provider still lists would come back with its next list. It is disabled instead: callers see it no more,\n' +
      'and it stays away. To have it again: models set <title> --enabled true',
    run: ({ positionals }) =>
      withSession(async (session) => {
        const { model, outcome } = await removeModel(session, positionals[0] ?? '');
        const providers = model.routes.map((route) => route.provider).join(', ');
        print(
          outcome === 'removed'
            ? `removed model ${model.title}`
            : `disabled model ${model.title}: ${providers} still lists it, so a removed one would come back`,
        );
        return 0;
      }),
  },
  {
    name: 'models sync',
    about: 'Ask the providers for their models now and bring the catalog up to date',
    positionals: ['[provider]'],
    options: jsonOption,
    notes: 'A running server does this by itself every 30 seconds. Exit code 1 if a provider did not answer.',
    run: ({ positionals, options }) =>
      withSession(async (session) => {
        const reports = await syncProviders(session, positionals[0]);
        if (options['json'] === true) printJson(reports);
        else for (const report of reports) printChanges(report);
        const failed = positionals[0] === undefined ? ['down'] : ['down', 'no-key'];
        return reports.some((one) => failed.includes(one.result)) ? 1 : 0;
      }),
  },
];
