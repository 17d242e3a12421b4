/** The command line: finds the command, reads its arguments, turns its failure into one line and an exit code. */
import { readFileSync } from 'node:fs';
import { AdminError } from './admin/administration.ts';
import { withoutControls } from './chat/controls.ts';
import { type Command, commandHelp, overview, readArguments, UsageError } from './cli/command.ts';
import { controlCommands } from './cli/control.ts';
import { doctorCommand } from './cli/doctor.ts';
import { keyCommands } from './cli/keys.ts';
import { modelCommands } from './cli/models.ts';
import { print, printError } from './cli/output.ts';
import { providerCommands } from './cli/providers.ts';
import { routeCommands } from './cli/routes.ts';
import { serverCommands } from './cli/server.ts';
import { usageCommands } from './cli/usage.ts';
import { ConfigError } from './config.ts';
import { StoreError } from './store/database.ts';

const commands: readonly Command[] = [
  ...serverCommands,
  doctorCommand,
  ...providerCommands,
  ...controlCommands,
  ...modelCommands,
  ...routeCommands,
  ...keyCommands,
  ...usageCommands,
];

const isHelp = (argument: string | undefined): boolean => argument === '--help' || argument === '-h';

function versionOf(): string {
  const file = new URL('../package.json', import.meta.url);
  return /"version": "([^"]+)"/.exec(readFileSync(file, 'utf8'))?.[1] ?? 'unknown';
}

/** Exit codes: 0 done, 1 the operation failed, 2 the command line was wrong. */
async function run(given: readonly string[]): Promise<number> {
  const [first, second] = given;
  if (first === undefined || isHelp(first) || first === 'help') {
    process.stdout.write(overview(commands));
    return 0;
  }
  if (first === '--version') {
    print(versionOf());
    return 0;
  }
  const command = commands.find(({ name }) => name === first || name === `${first} ${second}`);
  if (command === undefined) return unknown(first, second);
  const rest = given.slice(command.name.split(' ').length);
  const optionsEnd = rest.indexOf('--');
  if ((optionsEnd < 0 ? rest : rest.slice(0, optionsEnd)).some(isHelp)) {
    process.stdout.write(commandHelp(command));
    return 0;
  }
  return command.run(readArguments(command, rest));
}

function unknown(first: string, second: string | undefined): number {
  const group = commands.filter(({ name }) => name.startsWith(`${first} `));
  if (group.length > 0 && (isHelp(second) || second === 'help')) {
    process.stdout.write(overview(group));
    return 0;
  }
  if (group.length > 0) {
    const names = group.map(({ name }) => name.slice(first.length + 1)).join(', ');
    const problem = second === undefined ? `${first} needs a command` : `unknown command: ${first} ${second}`;
    throw new UsageError(`${problem} (${names})`);
  }
  throw new UsageError(`unknown command: ${first}`);
}

function report(error: unknown): number {
  if (error instanceof UsageError) {
    printError(`llm-gateway: ${withoutControls(error.message)}; try --help`);
    return 2;
  }
  const expected = error instanceof AdminError || error instanceof ConfigError || error instanceof StoreError;
  const message = error instanceof Error ? error.message : String(error);
  const detail = !expected && error instanceof Error ? `${error.name}: ${message}` : message;
  printError(`llm-gateway: ${withoutControls(detail)}`);
  return 1;
}

// A reader such as `head` that has seen enough is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});

process.exitCode = await run(process.argv.slice(2)).catch(report);
