/** The commands `keys …`. */
import { createKey, type KeyView, listKeys, revokeKey, setKey } from '../admin/keys.ts';
import { type Arguments, type Command, fieldsOf, jsonOption, type Option } from './command.ts';
import { print, printError, printJson, printTable } from './output.ts';
import { withSession } from './session.ts';

const settings: Readonly<Record<string, Option>> = {
  name: { kind: 'text', about: 'whose or what for; two live keys may share it while one replaces the other' },
  scope: { kind: 'text', about: 'inference (unless set) or admin, which may do everything' },
  models: {
    kind: 'text',
    value: 'A,B',
    clearable: true,
    about: 'titles that it may use; every model unless set',
  },
  rpm: {
    kind: 'number',
    clearable: true,
    about: 'requests a minute; 0: no limit; RATE_LIMIT_RPM unless set',
  },
  tpm: { kind: 'number', clearable: true, about: 'tokens a minute' },
  'max-concurrency': { kind: 'number', clearable: true, about: 'calls at once' },
  'daily-tokens': { kind: 'number', clearable: true, about: 'tokens a day (UTC)' },
  expires: {
    kind: 'text',
    value: 'WHEN',
    clearable: true,
    about: 'how long it is valid, such as 12h, 90d or 8w, or until when, such as 2027-01-01',
  },
};

/** The settings as the administration takes them: the list of titles apart, and `--expires` as what it is. */
function settingsOf(given: Arguments): Record<string, unknown> {
  const { models, expires, ...fields } = fieldsOf(given);
  const titles =
    typeof models === 'string'
      ? models
          .split(',')
          .map((title) => title.trim())
          .filter((title) => title !== '')
      : models;
  const isMoment = expires === null || (typeof expires === 'string' && /^\d{4}-/.test(expires));
  return {
    ...fields,
    ...(titles === undefined ? {} : { models: titles }),
    ...(expires === undefined ? {} : isMoment ? { expires_at: expires } : { expires }),
  };
}

const orDash = (value: number | string | null): string => (value === null ? '-' : String(value));

function printKeys(keys: readonly KeyView[]): void {
  printTable(
    [
      'ID',
      'NAME',
      'PREFIX',
      'STATE',
      'SCOPE',
      'MODELS',
      'RPM',
      'TPM',
      'AT ONCE',
      'TOKENS/DAY',
      'EXPIRES',
      'CREATED',
    ],
    keys.map((one) => [
      String(one.id),
      one.name,
      `${one.prefix}…`,
      one.state,
      one.scope,
      one.models === null ? 'all' : one.models.join(', '),
      orDash(one.rpm),
      orDash(one.tpm),
      orDash(one.max_concurrency),
      orDash(one.daily_tokens),
      orDash(one.expires_at),
      one.created_at,
    ]),
  );
}

export const keyCommands: readonly Command[] = [
  {
    name: 'keys list',
    about: 'List the API keys by their first characters, revoked ones too',
    options: jsonOption,
    run: ({ options }) =>
      withSession(async (session) => {
        const keys = await listKeys(session);
        if (options['json'] === true) printJson(keys);
        else printKeys(keys);
        return 0;
      }),
  },
  {
    name: 'keys create',
    about: 'Make an API key and print it, this once',
    options: { ...settings, ...jsonOption },
    notes:
      'Only its hash is stored: a key that is lost cannot be shown again, only replaced.\n' +
      'Example: llm-gateway keys create --name team-a --models qwen-plus,qwen-turbo --rpm 60 --expires 90d',
    run: (given) =>
      withSession(async (session) => {
        const created = await createKey(session, settingsOf(given));
        if (given.options['json'] === true) {
          printJson(created);
          return 0;
        }
        print(created.key);
        printError(`key ${created.id} (${created.name}); it is not shown again`);
        return 0;
      }),
  },
  {
    name: 'keys set',
    about: 'Change what a key may do',
    positionals: ['id'],
    options: { ...settings, ...jsonOption },
    run: (given) =>
      withSession(async (session) => {
        const key = await setKey(session, given.positionals[0] ?? '', settingsOf(given));
        if (given.options['json'] === true) printJson(key);
        else printKeys([key]);
        return 0;
      }),
  },
  {
    name: 'keys revoke',
    about: 'End a key for good; running servers refuse it within 2 seconds',
    positionals: ['id'],
    options: jsonOption,
    run: ({ positionals, options }) =>
      withSession(async (session) => {
        const key = await revokeKey(session, positionals[0] ?? '');
        if (options['json'] === true) printJson(key);
        else print(`revoked key ${key.id} (${key.name}, ${key.prefix}…)`);
        return 0;
      }),
  },
];
