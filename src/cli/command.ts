/** What a command is, how its arguments are read and its help is written. Knows no command. */
import { parseArgs } from 'node:util';

/** `number` and `text` take a value, `truth` takes `true` or `false`, `switch` takes none. */
export interface Option {
  readonly kind: 'text' | 'number' | 'truth' | 'switch';
  /** Stands for the value in the help. */
  readonly value?: string;
  readonly about: string;
  /** `none` takes the setting back. */
  readonly clearable?: boolean;
}

export interface Arguments {
  readonly positionals: readonly string[];
  /** By option name; an option that was not given is absent, one that was given as `none` is null. */
  readonly options: Readonly<Record<string, string | number | boolean | null>>;
}

export interface Command {
  /** e.g. `models add` */
  readonly name: string;
  readonly about: string;
  /** In order; those in square brackets may be left out. */
  readonly positionals?: readonly string[];
  readonly options?: Readonly<Record<string, Option>>;
  /** What else its help says. */
  readonly notes?: string;
  /** Resolves to the exit code. */
  run(given: Arguments): Promise<number>;
}

/** The arguments are wrong; the message is one line. */
export class UsageError extends Error {}

export const jsonOption: Readonly<Record<string, Option>> = {
  json: { kind: 'switch', about: 'print JSON' },
};

/** @throws UsageError */
export function readArguments(command: Command, given: readonly string[]): Arguments {
  const known = command.options ?? {};
  const options = Object.fromEntries(
    Object.entries(known).map(([name, option]) => [
      name,
      { type: option.kind === 'switch' ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  const { values, positionals } = parseOrRefuse(command, given, options);
  const expected = command.positionals ?? [];
  const missing = expected.slice(positionals.length).find((name) => !name.startsWith('['));
  if (missing !== undefined) throw new UsageError(`${command.name}: ${missing} is missing`);
  const surplus = positionals[expected.length];
  if (surplus !== undefined) throw new UsageError(`${command.name}: unexpected argument ${surplus}`);
  const read: Record<string, string | number | boolean | null> = {};
  for (const [name, value] of Object.entries(values)) {
    const option = known[name];
    if (option !== undefined && value !== undefined) read[name] = readValue(name, option, value);
  }
  return { positionals, options: read };
}

function parseOrRefuse(
  command: Command,
  given: readonly string[],
  options: Record<string, { type: 'boolean' | 'string' }>,
) {
  try {
    return parseArgs({ args: [...given], options, allowPositionals: true, strict: true });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${command.name}: ${message.replaceAll('\n', ' ')}`);
  }
}

function readValue(name: string, option: Option, value: string | boolean): string | number | boolean | null {
  if (typeof value === 'boolean') return value;
  if (option.clearable === true && value === 'none') return null;
  switch (option.kind) {
    case 'number':
      if (!/^-?\d{1,15}$/.test(value)) throw new UsageError(`--${name} must be a whole number, not ${value}`);
      return Number(value);
    case 'truth':
      if (value !== 'true' && value !== 'false') {
        throw new UsageError(`--${name} must be true or false, not ${value}`);
      }
      return value === 'true';
    case 'text':
    case 'switch':
      return value;
    default:
      return option.kind satisfies never;
  }
}

/** The given options under the names that the administration functions use: `--base-url` is `base_url`. */
export function fieldsOf({ options }: Arguments): Record<string, unknown> {
  const { json: _json, ...fields } = options;
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name.replaceAll('-', '_'), value]),
  );
}

function usageOf(command: Command): string {
  const positionals = (command.positionals ?? []).map((name) => (name.startsWith('[') ? name : `<${name}>`));
  const options = Object.keys(command.options ?? {}).length > 0 ? ['[options]'] : [];
  return ['llm-gateway', command.name, ...positionals, ...options].join(' ');
}

function optionLine([name, option]: readonly [string, Option]): readonly [string, string] {
  const value =
    option.kind === 'truth' ? 'true|false' : (option.value ?? (option.kind === 'number' ? 'N' : 'TEXT'));
  const left = option.kind === 'switch' ? `--${name}` : `--${name} ${value}`;
  return [left, option.clearable === true ? `${option.about} (none: take it back)` : option.about];
}

function columns(lines: readonly (readonly [string, string])[]): string {
  const width = Math.max(...lines.map(([left]) => left.length));
  return lines.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join('\n');
}

export function commandHelp(command: Command): string {
  const lines = [...Object.entries(command.options ?? {}).map(optionLine), ['--help', 'show this'] as const];
  const notes = command.notes === undefined ? '' : `\n\n${command.notes}`;
  return `${command.about}\n\nUsage: ${usageOf(command)}\n\nOptions:\n${columns(lines)}${notes}\n`;
}

/** The list of commands, all or those of one group. */
export function overview(commands: readonly Command[]): string {
  const lines = commands.map((command) => {
    const positionals = (command.positionals ?? []).map((name) =>
      name.startsWith('[') ? name : `<${name}>`,
    );
    return [[command.name, ...positionals].join(' '), command.about] as const;
  });
  return `Usage: llm-gateway <command> [options]\n\nCommands:\n${columns(lines)}\n\nEach command has --help.\n`;
}
