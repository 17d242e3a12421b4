/** A database that grows: what models, keys and usage rows cost a request. Only for targets that have one. */
import { chatBody, measure } from '../measure.ts';
import type { Running } from '../targets/target.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Suite, withFresh } from './suite.ts';

const connections = 32;

export const growth: Suite = {
  table: {
    suite: 'growth',
    title: 'Growing tables: models, routes, keys, usage',
    columns: [
      { title: 'req/s', key: 'rate', digits: 0, over: 'median' },
      { title: 'p99 ms', key: 'p99', digits: 2, over: 'median' },
      { title: 'CPU us/req', key: 'cpuMicros', digits: 1, over: 'median' },
      { title: 'memory MB', key: 'memoryMb', digits: 0, over: 'median' },
      { title: 'failed', key: 'failed', digits: 0, over: 'sum' },
    ],
  },
  async run(bench) {
    const { options, askLoad } = bench;
    const body = chatBody(nameOf(scripts.json), false, 1);
    for (let rep = 1; rep <= options.reps; rep += 1) {
      for (const rows of options.rows) {
        for (const target of bench.targets.filter(({ name }) => name.startsWith('gateway'))) {
          const work = async (running: Running): Promise<void> => {
            const job = { kind: 'json', endpoint: { ...running.endpoint, body }, connections } as const;
            await askLoad({ ...job, seconds: 1 });
            const found = await measure(askLoad, running, { ...job, seconds: options.seconds });
            bench.record({
              suite: 'growth',
              case: `${rows} rows`,
              target: target.name,
              rep,
              errors: found.errors,
              values: {
                rate: (found.good / found.wallMs) * 1000,
                p99: found.latency.p99,
                cpuMicros: (found.cpuSeconds * 1e6) / found.good,
                memoryMb: found.memoryPeakKb / 1024,
                failed: found.bad,
              },
            });
          };
          await withFresh(bench, target, work, rows);
        }
      }
    }
  },
};
