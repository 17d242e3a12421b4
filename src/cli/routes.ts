/** The commands `routes …`. */
import { addRoute, listRoutes, type RouteView, removeRoute, setRoute } from '../admin/routes.ts';
import { type Command, fieldsOf, jsonOption, type Option } from './command.ts';
import { print, printJson, printTable, yesNo } from './output.ts';
import { timeoutOptions } from './providers.ts';
import { withSession } from './session.ts';

const settings: Readonly<Record<string, Option>> = {
  api: { kind: 'text', value: 'NAME', about: 'API of the provider to use, e.g. v0; auto: the best fit' },
  priority: { kind: 'number', about: 'lower ones are tried first; 0 unless set' },
  weight: { kind: 'number', about: 'share among routes of the same priority; 1 unless set' },
  ...timeoutOptions,
};

/** The options that say where a route leads. */
export const routeOptions: Readonly<Record<string, Option>> = {
  provider: { kind: 'text', value: 'KEY', about: 'the provider that answers' },
  'upstream-model': { kind: 'text', value: 'NAME', about: 'name of the model there; the title unless set' },
  ...settings,
};

function printRoutes(routes: readonly RouteView[]): void {
  printTable(
    [
      'ID',
      'MODEL',
      'PROVIDER',
      'UPSTREAM MODEL',
      'API',
      'PRIORITY',
      'WEIGHT',
      'ENABLED',
      'VANISHED',
      'ORIGIN',
    ],
    routes.map((one) => [
      String(one.id),
      one.model,
      one.provider,
      one.upstream_model,
      one.api,
      String(one.priority),
      String(one.weight),
      yesNo(one.enabled),
      yesNo(one.vanished),
      one.origin,
    ]),
  );
}

export const routeCommands: readonly Command[] = [
  {
    name: 'routes list',
    about: 'List which provider answers for which model',
    positionals: ['[model]'],
    options: jsonOption,
    run: ({ positionals, options }) =>
      withSession(async (session) => {
        const routes = await listRoutes(session, positionals[0]);
        if (options['json'] === true) printJson(routes);
        else printRoutes(routes);
        return 0;
      }),
  },
  {
    name: 'routes add',
    about: 'Let a provider answer for a model',
    positionals: ['model'],
    options: { ...routeOptions, enabled: { kind: 'truth', about: 'whether it is used' }, ...jsonOption },
    notes: 'A route that discovery has made already takes on the given settings, and is enabled again.',
    run: (given) =>
      withSession(async (session) => {
        const route = await addRoute(session, { model: given.positionals[0], ...fieldsOf(given) });
        if (given.options['json'] === true) printJson(route);
        else print(`route ${route.id}: ${route.model} -> ${route.provider} as ${route.upstream_model}`);
        return 0;
      }),
  },
  {
    name: 'routes set',
    about: 'Change a route',
    positionals: ['id'],
    options: { ...settings, enabled: { kind: 'truth', about: 'whether it is used' }, ...jsonOption },
    run: (given) =>
      withSession(async (session) => {
        const route = await setRoute(session, given.positionals[0] ?? '', fieldsOf(given));
        if (given.options['json'] === true) printJson(route);
        else printRoutes([route]);
        return 0;
      }),
  },
  {
    name: 'routes remove',
    about: 'Remove a route',
    positionals: ['id'],
    notes:
      'A route that discovery made would come back while the provider lists the model; it is disabled instead.\n' +
      'To have it again: routes set <id> --enabled true',
    run: ({ positionals }) =>
      withSession(async (session) => {
        const { route, outcome } = await removeRoute(session, positionals[0] ?? '');
        const why = outcome === 'disabled' ? ': the provider still lists the model' : '';
        print(`${outcome} route ${route.id}, ${route.model} -> ${route.provider}${why}`);
        return 0;
      }),
  },
];
