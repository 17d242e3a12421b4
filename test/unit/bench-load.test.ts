/** The benchmark's load counts right: a figure that nobody checked is no figure. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createEventCounter } from '../../bench/load/events.ts';
import { type LoadJob, type LoadResult, quantiles } from '../../bench/load/jobs.ts';
import { createResponseReader } from '../../bench/load/response.ts';
import { connectTo } from '../../bench/process-messages.ts';
import { startScript, stopProcess } from '../../bench/processes.ts';
import { describeMeasurement, median, renderTable } from '../../bench/report.ts';
import { answers } from '../../bench/upstream/answers.ts';
import { models, nameOf, scriptOf, scripts } from '../../bench/upstream/script.ts';

/** Reads the bytes in pieces of these lengths, over and over. @returns one entry for each answer */
function read(
  bytes: Buffer,
  lengths: readonly number[],
): { status: number; events: number; done: boolean }[] {
  const counter = createEventCounter();
  const seen: { status: number; events: number; done: boolean }[] = [];
  const reader = createResponseReader({
    body: (piece, start, end) => counter.count(piece, start, end),
    end(status) {
      seen.push({ status, events: counter.events, done: counter.done });
      counter.reset();
    },
  });
  // A buffer that is reused, as the sockets' is: what a piece leaves behind must not be relied on.
  const shared = Buffer.alloc(bytes.length);
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const length = Math.min(lengths[turn % lengths.length] ?? 1, bytes.length - at);
    shared.fill('d');
    bytes.copy(shared, 0, at, at + length);
    reader(shared, length);
    at += length;
  }
  return seen;
}

function wholeStream(name: string): Buffer {
  const answer = answers.get(name);
  if (answer === undefined) throw new Error(`no answer for ${name}`);
  const { script, first, middle, last } = answer;
  const writes = script.chunks / script.eventsPerWrite - 1;
  return Buffer.concat([first, ...Array.from({ length: writes }, () => middle), last]);
}

const lengths = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 20 });

describe('the load process', () => {
  it.each([scripts.batched, scripts.single])(
    'counts every event of %j, wherever the bytes are split',
    (script) => {
      const stream = wholeStream(nameOf(script));
      // The finish and the usage are events too.
      const one = { status: 200, events: script.chunks + 2, done: true };
      fc.assert(
        fc.property(lengths, (pieces) => {
          expect(read(Buffer.concat([stream, stream]), pieces)).toEqual([one, one]);
        }),
        { numRuns: 50 },
      );
    },
  );

  it('reads whole answers one after the other', () => {
    const { first } = answers.get(nameOf(scripts.json)) ?? { first: Buffer.alloc(0) };
    fc.assert(
      fc.property(lengths, (pieces) => {
        expect(read(Buffer.concat([first, first, first]), pieces).map(({ status }) => status)).toEqual([
          200, 200, 200,
        ]);
      }),
      { numRuns: 50 },
    );
  });

  it('does not count comments', () => {
    const body = ': keep-alive\n\ndata: {"content":"a"}\n\n: keep-alive\n\ndata: [DONE]\n\n';
    const answer = `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    for (const length of [1, 3, 7, 1000]) {
      expect(read(Buffer.from(answer), [length])).toEqual([{ status: 200, events: 1, done: true }]);
    }
  });

  it('sees that a stream has no [DONE]', () => {
    const answer =
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n1\r\n\n\r\n0\r\n\r\n';
    expect(read(Buffer.from(answer), [5])).toEqual([{ status: 200, events: 1, done: false }]);
  });
});

describe('the figures', () => {
  it('are the middle of the repetitions', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });

  it('have the share of values below a quantile', () => {
    const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect(quantiles(hundred)).toEqual({ p50: 51, p99: 100, max: 100 });
  });
});

describe('the scripts', () => {
  it('are read from the names of the models that play them', () => {
    expect(models.map(scriptOf)).toEqual(Object.values(scripts));
    expect(scriptOf('qwen3-8b')).toBeUndefined();
  });
});

describe('a target that gives no good answer', () => {
  it('is told as such, in the progress and in the table, and does not end the run', async () => {
    const server = createServer((_request, response) => response.writeHead(500).end());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = z.object({ port: z.number() }).parse(server.address());
    const load = startScript(undefined, 'bench/load/load.process.ts');
    try {
      const ask = await connectTo<LoadJob, LoadResult>(load);
      const endpoint = { port, path: '/', headers: {}, body: '{}' };
      const found = await ask({ kind: 'json', endpoint, connections: 1, seconds: 0.1 });
      const measurement = {
        suite: 'json',
        case: 'one',
        target: 'broken',
        rep: 1,
        errors: found.errors,
        values: { p50: found.latency.p50, cpuMicros: 5 / found.good, failed: found.bad },
      };
      expect(describeMeasurement(measurement)).toMatch(
        /^json \| one \| broken \| failed \d.*no good answer \(.+\)$/,
      );
      const bare = {
        ...measurement,
        target: 'bare',
        errors: {},
        values: { p50: 1, cpuMicros: 2, failed: 0 },
      };
      const columns = [
        { title: 'p50', key: 'p50', digits: 1, over: 'median' },
        { title: 'cpu', key: 'cpuMicros', digits: 1, over: 'median' },
      ] as const;
      const table = renderTable({ suite: 'json', title: 'x', compared: 'cpuMicros', columns }, [
        bare,
        measurement,
        { ...measurement, rep: 2, errors: {}, values: { p50: 3, cpuMicros: 4, failed: 0 } },
      ]);
      expect(table).toContain('| one | broken | 3.0 | 4.0 | 2.00 |');
    } finally {
      await stopProcess(load);
      server.close();
    }
  }, 60_000);
});
