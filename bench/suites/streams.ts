/** Streams without pauses: events per second, processor time per event, time to the first event. */
import type { LoadJob } from '../load/jobs.ts';
import { chatBody, measure } from '../measure.ts';
import type { Running } from '../targets/target.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Suite, withAll } from './suite.ts';

const concurrency = 64;
/** Streams on each connection: enough events that processor time, counted in hundredths of a second, is exact. */
const rounds = { fast: 10, batched: 40 };
const quickRounds = { fast: 4, batched: 12 };

export const streams: Suite = {
  table: {
    suite: 'streams',
    title: `Streams, ${concurrency} at once, ${scripts.fast.chunks} events each, no pause`,
    compared: 'cpuMicros',
    columns: [
      { title: 'events/s', key: 'rate', digits: 0, over: 'median' },
      { title: 'CPU us/event', key: 'cpuMicros', digits: 2, over: 'median' },
      { title: 'first event p50 ms', key: 'first50', digits: 1, over: 'median' },
      { title: 'p99 ms', key: 'first99', digits: 1, over: 'median' },
      { title: 'core %', key: 'busy', digits: 0, over: 'median' },
      { title: 'streams', key: 'total', digits: 0, over: 'sum' },
      { title: 'failed', key: 'failed', digits: 0, over: 'sum' },
    ],
  },
  run: (bench) =>
    withAll(bench, async (all) => {
      const { options, askLoad } = bench;
      const turns = options.quick ? quickRounds : rounds;
      // What runs for the first time is compiled meanwhile, which would be charged to the first repetition.
      for (const running of all.values()) {
        for (const kind of ['batched', 'fast'] as const) await askLoad(jobOn(running, kind, turns[kind]));
      }
      for (let rep = 1; rep <= options.reps; rep += 1) {
        for (const kind of ['fast', 'batched'] as const) {
          for (const [target, running] of all) {
            const found = await measure(askLoad, running, jobOn(running, kind, turns[kind]));
            // What the upstream sent counts, so that dialects with more or fewer events of their own compare.
            const events = found.good * scripts[kind].chunks;
            bench.record({
              suite: 'streams',
              case: `${scripts[kind].eventsPerWrite} a write`,
              target,
              rep,
              errors: found.errors,
              values: {
                rate: (events / found.wallMs) * 1000,
                cpuMicros: (found.cpuSeconds * 1e6) / events,
                first50: found.firstEvent[0]?.p50 ?? Number.NaN,
                first99: found.firstEvent[0]?.p99 ?? Number.NaN,
                busy: (found.cpuSeconds / found.wallMs) * 1e5,
                total: found.good + found.bad,
                failed: found.bad,
              },
            });
          }
        }
      }
    }),
};

function jobOn(running: Running, kind: 'fast' | 'batched', turns: number): LoadJob {
  const script = scripts[kind];
  const endpoint = { ...running.endpoint, body: chatBody(nameOf(script), true, 1) };
  return { kind: 'streams', endpoint, concurrency, rounds: turns, events: script.chunks, ramp: 0 };
}
