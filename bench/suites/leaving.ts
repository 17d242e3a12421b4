/** A thousand clients a second that leave before their stream ends: whether the upstream learns of it, and what is left over. */
import { chatBody, measure } from '../measure.ts';
import { memoryKb, until } from '../processes.ts';
import { nameOf, scripts } from '../upstream/script.ts';
import { type Suite, withFresh } from './suite.ts';

const perSecond = 1000;

export const leaving: Suite = {
  table: {
    suite: 'leaving',
    title: `${perSecond} clients a second that leave within half a second`,
    columns: [
      { title: 'clients', key: 'clients', digits: 0, over: 'sum' },
      { title: 'failed', key: 'failed', digits: 0, over: 'sum' },
      { title: 'CPU us/client', key: 'cpuMicros', digits: 0, over: 'median' },
      { title: 'upstream streams', key: 'streams', digits: 0, over: 'median' },
      { title: 'still open after', key: 'open', digits: 0, over: 'max' },
      { title: 'closed within ms', key: 'closedMs', digits: 0, over: 'max' },
      { title: 'grew by MB', key: 'grownMb', digits: 1, over: 'median' },
    ],
  },
  async run(bench) {
    const { options, askLoad, askUpstream } = bench;
    const body = chatBody(nameOf(scripts.slow), true, 1);
    const stats = async (kind: 'stats' | 'reset') => {
      const seen = await askUpstream({ kind });
      if (typeof seen === 'number') throw new Error('the upstream told no statistics');
      return seen;
    };
    for (let rep = 1; rep <= options.reps; rep += 1) {
      for (const target of bench.targets.filter(({ name }) => name !== 'direct')) {
        await withFresh(bench, target, async (running) => {
          const endpoint = { ...running.endpoint, body };
          const job = { kind: 'leaving', endpoint, perSecond } as const;
          await askLoad({ ...job, seconds: 1 });
          await until('the upstream is quiet', 15, async () => (await stats('stats')).active === 0);
          await stats('reset');
          const found = await measure(askLoad, running, { ...job, seconds: options.quick ? 2 : 5 });
          const ended = performance.now();
          // A target that never tells the upstream shows as streams that are still open.
          await until('all upstream streams close', 3, async () => (await stats('stats')).active === 0).catch(
            () => {},
          );
          const closedMs = performance.now() - ended;
          const { streams, active } = await stats('stats');
          bench.record({
            suite: 'leaving',
            case: '1 to 500 ms',
            target: target.name,
            rep,
            errors: found.errors,
            values: {
              clients: found.good + found.bad,
              failed: found.bad,
              cpuMicros: (found.cpuSeconds * 1e6) / (found.good + found.bad),
              streams,
              open: active,
              closedMs,
              grownMb: (memoryKb(running.pid) - found.memoryBeforeKb) / 1024,
            },
          });
        });
        await until('the upstream is quiet', 15, async () => (await stats('stats')).active === 0);
      }
    }
  },
};
