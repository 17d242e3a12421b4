/** What a suite of the benchmark is, and what it is given. */
import type { LoadJob, LoadResult } from '../load/jobs.ts';
import type { Options } from '../options.ts';
import type { Ask } from '../process-messages.ts';
import type { Cores } from '../processes.ts';
import type { Measurement, Table } from '../report.ts';
import type { Place, Running, Target } from '../targets/target.ts';
import type { UpstreamRequest, UpstreamStats } from '../upstream/upstream.process.ts';

export interface Bench {
  readonly options: Options;
  readonly targets: readonly Target[];
  readonly place: Place;
  readonly cores: Cores;
  readonly askLoad: Ask<LoadJob, LoadResult>;
  readonly askUpstream: Ask<UpstreamRequest, number | UpstreamStats>;
  record(measurement: Measurement): void;
}

export interface Suite {
  readonly table: Table;
  run(bench: Bench): Promise<void>;
}

/** Starts all targets, lets the work use them in turn, and stops them: those that wait cost nothing. */
export async function withAll(
  { targets, place }: Bench,
  work: (running: ReadonlyMap<string, Running>) => Promise<void>,
): Promise<void> {
  const running = new Map<string, Running>();
  try {
    for (const target of targets) running.set(target.name, await target.start(place));
    await work(running);
  } finally {
    for (const one of running.values()) await one.stop();
  }
}

/** Starts one target for one measurement, where memory counts and must begin small. */
export async function withFresh(
  { place }: Bench,
  target: Target,
  work: (running: Running) => Promise<void>,
  rows?: number,
): Promise<void> {
  const running = await target.start(place, rows);
  try {
    await work(running);
  } finally {
    await running.stop();
  }
}
