/** What the command line of the benchmark asks for. */
import { parseArgs } from 'node:util';

export const suiteNames = ['json', 'streams', 'slow', 'idle', 'leaving', 'growth'] as const;
export type SuiteName = (typeof suiteNames)[number];

export interface Options {
  readonly suites: readonly SuiteName[];
  readonly targets: readonly string[];
  readonly peers: readonly string[];
  /** Repetitions, over which the median is taken. */
  readonly reps: number;
  /** Of one JSON measurement. */
  readonly seconds: number;
  readonly connections: readonly number[];
  /** Sizes of the messages, in KB. */
  readonly bodies: readonly number[];
  /** How many slow streams at once. */
  readonly slow: readonly number[];
  /** Rows of the growth suite. */
  readonly rows: readonly number[];
  readonly quick: boolean;
}

export const help = `npm run bench -- [options]

  --suite a,b        json, streams, slow, idle, leaving, growth (default: all but growth)
  --targets a,b      direct, bare, gateway, gateway-v1, gateway-plain (default: all but the last)
  --peers a,b        nginx, portkey (default: none; portkey is installed into bench/peers)
  --reps N           repetitions, over which medians are taken (default 5)
  --seconds N        length of one JSON measurement (default 3)
  --connections a,b  connections of the JSON suite (default 1,32,256)
  --bodies a,b       sizes of the messages in KB, at 32 connections (default 1,40,400)
  --slow a,b         slow streams at once (default 1000,5000)
  --rows a,b         rows of the growth suite (default 10,1000,100000)
  --quick            the main figures in about a minute
`;

class OptionError extends Error {}

const list = (value: string): string[] => value.split(',').filter((item) => item !== '');

function numbers(name: string, value: string): number[] {
  return list(value).map((item) => {
    const number = Number(item);
    if (!(number > 0)) throw new OptionError(`--${name}: ${item} is not a number above 0`);
    return number;
  });
}

function isSuite(name: string): name is SuiteName {
  return suiteNames.some((known) => known === name);
}

/** @returns undefined where help was asked for @throws Error in one line */
export function readOptions(given: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...given],
    options: {
      suite: { type: 'string' },
      targets: { type: 'string' },
      peers: { type: 'string', default: '' },
      reps: { type: 'string' },
      seconds: { type: 'string' },
      connections: { type: 'string' },
      bodies: { type: 'string' },
      slow: { type: 'string' },
      rows: { type: 'string', default: '10,1000,100000' },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return undefined;
  const { quick } = values;
  const suites = list(values.suite ?? (quick ? 'json,streams,slow,idle' : 'json,streams,slow,idle,leaving'));
  const unknown = suites.find((name) => !isSuite(name));
  if (unknown !== undefined) throw new OptionError(`--suite: ${unknown} is none of ${suiteNames.join(', ')}`);
  return {
    suites: suites.filter(isSuite),
    targets: list(values.targets ?? 'direct,bare,gateway,gateway-v1'),
    peers: list(values.peers),
    reps: numbers('reps', values.reps ?? '')[0] ?? (quick ? 3 : 5),
    seconds: numbers('seconds', values.seconds ?? '')[0] ?? (quick ? 1 : 3),
    connections: numbers('connections', values.connections ?? (quick ? '32' : '1,32,256')),
    bodies: numbers('bodies', values.bodies ?? (quick ? '1' : '1,40,400')),
    slow: numbers('slow', values.slow ?? (quick ? '500' : '1000,5000')),
    rows: numbers('rows', values.rows),
    quick,
  };
}
