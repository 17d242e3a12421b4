/** What the load process can be asked for, and what it tells. All times in milliseconds. */

/** One request, again and again. */
export interface Endpoint {
  readonly port: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export type LoadJob =
  | {
      readonly kind: 'json';
      readonly endpoint: Endpoint;
      readonly connections: number;
      readonly seconds: number;
    }
  | {
      readonly kind: 'streams';
      readonly endpoint: Endpoint;
      readonly concurrency: number;
      /** Streams one after the other on each connection. */
      readonly rounds: number;
      /** Fewest events of a complete stream. */
      readonly events: number;
      /** New connections per second; 0: all at once. */
      readonly ramp: number;
    }
  | {
      readonly kind: 'first-event';
      /** One after the other, each one request at a time. */
      readonly endpoints: readonly Endpoint[];
      /** Of each. */
      readonly samples: number;
      readonly pauseMs: number;
    }
  | {
      readonly kind: 'leaving';
      readonly endpoint: Endpoint;
      readonly perSecond: number;
      readonly seconds: number;
    };

export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface LoadResult {
  /** Answers or streams that were good. */
  readonly good: number;
  readonly bad: number;
  /** What was wrong, and how often. */
  readonly errors: Readonly<Record<string, number>>;
  readonly wallMs: number;
  /** Of whole answers. */
  readonly latency: Quantiles;
  /** One for each endpoint. */
  readonly firstEvent: readonly Quantiles[];
  /** Each stream's largest silence between two events. */
  readonly largestGap: Quantiles;
}

export function quantiles(values: readonly number[]): Quantiles {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}
