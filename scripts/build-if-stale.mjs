/** Compiles src/ to dist/ if it is not compiled yet or has changed since. Quiet and quick where there is nothing to do. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
// The compiler leaves files alone that come out the same, so their age tells nothing.
const stamp = path.join(root, 'dist/.built');

function newestSource() {
  const sources = readdirSync(path.join(root, 'src'), { recursive: true, withFileTypes: true })
    // A folder's time tells of files that were removed.
    .map((entry) => path.join(entry.parentPath, entry.name));
  const settings = readdirSync(root).filter(
    (name) => name === 'package.json' || /^tsconfig.*\.json$/.test(name),
  );
  const files = [...sources, ...settings.map((name) => path.join(root, name))];
  return Math.max(...files.map((file) => statSync(file).mtimeMs));
}

function findCompiler() {
  try {
    return createRequire(import.meta.url).resolve('typescript/bin/tsc');
  } catch {
    return undefined;
  }
}

function build(compiler) {
  const startedAt = new Date();
  const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) {
    process.stderr.write(`${stdout}${stderr}llm-gateway: the build failed\n`);
    process.exit(1);
  }
  writeFileSync(stamp, '');
  // A file that was saved during the build is newer than this.
  utimesSync(stamp, startedAt, startedAt);
}

const built = existsSync(path.join(root, 'dist/main.js')) && existsSync(path.join(root, 'dist/cli.js'));
const compiler = findCompiler();
if (compiler === undefined && !built) {
  process.stderr.write('llm-gateway: dist/ is missing and typescript is not installed; run npm ci first\n');
  process.exit(1);
}
// An installation without the sources' compiler, such as the container image, runs what it was given.
if (compiler !== undefined && existsSync(path.join(root, 'src'))) {
  const current = built && existsSync(stamp) && statSync(stamp).mtimeMs >= newestSource();
  if (!current) build(compiler);
}
