/** Starts processes on cores of their own, and reads from /proc what they use. */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../', import.meta.url));

/** Linux counts processor time in hundredths of a second (USER_HZ), whatever its timer does. */
const ticksPerSecond = 100;

/** The core of what is measured, and those of what measures it. Undefined: not pinned. */
export interface Cores {
  readonly server: number | undefined;
  readonly upstream: number | undefined;
  readonly load: number | undefined;
}

/** The measured process has a core to itself; upstream and load share one where there are only two. */
export function chooseCores(): Cores {
  const allowed = allowedCores();
  const [server, upstream, load] = allowed;
  if (upstream === undefined || spawnSync('taskset', ['--version']).status !== 0) {
    return { server: undefined, upstream: undefined, load: undefined };
  }
  return { server, upstream, load: load ?? upstream };
}

function allowedCores(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
  return list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/** Keeps the harness itself off the core of what it measures. */
export function pinSelf(core: number | undefined): void {
  if (core !== undefined) spawnSync('taskset', ['-apc', String(core), String(process.pid)]);
}

const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));

export function startProcess(
  core: number | undefined,
  command: string,
  given: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  const child =
    core === undefined
      ? spawn(command, given, options)
      : spawn('taskset', ['-c', String(core), command, ...given], options);
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Starts a TypeScript or JavaScript file of the benchmark, with a channel for questions. */
export function startScript(
  core: number | undefined,
  file: string,
  environment: Record<string, string> = {},
): ChildProcess {
  const loader = file.endsWith('.ts') ? ['--import', 'tsx'] : [];
  return startProcess(core, process.execPath, [...loader, file], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // JSON would make null of the NaN that stands for a figure which nothing was measured for.
    serialization: 'advanced',
    env: { ...process.env, ...environment },
  });
}

export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const tooLong = setTimeout(() => child.kill('SIGKILL'), 3000);
  await ended;
  clearTimeout(tooLong);
}

/**
 * Gives each core something to do that steps back for everything else, so that none falls asleep. Where a core is virtual, it takes
 * the host a tenth of a millisecond to wake it, or several, and that would be most of what is measured of single requests.
 */
export function keepAwake(cores: Cores): () => Promise<void> {
  const numbers = [...new Set(Object.values(cores))].filter((core) => core !== undefined);
  if (spawnSync('chrt', ['-i', '0', 'true']).status !== 0) {
    process.stderr.write('no chrt: cores that have nothing to do fall asleep\n');
    return async () => {};
  }
  const spinning = numbers.map((core) =>
    startProcess(core, 'chrt', ['-i', '0', process.execPath, '-e', 'for (;;);'], { stdio: 'ignore' }),
  );
  return async () => {
    await Promise.all(spinning.map(stopProcess));
  };
}

/** The process and all that it started. */
function treeOf(pid: number): number[] {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    const own = threads.flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
    return [pid, ...own.flatMap(treeOf)];
  } catch {
    return [];
  }
}

/** Processor time of a process tree so far, in seconds. */
export function cpuSeconds(pid: number): number {
  let ticks = 0;
  for (const one of treeOf(pid)) {
    const stat = readOf(one, 'stat');
    // The name in brackets may hold blanks; user and system time are the 12th and 13th field after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / ticksPerSecond;
}

/** Empty where the process is gone, as a peer's may be: its figures are then not numbers. */
function readOf(pid: number, what: string): string {
  try {
    return readFileSync(`/proc/${pid}/${what}`, 'utf8');
  } catch {
    return '';
  }
}

/** Proportional set size of a process tree, in KB: what it would free, shared pages counted in part. */
export function memoryKb(pid: number): number {
  return treeOf(pid)
    .map((one) => Number(/^Pss:\s+(\d+)/m.exec(readOf(one, 'smaps_rollup'))?.[1]))
    .reduce((sum, size) => sum + size, 0);
}

/** A port that was free a moment ago, for servers that must be told theirs. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

/** @throws Error where the condition does not hold in time */
export async function until(what: string, seconds: number, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${seconds} s in vain: ${what}`);
    await sleep(50);
  }
}
