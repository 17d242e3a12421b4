/** A gateway in a process of its own, for tests that read its log or kill it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const tsx = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url));

export type LogLine = Readonly<Record<string, unknown>>;

export interface SpawnedGateway {
  readonly url: string;
  readonly port: number;
  /** What it has logged so far. */
  readonly log: readonly LogLine[];
  readonly pid: number;
  /** Resolves with the exit code when the process is gone and its log is read to the end; null where a signal ended it. */
  readonly exit: Promise<number | null>;
  kill(signal: NodeJS.Signals): void;
  /** Sends the signal and waits for the exit. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Resolves when it listens. It ends with the test. */
export async function spawnGateway(
  environment: Readonly<Record<string, string>>,
  nodeOptions: readonly string[] = [],
): Promise<SpawnedGateway> {
  const child = spawn(process.execPath, ['--import', tsx, ...nodeOptions, main], {
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: '0',
      LMSTUDIO_BASE_URL: 'http://127.0.0.1:9',
      SHUTDOWN_GRACE_MS: '500',
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const log: LogLine[] = [];
  const closed = once(child, 'close');
  const exit = closed.then(() => child.exitCode);
  const listening = new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const entry: LogLine = JSON.parse(line);
      log.push(entry);
      if (typeof entry['address'] === 'string') resolve(entry['address']);
    });
    closed.then(() => reject(new Error('it ended before it listened')), reject);
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const url = await listening;
  return {
    url,
    port: Number(new URL(url).port),
    log,
    pid: child.pid ?? 0,
    exit,
    kill: (signal) => void child.kill(signal),
    end(signal) {
      child.kill(signal);
      return exit;
    },
  };
}
