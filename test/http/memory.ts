/** What a gateway in another process holds, as its own metrics tell. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readMetrics } from './metrics-text.ts';
import { type SpawnedGateway, spawnGateway } from './spawned.ts';

/** The sum of gauges, at one moment. */
async function readGauges(url: string, ...names: readonly string[]): Promise<number> {
  const answer = await fetch(`${url}/metrics`);
  const samples = readMetrics(await answer.text());
  let sum = 0;
  for (const name of names) {
    const sample = samples.find((one) => one.name === name);
    if (sample === undefined) throw new Error(`no metric ${name}`);
    sum += sample.value;
  }
  return sum;
}

/** Node has no signal of its own for it; this one tells of a terminal's size, which a server has none of. */
const collectSignal = 'SIGWINCH';
const collector = `process.on('${collectSignal}', () => globalThis.gc());
const { memoryUsage } = process;
const wholeUsage = () => {
  const usage = memoryUsage();
  // What a socket has not taken yet is in array buffers that V8 was not told of.
  return { ...usage, external: Math.max(usage.external, usage.arrayBuffers) };
};
process.memoryUsage = Object.assign(wholeUsage, memoryUsage);`;

export interface MeasuredGateway extends SpawnedGateway {
  /** Bytes that are in use after everything that can be freed was freed. */
  heapUsed(): Promise<number>;
  /** The same with the buffers, which are outside of V8's heap. */
  memoryInUse(): Promise<number>;
  /** Bytes that it occupies at this moment, garbage included. */
  resident(): Promise<number>;
}

/** A gateway whose garbage is collected on demand. */
export async function spawnMeasured(environment: Readonly<Record<string, string>>): Promise<MeasuredGateway> {
  const gateway = await spawnGateway(environment, [
    '--expose-gc',
    '--import',
    `data:text/javascript,${encodeURIComponent(collector)}`,
  ]);
  const afterCollection = async (...names: readonly string[]): Promise<number> => {
    // A second or so after the last call its timers and finalizers have run, and what they held can be taken away.
    const seen: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      await sleep(300);
      gateway.kill(collectSignal);
      await sleep(50);
      seen.push(await readGauges(gateway.url, ...names));
    }
    return Math.min(...seen);
  };
  return {
    ...gateway,
    heapUsed: () => afterCollection('nodejs_heap_size_used_bytes'),
    memoryInUse: () => afterCollection('nodejs_heap_size_used_bytes', 'nodejs_external_memory_bytes'),
    resident: () => readGauges(gateway.url, 'process_resident_memory_bytes'),
  };
}
