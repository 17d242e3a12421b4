/** What a gateway in another process holds, as its own metrics tell. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readMetrics } from './metrics-text.ts';
import { type SpawnedGateway, spawnGateway } from './spawned.ts';

async function readGauge(url: string, name: string): Promise<number> {
  const answer = await fetch(`${url}/metrics`);
  const sample = readMetrics(await answer.text()).find((one) => one.name === name);
  if (sample === undefined) throw new Error(`no metric ${name}`);
  return sample.value;
}

/** Node has no signal of its own for it; this one tells of a terminal's size, which a server has none of. */
const collectSignal = 'SIGWINCH';
const collector = `process.on('${collectSignal}', () => globalThis.gc())`;

export interface MeasuredGateway extends SpawnedGateway {
  /** Bytes that are in use after everything that can be freed was freed. */
  heapUsed(): Promise<number>;
  /** The same with the buffers, which are outside of V8's heap. */
  memoryInUse(): Promise<number>;
  residentBytes(): Promise<number>;
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
      const values = await Promise.all(names.map((name) => readGauge(gateway.url, name)));
      seen.push(values.reduce((sum, value) => sum + value, 0));
    }
    return Math.min(...seen);
  };
  return {
    ...gateway,
    residentBytes: () => readGauge(gateway.url, 'process_resident_memory_bytes'),
    heapUsed: () => afterCollection('nodejs_heap_size_used_bytes'),
    memoryInUse: () => afterCollection('nodejs_heap_size_used_bytes', 'nodejs_external_memory_bytes'),
  };
}
