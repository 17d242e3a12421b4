/** Clients that leave: the upstream hears of it at once, nothing is tried again, and nothing is left behind. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { chatBody } from './prepare.ts';
import { type Stage, since, stage, startStage } from './stage.ts';
import { deferred, heartbeat, readEvents, request } from './wire.ts';

/** From the departure to the end of the upstream's socket. Milliseconds. */
const promptly = 100;

describe('a client that leaves', () => {
  let scene: Stage;

  beforeAll(async () => {
    scene = await startStage({ environment: { STREAM_COMMIT_MS: '200', HEARTBEAT_MS: '20' } });
  });
  afterAll(() => scene.close());
  beforeEach(() => scene.studio.reset());

  interface Phase {
    readonly name: string;
    readonly script: LmStudioScript;
    readonly stream: boolean;
    /** What the client has seen when it leaves; nothing if unset. */
    readonly seen?: (body: string) => boolean;
    readonly status: number;
  }
  const hasText = (body: string): boolean => body.includes('"content":"你"');
  const phases: readonly Phase[] = [
    { name: 'before the headers of a stream', script: faults.stall('start'), stream: true, status: 499 },
    { name: 'before the first text', script: faults.stall('headers'), stream: true, status: 499 },
    {
      name: 'between heartbeats before the first text',
      script: faults.stall('headers'),
      stream: true,
      seen: (body) => body.includes(heartbeat),
      status: 200,
    },
    {
      name: 'in the middle of the text',
      script: { ...faults.stall('after-text'), text: ['你', '好'], gapMs: 0 },
      stream: true,
      seen: hasText,
      status: 200,
    },
    {
      name: 'in the middle of a fast stream',
      script: { text: Array.from({ length: 10_000 }, () => '你'), gapMs: 1 },
      stream: true,
      seen: hasText,
      status: 200,
    },
    {
      name: 'before the headers of a plain answer',
      script: faults.stall('start'),
      stream: false,
      status: 499,
    },
    {
      name: 'in the middle of a plain answer',
      script: faults.stall('after-text'),
      stream: false,
      status: 499,
    },
  ];

  it.each(phases)('$name: the upstream socket is destroyed', async ({ script, stream, seen, status }) => {
    const id = randomUUID();
    scene.studio.always(script);
    const answer = scene.chat({ stream }, { 'x-request-id': id });
    const upstream = await scene.studio.waitForRequest();
    if (seen !== undefined) await answer.until(seen);
    const left = performance.now();
    answer.leave();
    await upstream.closed;
    expect(since(left)).toBeLessThan(promptly);
    expect(upstream.aborted).toBe(true);
    const row = await scene.usageOf(id);
    expect(row).toMatchObject({ ending: 'client_gone', status, attempts: 1, exact: 0 });
    expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(1);
  });

  it('during the wait for another try: it is not made', async () => {
    const id = randomUUID();
    scene.studio.always(faults.rateLimited('5'));
    const answer = scene.chat({}, { 'x-request-id': id });
    const first = await scene.studio.waitForRequest();
    await first.closed;
    answer.leave();
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'client_gone', attempts: 1 });
    expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(1);
  });

  it('has its heartbeats stopped with it', async () => {
    const id = randomUUID();
    scene.studio.next(faults.stall('headers'));
    const answer = scene.chat({ stream: true }, { 'x-request-id': id });
    await answer.until((body) => body.includes(heartbeat));
    answer.leave();
    const { duration_ms } = await scene.usageOf(id);
    expect(duration_ms).toBeLessThan(1000);
  });
});

