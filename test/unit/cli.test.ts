import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Command, commandHelp, readArguments, UsageError } from '../../src/cli/command.ts';
import { modelCommands } from '../../src/cli/models.ts';
import { providerCommands } from '../../src/cli/providers.ts';
import { routeCommands } from '../../src/cli/routes.ts';
import { serverCommands } from '../../src/cli/server.ts';
import { simulator, temporaryDirectory, until, workspace } from './workspace.ts';

const repository = fileURLToPath(new URL('../../', import.meta.url));
const tsx = import.meta.resolve('tsx');
const commands = [...serverCommands, ...providerCommands, ...modelCommands, ...routeCommands];

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command line as a process of its own, in an empty directory, with nothing of this process's environment. */
function runner(environment: Record<string, string> = {}, directory = temporaryDirectory()) {
  const file = path.join(directory, 'gateway.db');
  const env = {
    PATH: process.env['PATH'],
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: 'http://127.0.0.1:9',
    ...environment,
  };
  const cli = (...given: string[]): Promise<Ended> =>
    new Promise((resolve, reject) => {
      const child = spawn(
        process.execPath,
        ['--import', tsx, path.join(repository, 'src/cli.ts'), ...given],
        {
          cwd: directory,
          env,
        },
      );
      let stdout = '';
      let stderr = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        stdout += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
      });
      child.on('error', reject).on('close', (code) => resolve({ code, stdout, stderr }));
    });
  return { cli, file, directory };
}

const rows = z.array(z.looseObject({ id: z.int() }));
const readRows = (ended: Ended) => rows.parse(JSON.parse(ended.stdout));

/** A failure is one line on stderr, nothing on stdout. */
function expectFailure(ended: Ended, code: number, text: string | RegExp): void {
  expect(ended).toMatchObject({ code, stdout: '' });
  expect(ended.stderr).toMatch(/^llm-gateway: [^\n]+\n$/);
  expect(ended.stderr).toMatch(text);
}

