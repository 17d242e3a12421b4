/** The layer rules bite: each is given a small project that breaks it. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cruise, type ICruiseOptions, type ICruiseResult, type IFlattenedRuleSet } from 'dependency-cruiser';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const { forbidden, options }: { forbidden: IFlattenedRuleSet['forbidden']; options: ICruiseOptions } =
  createRequire(import.meta.url)('../../.dependency-cruiser.cjs');

/** File by file, what it imports. Every file exists, so that nothing is refused for being missing. */
const project: Record<string, readonly string[]> = {
  'main.ts': [
    './app.ts',
    './store/database.ts',
    './adapters/index.ts',
    './cli.ts',
    './http/plugins/server.ts',
  ],
  'cli.ts': [],
  'app.ts': ['./http/routes.ts', './store/database.ts'],
  'config.ts': ['zod', './chat/events.ts'],
  'chat/events.ts': ['zod', 'node:fs', 'pino', '../config.ts', './cycle.ts'],
  'chat/cycle.ts': ['./events.ts'],
  'adapters/index.ts': ['../chat/events.ts', '../upstream/client.ts', 'undici', 'node:net'],
  'facades/unified.ts': ['../chat/events.ts', '../gateway/engine.ts', 'fastify'],
  'upstream/client.ts': ['undici', '../chat/events.ts', '../store/models.ts', 'pino'],
  'store/database.ts': ['better-sqlite3', './models.ts', '../chat/events.ts'],
  'store/models.ts': ['kysely', 'pino'],
  'gateway/engine.ts': [
    '../adapters/index.ts',
    '../store/models.ts',
    '../store/database.ts',
    '../facades/unified.ts',
    'kysely',
    'fastify',
    'undici',
    'node:https',
  ],
  'admin/providers.ts': ['../adapters/index.ts', '../gateway/engine.ts', '../http/routes.ts', '../main.ts'],
  'http/routes.ts': ['fastify', '../admin/providers.ts', '../facades/unified.ts', '../upstream/client.ts'],
  'http/plugins/server.ts': [
    '../../adapters/index.ts',
    '../../chat/events.ts',
    'better-sqlite3',
    '../../app.ts',
  ],
  'lonely.ts': [],
};

let folder: string;
const found = new Set<string>();

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'layers-'));
  for (const [name, imports] of Object.entries(project)) {
    const file = path.join(folder, 'src', name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, imports.map((target) => `import '${target}';\n`).join(''));
  }
  symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
  for (const name of ['package.json', 'tsconfig.json'])
    cpSync(path.join(root, name), path.join(folder, name));
  const { output } = await cruise(['src'], {
    ...options,
    baseDir: folder,
    validate: true,
    ruleSet: { forbidden },
    outputType: 'json',
  });
  const result: ICruiseResult = typeof output === 'string' ? JSON.parse(output) : output;
  for (const { rule, from, to } of result.summary.violations) {
    found.add(
      `${rule.name}: ${from.replace('src/', '')} -> ${to.replace(/^.*node_modules\/(?:@types\/)?([^/]+).*$/, '$1').replace('src/', '')}`,
    );
  }
}, 60_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the layer rules', () => {
  it.each([
    'chat-layer: chat/events.ts -> config.ts',
    'chat-packages: chat/events.ts -> pino',
    'chat-pure: chat/events.ts -> fs',
    'adapters-layer: adapters/index.ts -> upstream/client.ts',
    'adapters-packages: adapters/index.ts -> undici',
    'adapters-pure: adapters/index.ts -> net',
    'facades-layer: facades/unified.ts -> gateway/engine.ts',
    'facades-packages: facades/unified.ts -> fastify',
    'upstream-layer: upstream/client.ts -> store/models.ts',
    'upstream-packages: upstream/client.ts -> pino',
    'store-layer: store/database.ts -> chat/events.ts',
    'store-packages: store/models.ts -> pino',
    'gateway-layer: gateway/engine.ts -> adapters/index.ts',
    'gateway-layer: gateway/engine.ts -> store/database.ts',
    'gateway-layer: gateway/engine.ts -> facades/unified.ts',
    'admin-layer: admin/providers.ts -> http/routes.ts',
    'http-layer: http/routes.ts -> upstream/client.ts',
    'config-layer: config.ts -> chat/events.ts',
    'home-of-undici: gateway/engine.ts -> undici',
    'home-of-sqlite: gateway/engine.ts -> kysely',
    'home-of-sqlite: http/plugins/server.ts -> better-sqlite3',
    'home-of-fastify: gateway/engine.ts -> fastify',
    'network-only-upstream: gateway/engine.ts -> https',
    'top-is-not-imported: admin/providers.ts -> main.ts',
    'top-is-not-imported: http/plugins/server.ts -> app.ts',
    'app-knows-no-process: app.ts -> store/database.ts',
    'no-cycles: chat/cycle.ts -> chat/events.ts',
    'no-orphans: lonely.ts -> lonely.ts',
  ])('find %s', (violation) => {
    expect([...found]).toContain(violation);
  });

  it.each([
    'main.ts -> store/database.ts',
    'main.ts -> adapters/index.ts',
    'admin/providers.ts -> adapters/index.ts',
    'admin/providers.ts -> gateway/engine.ts',
    'http/routes.ts -> admin/providers.ts',
    'http/routes.ts -> facades/unified.ts',
    'http/plugins/server.ts -> adapters/index.ts',
    'gateway/engine.ts -> store/models.ts',
    'chat/events.ts -> zod',
    'upstream/client.ts -> undici',
    'store/database.ts -> better-sqlite3',
    'http/routes.ts -> fastify',
  ])('allow %s', (allowed) => {
    expect([...found].filter((violation) => !violation.startsWith('no-cycles')).join('\n')).not.toContain(
      allowed,
    );
  });
});

describe('the linter', () => {
  it('refuses to read the environment anywhere in src but in config.ts', () => {
    const readers = ['src/gateway/engine.ts', 'src/main.ts', 'src/config.ts', 'bench/run.ts'];
    const lintFolder = mkdtempSync(path.join(tmpdir(), 'lint-'));
    try {
      for (const name of readers) {
        mkdirSync(path.dirname(path.join(lintFolder, name)), { recursive: true });
        writeFileSync(path.join(lintFolder, name), "export const value = process.env['VALUE'];\n");
      }
      for (const name of ['biome.json', '.gitignore'])
        cpSync(path.join(root, name), path.join(lintFolder, name));
      const { stderr, status } = spawnSync(path.join(root, 'node_modules/.bin/biome'), ['lint', '.'], {
        cwd: lintFolder,
        encoding: 'utf8',
      });
      const refused = [...stderr.matchAll(/^(\S+):\d+:\d+ lint\/style\/noProcessEnv/gm)].map(
        (match) => match[1],
      );
      expect(refused.sort()).toEqual(['src/gateway/engine.ts', 'src/main.ts']);
      expect(status).toBe(1);
    } finally {
      rmSync(lintFolder, { recursive: true, force: true });
    }
  });
});