describe('the place of a client that left', () => {
  it('is free at once when events had come', async () => {
    const scene = await stage({ providers: [{ max_concurrency: 1, abort_grace_ms: 5000 }] });
    scene.studio.next({ ...faults.stall('after-text'), text: ['你', '好'], gapMs: 0 });
    const first = scene.chat({ stream: true });
    await first.until((body) => body.includes('你'));
    const left = performance.now();
    first.leave();
    const second = scene.chat({ stream: true });
    await second.done;
    expect(since(left)).toBeLessThan(1000);
    expect(readEvents(second.body).terminal?.finish_reason).toBe('stop');
  });

  it('is free at once when the head of a plain answer had come', async () => {
    const scene = await stage({ providers: [{ max_concurrency: 1, abort_grace_ms: 5000 }] });
    // In the middle of its body.
    scene.studio.next(faults.stall('before-text'));
    const first = scene.chat({ stream: false });
    await scene.studio.waitForRequest((one) => one.generation);
    // Nothing tells from outside that the head has reached the gateway.
    await sleep(100);
    first.leave();
    const left = performance.now();
    const second = scene.chat({ stream: false });
    expect((await second.head).status).toBe(200);
    expect(since(left)).toBeLessThan(1000);
    await second.done;
  });

  it.each([
    { kind: 'stream', stream: true },
    { kind: 'plain answer', stream: false },
  ])('is free after abort_grace_ms when nothing had come of a $kind', async ({ stream }) => {
    const graceMs = 200;
    const scene = await stage({ providers: [{ max_concurrency: 1, abort_grace_ms: graceMs }] });
    scene.studio.next(faults.stall('start'));
    const first = scene.chat({ stream });
    const abandoned = await scene.studio.waitForRequest();
    first.leave();
    const left = performance.now();
    const second = scene.chat({ stream });
    const next = await scene.studio.waitForRequest((one) => one.generation && one !== abandoned);
    expect(next.receivedAt - left).toBeGreaterThanOrEqual(graceMs - 20);
    expect(next.receivedAt - left).toBeLessThan(graceMs + 300);
    expect((await second.head).status).toBe(200);
    await second.done;
  });

  it('in the queue goes to the next, and nobody else is disturbed', async () => {
    const scene = await stage({ providers: [{ max_concurrency: 1 }] });
    const progress = { stream: true, stream_options: { include_progress: true } };
    const rest = deferred();
    scene.studio.next({ ...faults.stall('after-text', rest.promise), text: ['你', '好'], gapMs: 0 });
    const running = scene.chat({ stream: true });
    await running.until((body) => body.includes('你'));
    const id = randomUUID();
    const leaving = scene.chat(progress, { 'x-request-id': id });
    await leaving.until((body) => body.includes('"position":1'));
    const staying = scene.chat(progress);
    await staying.until((body) => body.includes('"position":2'));
    leaving.leave();
    await staying.until((body) => body.includes('"position":1'));
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'client_gone', attempts: 0, provider: null });
    rest.resolve();
    await Promise.all([running.done, staying.done]);
    expect(readEvents(running.body).text).toBe('你好');
    expect(readEvents(staying.body).terminal?.finish_reason).toBe('stop');
    expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(2);
  });
});

describe('a thousand departures', () => {
  const departures = 1000;
  const atOnce = 50;

  it('leave no socket, timer or listener behind', async () => {
    const scene = await stage({
      environment: { STREAM_COMMIT_MS: '20', HEARTBEAT_MS: '10' },
      providers: [{ max_concurrency: 30, abort_grace_ms: 20 }],
    });
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on('warning', note);
    const settle = async (): Promise<void> => {
      await scene.chat({ stream: true }).done;
    };
    await settle();
    const resources = (): Record<string, number> => {
      const counts: Record<string, number> = {};
      for (const name of process.getActiveResourcesInfo()) counts[name] = (counts[name] ?? 0) + 1;
      // Connections are kept for the next calls, also those that were still being made when their client left. The gateway's
      // ends of them are not listed while nothing needs them.
      counts.TCPSocketWrap = (counts.TCPSocketWrap ?? 0) - scene.studio.openConnections();
      return counts;
    };
    const before = resources();
    scene.studio.always(faults.stall('headers'));
    const scripts: readonly LmStudioScript[] = [
      faults.stall('start'),
      faults.stall('headers'),
      { ...faults.stall('after-text'), text: ['你', '好'], gapMs: 0 },
      faults.rateLimited('5'),
    ];
    // Who leaves before the gateway has heard of it was never there: so each waits for a sign of it.
    const leave = async (index: number): Promise<void> => {
      const stream = index % 3 !== 0;
      const said = `departure ${index}.`;
      const answer = request(scene.port, '/api/llm/chat', {
        body: chatBody({ stream, messages: [{ role: 'user', content: said }] }),
      });
      if (stream && index % 5 === 0) await answer.head;
      else await scene.studio.waitForRequest((one) => one.text.includes(said));
      answer.leave();
    };
    for (let start = 0; start < departures; start += atOnce) {
      scene.studio.next(
        ...Array.from({ length: atOnce }, (_, index) => scripts[index % scripts.length] ?? {}),
      );
      await Promise.all(Array.from({ length: atOnce }, (_, index) => leave(start + index)));
    }
    scene.studio.always(undefined);
    scene.studio.reset();
    process.off('warning', note);
    await vi.waitFor(() => expect(scene.studio.running).toBe(0), { timeout: 3000, interval: 20 });
    await vi.waitFor(() => expect(scene.usage()).toHaveLength(departures + 1), {
      timeout: 3000,
      interval: 50,
    });
    await vi.waitFor(
      () => {
        const now = resources();
        for (const name of ['TCPSocketWrap', 'Timeout', 'TCPSERVERWRAP', 'HTTPINCOMINGMESSAGE']) {
          expect(`${name} ${Math.max(0, (now[name] ?? 0) - (before[name] ?? 0) - 2)}`).toBe(`${name} 0`);
        }
      },
      { timeout: 5000, interval: 50 },
    );
    expect(new Set(scene.usage().map((row) => row.ending))).toEqual(new Set(['client_gone', 'stop']));
    expect(warnings).toEqual([]);
    // What was kept is used again, and so not lost.
    const kept = scene.studio.openConnections();
    const rest = deferred();
    scene.studio.always(faults.stall('after-text', rest.promise));
    const calls = Array.from({ length: kept }, settle);
    await vi.waitFor(() => expect(scene.studio.running).toBe(kept), { interval: 10 });
    expect(scene.studio.openConnections()).toBe(kept);
    rest.resolve();
    await Promise.all(calls);
  });
});
