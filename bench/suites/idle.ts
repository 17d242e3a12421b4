/** An idle machine: what a target adds to the time to the first event, beyond the upstream itself. */
import { chatBody } from '../measure.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Suite, withAll } from './suite.ts';

/** One at a time, the compiler meets other paths than under load: it is busy with them for some thousand requests. */
const warmUpSamples = 12_000;
const quickWarmUpSamples = 300;
/** As many streams of each target come first, for the compiler: its work would be the slowest hundredth. */
const warmUpStreams = { concurrency: 32, rounds: 150 };
const pauseMs = 2;
/** In turns of some requests: taken one by one, each target would find the processor's caches full of the others' code. */
const inARow = 250;

export const idle: Suite = {
  table: {
    suite: 'idle',
    title: 'Time to the first event, one request at a time',
    columns: [
      { title: 'p50 ms', key: 'p50', digits: 3, over: 'median' },
      { title: 'p99 ms', key: 'p99', digits: 3, over: 'median' },
      { title: 'added p50 ms', key: 'added50', digits: 3, over: 'median' },
      { title: 'added p99 ms', key: 'added99', digits: 3, over: 'median' },
    ],
  },
  run: (bench) =>
    withAll(bench, async (all) => {
      const { options, askLoad } = bench;
      const body = chatBody(nameOf(scripts.single), true, 1);
      const endpoints = [...all.values()].map(({ endpoint }) => ({ ...endpoint, body }));
      const job = { kind: 'first-event', endpoints, inARow, pauseMs } as const;
      for (const endpoint of endpoints) {
        await askLoad({
          kind: 'streams',
          endpoint,
          ...warmUpStreams,
          events: scripts.single.chunks,
          ramp: 0,
        });
      }
      await askLoad({ ...job, samples: options.quick ? quickWarmUpSamples : warmUpSamples, pauseMs: 0 });
      for (let rep = 1; rep <= options.reps; rep += 1) {
        const { firstEvent, errors } = await askLoad({ ...job, samples: options.quick ? 200 : 1000 });
        const names = [...all.keys()];
        const upstream = firstEvent[names.indexOf('direct')];
        for (const [index, target] of names.entries()) {
          const { p50, p99 } = firstEvent[index] ?? { p50: Number.NaN, p99: Number.NaN };
          bench.record({
            suite: 'idle',
            case: '1 connection each',
            target,
            rep,
            errors: Object.fromEntries(
              Object.entries(errors).filter(([reason]) => reason.startsWith(`endpoint ${index}:`)),
            ),
            values: {
              p50,
              p99,
              ...(upstream === undefined ? {} : { added50: p50 - upstream.p50, added99: p99 - upstream.p99 }),
            },
          });
        }
      }
    }),
};
