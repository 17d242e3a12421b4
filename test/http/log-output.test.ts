/** A gateway whose log nobody takes: it serves, it counts what it drops, it ends. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { z } from 'zod';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const tsx = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url));

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = z.object({ port: z.number() }).parse(server.address());
  server.close();
  await once(server, 'close');
  return port;
}

async function start(
  stdout: 'pipe' | number,
): Promise<{ readonly child: ChildProcess; readonly url: string }> {
  const port = await freePort();
  const child = spawn(process.execPath, ['--import', tsx, main], {
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: String(port),
      DATABASE_URL: 'sqlite::memory:',
      LMSTUDIO_BASE_URL: 'http://127.0.0.1:9',
      SHUTDOWN_GRACE_MS: '500',
    },
    stdio: ['ignore', stdout, 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const url = `http://127.0.0.1:${port}`;
  await expect
    .poll(
      () =>
        fetch(`${url}/healthz`).then(
          ({ ok }) => ok,
          () => false,
        ),
      { timeout: 15_000 },
    )
    .toBe(true);
  return { child, url };
}

/** Calls that fail, with a line each; a long name makes the line long. */
async function fill(url: string, batches = 70): Promise<void> {
  const body = JSON.stringify({ model: 'm'.repeat(60), messages: [{ role: 'user', content: 'hi' }] });
  for (let batch = 0; batch < batches; batch += 1) {
    await Promise.all(
      Array.from({ length: 200 }, () =>
        fetch(`${url}/api/llm/chat`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body,
        }).then((response) => response.text()),
      ),
    );
  }
}

async function dropped(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^gateway_log_dropped_lines_total (\d+)$/m.exec(text)?.[1]);
}

it.each([
  ['a pipe that nobody reads', 'pipe'],
  ['a full disk', '/dev/full'],
])(
  'serves, counts and ends with %s',
  async (_, where) => {
    const { child, url } = await start(where === 'pipe' ? 'pipe' : openSync(where, 'w'));
    await fill(url);
    const askedAt = performance.now();
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    expect(performance.now() - askedAt).toBeLessThan(1000);
    expect(await dropped(url)).toBeGreaterThan(0);

    const ended = once(child, 'exit');
    const endedAt = performance.now();
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
    expect(performance.now() - endedAt).toBeLessThan(3000);
  },
  90_000,
);

/** The writing end of a pipe whose reading end is open and takes nothing. */
function unreadPipe(): number {
  const folder = mkdtempSync(path.join(tmpdir(), 'log-'));
  const file = path.join(folder, 'pipe');
  spawnSync('mkfifo', [file]);
  const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(file, constants.O_WRONLY);
  onTestFinished(() => {
    closeSync(reader);
    closeSync(writer);
    rmSync(folder, { recursive: true });
  });
  return writer;
}

it('serves and ends where another program makes the pipe that both write to wait again', async () => {
  const pipe = unreadPipe();
  const { child, url } = await start(pipe);
  // Node has a child's inherited stdout wait, for all who share it.
  spawnSync('true', { stdio: ['ignore', pipe, 'ignore'] });
  // 400 lines of 250 characters are more than the 64 KiB that a pipe holds.
  await fill(url, 2);
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
}, 40_000);
