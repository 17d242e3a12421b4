/** Thousands of slow streams: whether all arrive, what memory one takes, how long a chunk may be held up. */
import { chatBody, measure } from '../measure.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Suite, withFresh } from './suite.ts';

/** New streams per second. */
const ramp = 1000;

export const slow: Suite = {
  table: {
    suite: 'slow',
    title: 'Slow streams, one event a second',
    columns: [
      { title: 'streams', key: 'total', digits: 0, over: 'sum' },
      { title: 'failed', key: 'failed', digits: 0, over: 'sum' },
      { title: 'KB per stream', key: 'memoryKb', digits: 1, over: 'median' },
      { title: 'largest extra gap ms', key: 'extraGap', digits: 0, over: 'median' },
      { title: 'first event p99 ms', key: 'first99', digits: 1, over: 'median' },
      { title: 'CPU s', key: 'cpu', digits: 2, over: 'median' },
    ],
  },
  async run(bench) {
    const { options, askLoad } = bench;
    const script = options.quick ? scripts.slowShort : scripts.slow;
    const warmUp = scripts.batched;
    const reps = options.quick ? 1 : options.reps;
    for (let rep = 1; rep <= reps; rep += 1) {
      for (const concurrency of options.slow) {
        // The upstream has no gateway's memory to show.
        for (const target of bench.targets.filter(({ name }) => name !== 'direct')) {
          await withFresh(bench, target, async (running) => {
            const on = (name: string) => ({ ...running.endpoint, body: chatBody(name, true, 1) });
            const shared = { kind: 'streams' } as const;
            const warm = { ...shared, concurrency: 16, rounds: 5, events: warmUp.chunks, ramp: 0 };
            await askLoad({ ...warm, endpoint: on(nameOf(warmUp)) });
            const job = { ...shared, concurrency, rounds: 1, events: script.chunks, ramp };
            const found = await measure(askLoad, running, { ...job, endpoint: on(nameOf(script)) });
            bench.record({
              suite: 'slow',
              case: `${concurrency} streams of ${script.chunks} s`,
              target: target.name,
              rep,
              errors: found.errors,
              values: {
                total: found.good + found.bad,
                failed: found.bad,
                memoryKb: (found.memoryPeakKb - found.memoryBeforeKb) / concurrency,
                extraGap: found.largestGap.max - script.delayMs,
                first99: found.firstEvent[0]?.p99 ?? Number.NaN,
                cpu: found.cpuSeconds,
              },
            });
          });
        }
      }
    }
  },
};
