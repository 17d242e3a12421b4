/** Administration commands run inside the test's own process, on a database and an environment of their own. */
import path from 'node:path';
import { vi } from 'vitest';
import { type Command, readArguments } from '../../src/cli/command.ts';
import { controlCommands } from '../../src/cli/control.ts';
import { doctorCommand } from '../../src/cli/doctor.ts';
import { modelCommands } from '../../src/cli/models.ts';
import { providerCommands } from '../../src/cli/providers.ts';
import { temporaryDirectory } from './workspace.ts';

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const commands: readonly Command[] = [
  doctorCommand,
  ...providerCommands,
  ...controlCommands,
  ...modelCommands,
];

/** Of this process, what would change what is tested. */
const foreign = /^(?:https?_proxy|all_proxy|no_proxy|dashscope_api_key|lmstudio_api_key)$/i;

function stubEnvironment(environment: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(process.env)) if (foreign.test(name)) vi.stubEnv(name, undefined);
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
}

/** Collects what is written to one of the process's streams. */
function capture(stream: 'stdout' | 'stderr'): () => string {
  let text = '';
  vi.spyOn(process[stream], 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  return () => text;
}

async function run(given: readonly string[], environment: Readonly<Record<string, string>>): Promise<Ended> {
  const command = commands.find(({ name }) => given.join(' ').startsWith(name));
  if (command === undefined) throw new Error(`no command ${given.join(' ')}`);
  const rest = given.slice(command.name.split(' ').length);
  stubEnvironment(environment);
  const [stdout, stderr] = [capture('stdout'), capture('stderr')];
  try {
    const code = await command.run(readArguments(command, rest));
    return { code, stdout: stdout(), stderr: stderr() };
  } finally {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  }
}

/**
 * Every run works on the same database. One at a time.
 * @returns a function that takes a command line's words; it rejects with what the command throws
 */
export function commandLine(environment: Readonly<Record<string, string>> = {}) {
  const file = path.join(temporaryDirectory(), 'gateway.db');
  return (...given: string[]): Promise<Ended> =>
    run(given, { DATABASE_URL: `sqlite:${file}`, LMSTUDIO_BASE_URL: 'http://127.0.0.1:9', ...environment });
}
