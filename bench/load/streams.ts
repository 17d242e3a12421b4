/** The load jobs for streams: many at once, one at a time, and those whose clients leave. */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createEventCounter } from './events.ts';
import { type Endpoint, type LoadJob, type LoadResult, type Quantiles, quantiles } from './jobs.ts';
import { createResponseReader } from './response.ts';
import { openSocket, requestBytes } from './socket.ts';

const timeoutMs = 90_000;

interface StreamReport {
  /** Empty: complete. */
  readonly failure: string;
  readonly totalMs: number;
  readonly firstEventMs: number;
  readonly largestGapMs: number;
}

interface StreamClient {
  /** Opens one stream after the other on the same connection. */
  run(): Promise<StreamReport>;
  close(): void;
}

/** A connection that counts events and times them; it connects anew after a failure. */
function createStreamClient(endpoint: Endpoint, expectedEvents: number): StreamClient {
  const request = requestBytes(endpoint);
  const counter = createEventCounter();
  let socket: Socket | undefined;
  let startedAt = 0;
  let firstAt = 0;
  let lastAt = 0;
  let largestGap = 0;
  let settle: ((failure: string) => void) | undefined;

  const reader = () =>
    createResponseReader({
      body(bytes, start, end) {
        const before = counter.events;
        counter.count(bytes, start, end);
        if (counter.events === before) return;
        const now = performance.now();
        if (before === 0) firstAt = now;
        else if (now - lastAt > largestGap) largestGap = now - lastAt;
        lastAt = now;
      },
      end(status) {
        if (status !== 200) settle?.(`status ${status}`);
        else if (counter.events < expectedEvents) settle?.(`only ${counter.events} events`);
        else settle?.(counter.done ? '' : 'no [DONE]');
      },
    });

  const connect = (): Socket => {
    const opened = openSocket(endpoint.port, reader(), (reason) => {
      if (socket !== opened) return;
      socket = undefined;
      settle?.(reason || 'closed early');
    });
    return opened;
  };

  return {
    run: () =>
      new Promise((resolve) => {
        const timer = setTimeout(() => settle?.('timeout'), timeoutMs);
        settle = (failure) => {
          settle = undefined;
          clearTimeout(timer);
          if (failure !== '') {
            socket?.destroy();
            socket = undefined;
          }
          const totalMs = performance.now() - startedAt;
          resolve({ failure, totalMs, firstEventMs: firstAt - startedAt, largestGapMs: largestGap });
        };
        counter.reset();
        firstAt = 0;
        largestGap = 0;
        socket ??= connect();
        startedAt = performance.now();
        socket.write(request);
      }),
    close() {
      const closing = socket;
      socket = undefined;
      closing?.destroy();
    },
  };
}

interface Tally {
  readonly add: (report: StreamReport) => void;
  readonly result: (firstEvent?: readonly Quantiles[]) => LoadResult;
}

function createTally(): Tally {
  const begun = performance.now();
  const complete: StreamReport[] = [];
  const errors: Record<string, number> = {};
  let bad = 0;
  return {
    add(report) {
      if (report.failure === '') {
        complete.push(report);
        return;
      }
      bad += 1;
      errors[report.failure] = (errors[report.failure] ?? 0) + 1;
    },
    result: (firstEvent = [quantiles(complete.map((one) => one.firstEventMs))]) => ({
      good: complete.length,
      bad,
      errors,
      wallMs: performance.now() - begun,
      latency: quantiles(complete.map((one) => one.totalMs)),
      firstEvent,
      largestGap: quantiles(complete.map((one) => one.largestGapMs)),
    }),
  };
}

export async function loadStreams(job: Extract<LoadJob, { kind: 'streams' }>): Promise<LoadResult> {
  const tally = createTally();
  const runSlot = async (_: unknown, index: number): Promise<void> => {
    if (job.ramp > 0) await sleep((index * 1000) / job.ramp);
    const client = createStreamClient(job.endpoint, job.events);
    for (let round = 0; round < job.rounds; round += 1) tally.add(await client.run());
    client.close();
  };
  await Promise.all(Array.from({ length: job.concurrency }, runSlot));
  return tally.result();
}

export async function loadFirstEvents(job: Extract<LoadJob, { kind: 'first-event' }>): Promise<LoadResult> {
  const tally = createTally();
  const clients = job.endpoints.map((endpoint) => createStreamClient(endpoint, 1));
  const times: number[][] = job.endpoints.map(() => []);
  for (const [index, client] of clients.entries()) {
    for (let sample = 0; sample < job.samples; sample += 1) {
      const report = await client.run();
      const { failure } = report;
      tally.add(failure === '' ? report : { ...report, failure: `endpoint ${index}: ${failure}` });
      if (failure === '') times[index]?.push(report.firstEventMs);
      if (job.pauseMs > 0) await sleep(job.pauseMs);
    }
  }
  for (const client of clients) client.close();
  return tally.result(times.map(quantiles));
}

/** Clients come at an even pace; each leaves 1 to 500 ms after it asked, whatever it has got by then. */
export async function loadLeaving(job: Extract<LoadJob, { kind: 'leaving' }>): Promise<LoadResult> {
  const tally = createTally();
  const request = requestBytes(job.endpoint);
  const visit = (index: number): Promise<void> =>
    new Promise((resolve) => {
      let left = false;
      const begun = performance.now();
      const report = (failure: string): void => {
        const totalMs = performance.now() - begun;
        tally.add({ failure, totalMs, firstEventMs: 0, largestGapMs: 0 });
        resolve();
      };
      const socket = openSocket(
        job.endpoint.port,
        () => {},
        (reason) => report(left ? '' : reason || 'closed early'),
      );
      socket.write(request);
      setTimeout(
        () => {
          left = true;
          socket.destroy();
        },
        // A stride that has no divisor with 500 spreads the moments evenly, and the same way in every run.
        1 + ((index * 137) % 500),
      );
    });
  const begun = performance.now();
  const visits: Promise<void>[] = [];
  const total = job.perSecond * job.seconds;
  while (visits.length < total) {
    const due = Math.min(total, Math.ceil(((performance.now() - begun) / 1000) * job.perSecond));
    while (visits.length < due) visits.push(visit(visits.length));
    await sleep(2);
  }
  await Promise.all(visits);
  return tally.result();
}
