/** How the process ends where no running server is asked to: while it starts, and by an error that nobody caught. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { startLmStudio } from '../simulators/lmstudio.ts';
import { spawnGateway } from './spawned.ts';
import { deferred } from './wire.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const tsx = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url));

it('a signal while it starts ends it with 0', async () => {
  const studio = await startLmStudio();
  onTestFinished(() => studio.close());
  const listed = deferred();
  studio.alwaysControl({ hold: listed.promise });
  const child = spawn(process.execPath, ['--import', tsx, main], {
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: '0',
      DATABASE_URL: 'sqlite::memory:',
      LMSTUDIO_BASE_URL: studio.url,
    },
    stdio: 'ignore',
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  // It asks for the models before it listens.
  await studio.waitForRequest(() => true);
  child.kill('SIGTERM');
  listed.resolve();
  expect(await ended).toEqual([0, null]);
});

it.each(['throw new Error("boom")', 'Promise.reject(new Error("boom"))'])(
  'an error that nobody caught is logged before it ends with 1: %s',
  async (failure) => {
    const bomb = `data:text/javascript,process.once("SIGUSR1",()=>{${failure}})`;
    const gateway = await spawnGateway({ DATABASE_URL: 'sqlite::memory:' }, ['--import', bomb]);
    expect(await gateway.end('SIGUSR1')).toBe(1);
    expect(gateway.log).toContainEqual(
      expect.objectContaining({ level: 'fatal', err: expect.objectContaining({ message: 'boom' }) }),
    );
  },
);