function command(name: string): Command {
  const found = commands.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no command ${name}`);
  return found;
}

describe('the command line', () => {
  it('names every command in its help', async () => {
    const { stdout, code } = await runner().cli('--help');
    expect(code).toBe(0);
    for (const { name, about } of commands) {
      expect(stdout).toContain(`  ${name}`);
      expect(stdout).toContain(about);
    }
  });

  it('prints the help of a command and does nothing else', async () => {
    const { stdout, stderr, code } = await runner({ PORT: 'eighty' }).cli('models', 'remove', '--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toBe(commandHelp(command('models remove')));
    expect(stdout).toContain('disabled instead');
  });

  it.each([
    'serve',
    'migrate',
    'openapi',
    ...['list', 'add', 'set', 'remove', 'check'].map((name) => `providers ${name}`),
    ...['list', 'add', 'set', 'remove', 'sync'].map((name) => `models ${name}`),
    ...['list', 'add', 'remove'].map((name) => `routes ${name}`),
  ])('has %s, with help that tells its use and options', (name) => {
    const help = commandHelp(command(name));
    expect(help).toContain(`Usage: llm-gateway ${name}`);
    for (const option of Object.keys(command(name).options ?? {})) expect(help).toContain(`  --${option}`);
  });

  it('answers an unknown command with one line and exit code 2', async () => {
    expectFailure(await runner().cli('models', 'explode'), 2, /unknown command: models explode \(list, add/);
  });

  it('answers an unknown option with one line and exit code 2', async () => {
    expectFailure(await runner().cli('models', 'list', '--frobnicate'), 2, /--frobnicate/);
  });

  it.each([
    ['models list', ['surplus'], /unexpected argument surplus/],
    ['models add', [], /title is missing/],
    ['models set', ['a', '--enabled', 'maybe'], /--enabled must be true or false, not maybe/],
    ['models set', ['a', '--type', 'chat'], /--type must be a whole number, not chat/],
    ['models set', ['a', '--title'], /--title/],
  ])('refuses %s %j by name', (name, given, text) => {
    const reading = () => readArguments(command(name), given);
    expect(reading).toThrow(UsageError);
    expect(reading).toThrow(text);
  });

  it('reads numbers, truths, negative numbers and settings that are taken back', () => {
    const given = [
      'm',
      '--provider',
      'p',
      '--priority=-3',
      '--is-featured',
      'true',
      '--context-length',
      'none',
    ];
    expect(readArguments(command('models add'), given)).toEqual({
      positionals: ['m'],
      options: { provider: 'p', priority: -3, 'is-featured': true, 'context-length': null },
    });
  });

  it('answers a bad variable, also one from .env, with one line that names it', async () => {
    const directory = temporaryDirectory();
    writeFileSync(path.join(directory, '.env'), 'UPSTREAM_MAX_RETRIES=many\n');
    expectFailure(await runner({}, directory).cli('providers', 'list'), 1, 'UPSTREAM_MAX_RETRIES');
  });

  it('answers a database that is none with one line that names it', async () => {
    const { cli, file } = runner();
    writeFileSync(file, 'no database at all, but long enough to look at'.repeat(10));
    expectFailure(await cli('models', 'list'), 1, /gateway\.db: the file is not an SQLite database/);
  });

  it('answers an operation that is refused with one line that names the field', async () => {
    expectFailure(await runner().cli('models', 'add', 'a', '--time', 'yesterday'), 1, /time: must look like/);
  });

  it('creates the database once, also when several processes do so at once', async () => {
    const { cli } = runner();
    const ended = await Promise.all([cli('migrate'), cli('migrate'), cli('migrate')]);
    expect(ended.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      Array.from({ length: 3 }, () => ({ code: 0, stderr: '' })),
    );
    expect(ended.filter(({ stdout }) => stdout.includes('applied 0001_catalog'))).toHaveLength(1);
  });

  it('shows what the environment gives from the first command on, and keeps it whatever a later shell has', async () => {
    const { cli, directory } = runner();
    const studio = expect.objectContaining({
      key: 'lmstudio',
      base_url: 'http://127.0.0.1:9',
      enabled: true,
    });
    expect(readRows(await cli('providers', 'list', '--json'))).toContainEqual(studio);
    const other = runner({ LMSTUDIO_BASE_URL: 'http://127.0.0.1:8' }, directory);
    expect(readRows(await other.cli('providers', 'list', '--json'))).toContainEqual(studio);
  });

  it('keeps the request fields that a provider is passed, and forgets them on none', async () => {
    const { cli } = runner();
    const at = ['--kind', 'openai', '--base-url', 'http://127.0.0.1:9/v1'];
    const added = await cli(
      'providers',
      'add',
      'rig',
      ...at,
      '--passthrough',
      ' grammar, mirostat,',
      '--json',
    );
    expect(JSON.parse(added.stdout)).toMatchObject({ key: 'rig', passthrough: ['grammar', 'mirostat'] });
    expect((await cli('providers', 'set', 'rig', '--passthrough', 'none')).code).toBe(0);
    expect(readRows(await cli('providers', 'list', '--json'))).toContainEqual(
      expect.objectContaining({ key: 'rig', passthrough: [] }),
    );
  });

  it('says by its exit code whether a provider answers', async () => {
    const studio = await simulator();
    const { cli } = runner({ LMSTUDIO_BASE_URL: studio.url });
    const up = await cli('providers', 'check', 'lmstudio', '--json');
    expect(up.code).toBe(0);
    expect(readRows(up)).toMatchObject([{ key: 'lmstudio', result: 'up', apis: ['v0', 'v1'], error: null }]);
    await studio.stop();
    const down = await cli('providers', 'check');
    expect(down.code).toBe(1);
    expect(down.stdout).toContain('ECONNREFUSED');
  });

  it('brings models in by sync, lists them, and disables one that is removed but still there', async () => {
    const studio = await simulator({ models: [{ id: 'org/one', type: 'llm' }] });
    const { cli } = runner({ LMSTUDIO_BASE_URL: studio.url });
    expect((await cli('models', 'sync')).stdout).toBe('lmstudio: 1 models; added org/one\n');
    const listed = readRows(await cli('models', 'list', '--json'));
    expect(listed.find((row) => row['title'] === 'org/one')).toMatchObject({ id: 1000, available: true });
    const removed = await cli('models', 'remove', 'org/one');
    expect(removed.stdout).toMatch(/^disabled model org\/one: lmstudio still lists it/);
  });

  it('prints tables whose columns line up, Chinese names or not', async () => {
    const { cli } = runner();
    await cli('models', 'add', 'one', '--name', '模型', '--type', '8');
    await cli('models', 'add', 'two', '--name', 'abcd', '--type', '8');
    const lines = (await cli('models', 'list')).stdout.split('\n');
    const gap = (name: string) =>
      /^( +)8/.exec(lines.find((line) => line.includes(name))?.split(name)[1] ?? '')?.[1];
    expect(gap('模型')?.length).toBeGreaterThan(1);
    expect(gap('模型')).toBe(gap('abcd'));
  });

  it('makes changes that a running process notices within 2 s', async () => {
    const space = await workspace();
    await space.addProvider('studio', 'http://127.0.0.1:9');
    space.catalog.watch();
    const { cli } = runner({ DATABASE_URL: `sqlite:${space.store.file}` });
    const added = await cli('models', 'add', 'theirs', '--provider', 'studio', '--json');
    expect(JSON.parse(added.stdout)).toMatchObject({ title: 'theirs', available: true });
    const endedAt = performance.now();
    await until(space.catalog, () => space.catalog.find('theirs') !== undefined);
    expect(performance.now() - endedAt).toBeLessThan(2000);
  });
});
