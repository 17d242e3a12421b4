/** Whole answers: requests per second, latency and processor time, by connections and by size of the body. */
import { chatBody, measure } from '../measure.ts';
import type { Running } from '../targets/target.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Bench, type Suite, withAll } from './suite.ts';

const usualConnections = 32;
const usualKilobytes = 1;
/** What the compiler needs until the figures stop falling. */
const warmUpSeconds = 3;
/** What waited for its turn is slower at first. */
const resumeSeconds = 1.5;

function casesOf({ options }: Bench): { connections: number; kilobytes: number }[] {
  return [
    ...options.connections.map((connections) => ({ connections, kilobytes: usualKilobytes })),
    ...options.bodies
      .map((kilobytes) => ({ connections: usualConnections, kilobytes }))
      .filter(
        ({ kilobytes }) => kilobytes !== usualKilobytes || !options.connections.includes(usualConnections),
      ),
  ];
}

export const json: Suite = {
  table: {
    suite: 'json',
    title: 'Whole answers (JSON)',
    compared: 'cpuMicros',
    columns: [
      { title: 'req/s', key: 'rate', digits: 0, over: 'median' },
      { title: 'p50 ms', key: 'p50', digits: 2, over: 'median' },
      { title: 'p99 ms', key: 'p99', digits: 2, over: 'median' },
      { title: 'CPU us/req', key: 'cpuMicros', digits: 1, over: 'median' },
      { title: 'core %', key: 'busy', digits: 0, over: 'median' },
      { title: 'failed', key: 'failed', digits: 0, over: 'sum' },
    ],
  },
  async run(bench) {
    // Anew for each repetition: of two processes of the same program one may stay a tenth slower than the other all its life.
    for (let rep = 1; rep <= bench.options.reps; rep += 1) {
      await withAll(bench, (all) => repeat(bench, all, rep));
    }
  },
};

async function repeat(bench: Bench, all: ReadonlyMap<string, Running>, rep: number): Promise<void> {
  const { options, askLoad } = bench;
  const model = nameOf(scripts.json);
  for (const { endpoint } of all.values()) {
    await askLoad({
      kind: 'json',
      endpoint: { ...endpoint, body: chatBody(model, false, usualKilobytes) },
      connections: usualConnections,
      seconds: warmUpSeconds,
    });
  }
  for (const { connections, kilobytes } of casesOf(bench)) {
    for (const [target, running] of all) {
      const endpoint = { ...running.endpoint, body: chatBody(model, false, kilobytes) };
      const job = { kind: 'json', endpoint, connections } as const;
      await askLoad({ ...job, seconds: resumeSeconds });
      const found = await measure(askLoad, running, { ...job, seconds: options.seconds });
      bench.record({
        suite: 'json',
        case: `${connections} connections, ${kilobytes} KB`,
        target,
        rep,
        errors: found.errors,
        values: {
          rate: (found.good / found.wallMs) * 1000,
          p50: found.latency.p50,
          p99: found.latency.p99,
          cpuMicros: (found.cpuSeconds * 1e6) / found.good,
          busy: (found.cpuSeconds / found.wallMs) * 1e5,
          failed: found.bad,
        },
      });
    }
  }
}
