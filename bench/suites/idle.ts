/** An idle machine: what a target adds to the time to the first event, beyond the upstream itself. */
import { chatBody } from '../measure.ts';
import { keepAwake } from '../processes.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Suite, withAll } from './suite.ts';

/**
 * A gateway looks for models every 30 seconds. The first look brings V8's compiler back, as it is the first time that the functions
 * which send the calls see anything else; it then needs some thousand requests more. 105 seconds after the start V8 shrinks the heap,
 * and much is compiled anew once more. Five repetitions with four targets lie between the two.
 */
const warmUpMs = 38_000;
const quickWarmUpMs = 1000;
/** Streams of each target that come before that, so that no time is lost with what is compiled first. */
const warmUpStreams = { concurrency: 32, rounds: 150 };
const pauseMs = 2;
/** In a row: taken in turns, each target would find the processor's caches full of the others' code. */
const samples = 1000;
const quickSamples = 200;

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
      const job = {
        kind: 'first-event',
        endpoints,
        samples: options.quick ? quickSamples : samples,
      } as const;
      for (const endpoint of endpoints) {
        await askLoad({
          kind: 'streams',
          endpoint,
          ...warmUpStreams,
          events: scripts.single.chunks,
          ramp: 0,
        });
      }
      const warmAt = performance.now() + (options.quick ? quickWarmUpMs : warmUpMs);
      while (performance.now() < warmAt) await askLoad({ ...job, pauseMs: 0 });
      const letSleep = keepAwake(bench.cores);
      for (let rep = 1; rep <= options.reps; rep += 1) {
        const { firstEvent, errors } = await askLoad({ ...job, pauseMs });
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
      await letSleep();
    }),
};
