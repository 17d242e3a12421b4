/** The load job for whole answers: every connection sends its next request when the last one is answered. */
import { type LoadJob, type LoadResult, quantiles } from './jobs.ts';
import { createResponseReader } from './response.ts';
import { openSocket, requestBytes } from './socket.ts';

const nothing = { p50: 0, p99: 0, max: 0 };

export async function loadAnswers(job: Extract<LoadJob, { kind: 'json' }>): Promise<LoadResult> {
  const request = requestBytes(job.endpoint);
  const latencies: number[] = [];
  const errors: Record<string, number> = {};
  let bad = 0;
  const fail = (reason: string): void => {
    bad += 1;
    errors[reason] = (errors[reason] ?? 0) + 1;
  };
  const begun = performance.now();
  const deadline = begun + job.seconds * 1000;

  const runConnection = (): Promise<void> =>
    new Promise((resolve) => {
      let sentAt = 0;
      const reader = createResponseReader({
        body: () => {},
        end(status) {
          const now = performance.now();
          if (status === 200) latencies.push(now - sentAt);
          else fail(`status ${status}`);
          if (now >= deadline) socket.destroy();
          else send();
        },
      });
      const socket = openSocket(job.endpoint.port, reader, (reason) => {
        if (performance.now() < deadline) fail(reason || 'closed early');
        resolve();
      });
      const send = (): void => {
        sentAt = performance.now();
        socket.write(request);
      };
      socket.once('connect', send);
    });

  await Promise.all(Array.from({ length: job.connections }, runConnection));
  return {
    good: latencies.length,
    bad,
    errors,
    wallMs: performance.now() - begun,
    latency: quantiles(latencies),
    firstEvent: [nothing],
    largestGap: nothing,
  };
}
