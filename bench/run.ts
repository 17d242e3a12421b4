/** `npm run bench`: starts an upstream and the targets, runs the suites in turn, prints tables and keeps the figures. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { LoadJob, LoadResult } from './load/jobs.ts';
import { help, type Options, readOptions, type SuiteName } from './options.ts';
import { connectTo } from './process-messages.ts';
import { type Cores, chooseCores, pinSelf, root, startScript, stopProcess } from './processes.ts';
import { describeMeasurement, type Measurement, renderTable } from './report.ts';
import { growth } from './suites/growth.ts';
import { idle } from './suites/idle.ts';
import { json } from './suites/json.ts';
import { leaving } from './suites/leaving.ts';
import { slow } from './suites/slow.ts';
import { streams } from './suites/streams.ts';
import type { Bench, Suite } from './suites/suite.ts';
import { bare, direct } from './targets/baselines.ts';
import { buildGateway, gateway, gatewayPlain, gatewayV1 } from './targets/gateway.ts';
import { peers } from './targets/peers.ts';
import type { Place, Target } from './targets/target.ts';
import type { UpstreamRequest, UpstreamStats } from './upstream/upstream.process.ts';

const suites: Record<SuiteName, Suite> = { json, streams, slow, idle, leaving, growth };
const ownTargets: readonly Target[] = [direct, bare, gateway, gatewayV1, gatewayPlain];

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Leaves out, with a word, what cannot be measured here: a path that is not there, a peer that is not installed. */
async function chooseTargets(options: Options, place: Place): Promise<Target[]> {
  const wanted = [...options.targets, ...options.peers];
  const known = [...ownTargets, ...peers];
  const unknown = wanted.find((name) => !known.some((target) => target.name === name));
  if (unknown !== undefined)
    throw new Error(`${unknown} is none of ${known.map(({ name }) => name).join(', ')}`);
  const usable: Target[] = [];
  for (const target of known.filter(({ name }) => wanted.includes(name))) {
    try {
      if (target.optional === true) await (await target.start(place)).stop();
      usable.push(target);
    } catch (error) {
      say(`left out: ${target.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return usable;
}

function describeMachine(cores: Cores): string {
  const model = os.cpus()[0]?.model ?? 'unknown processor';
  const pinned =
    cores.server === undefined
      ? 'not pinned'
      : `target on core ${cores.server}, upstream on ${cores.upstream}, load on ${cores.load}`;
  return `Node ${process.version}, ${os.cpus().length} cores, ${model}; ${pinned}; load before the run ${os.loadavg()[0]?.toFixed(1)}`;
}

async function run(options: Options): Promise<void> {
  const cores = chooseCores();
  const machine = describeMachine(cores);
  pinSelf(cores.load);
  const folder = mkdtempSync(path.join(os.tmpdir(), 'llm-gateway-bench-'));
  const measurements: Measurement[] = [];
  const upstream = startScript(cores.upstream, 'bench/upstream/upstream.process.ts');
  const load = startScript(cores.load, 'bench/load/load.process.ts');
  try {
    const askUpstream = await connectTo<UpstreamRequest, number | UpstreamStats>(upstream);
    const askLoad = await connectTo<LoadJob, LoadResult>(load);
    const port = await askUpstream({ kind: 'port' });
    if (typeof port !== 'number') throw new Error('the upstream told no port');
    const place = { upstreamPort: port, upstreamPid: upstream.pid ?? 0, core: cores.server, folder };
    if (options.targets.some((name) => name.startsWith('gateway'))) buildGateway();
    const bench: Bench = {
      options,
      targets: await chooseTargets(options, place),
      place,
      cores,
      askLoad,
      askUpstream,
      record(measurement) {
        measurements.push(measurement);
        say(describeMeasurement(measurement));
      },
    };
    const tables: string[] = [];
    for (const name of options.suites) {
      const suite = suites[name];
      await suite.run(bench);
      tables.push(renderTable(suite.table, measurements));
    }
    process.stdout.write(`${machine}; medians of ${options.reps}\n\n${tables.join('\n')}`);
    say(`\nkept in ${keep({ machine, options, measurements })}`);
  } finally {
    await stopProcess(load);
    await stopProcess(upstream);
    rmSync(folder, { recursive: true, force: true });
  }
}

function keep(result: object): string {
  const at = new Date().toISOString();
  const file = path.join('bench/results', `${at.replace(/[:.]/g, '-')}.json`);
  mkdirSync(path.join(root, 'bench/results'), { recursive: true });
  writeFileSync(path.join(root, file), `${JSON.stringify({ at, ...result }, null, 2)}\n`);
  return file;
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options === undefined) process.stdout.write(help);
  else await run(options);
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
