/** How many calls an upstream gets at once, and what those who wait get. */
import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { findProvider, updateProvider } from '../../src/store/providers.ts';
import { faults } from '../simulators/faults.ts';
import { ask } from './ask.ts';
import { chatBody, chatModel } from './prepare.ts';
import { type Stage, type StageOptions, since, stage } from './stage.ts';
import { deferred, heartbeat, readEvents, type WireAnswer } from './wire.ts';

const withProgress = { stream: true, stream_options: { include_progress: true } };

/** A stage whose upstream answers begin and then wait for `rest`. */
async function busyStage(
  options: StageOptions,
): Promise<Stage & { readonly rest: ReturnType<typeof deferred<void>> }> {
  const scene = await stage(options);
  const rest = deferred();
  scene.studio.always(faults.stall('after-text', rest.promise));
  return { ...scene, rest };
}

async function occupy(scene: Stage): Promise<WireAnswer> {
  const answer = scene.chat({ stream: true });
  await answer.until((body) => body.includes('content'));
  return answer;
}

async function settle(answers: readonly WireAnswer[]): Promise<void> {
  for (const answer of answers) {
    await answer.done;
    expect((await answer.head).status).toBe(200);
  }
}

describe('at once', () => {
  const model = { id: chatModel, type: 'llm' as const };

  it.each<[string, StageOptions, number]>([
    ['max_concurrency of the provider', { providers: [{ max_concurrency: 2 }] }, 2],
    [
      'max_concurrency also where the model would take more',
      {
        providers: [{ max_concurrency: 2 }],
        studios: [{ models: [{ ...model, loaded: true, parallel: 8 }] }],
      },
      2,
    ],
    ['parallel of the loaded model', { studios: [{ models: [{ ...model, loaded: true, parallel: 3 }] }] }, 3],
    ['4 where the model is not loaded', { studios: [{ models: [model] }] }, 4],
    [
      '4 where LM Studio is too old to tell',
      { studios: [{ generation: 'v0', models: [{ ...model, loaded: true }] }] },
      4,
    ],
  ])('%s', async (_name, options, limit) => {
    const scene = await busyStage(options);
    const answers = Array.from({ length: limit }, () => scene.chat({ stream: true }));
    await Promise.all(answers.map((answer) => answer.until((body) => body.includes('content'))));
    const waiting = scene.chat(withProgress);
    await waiting.until((body) => body.includes('"stage":"queued","position":1'));
    scene.rest.resolve();
    await settle([...answers, waiting]);
    expect(scene.studio.maxRunning).toBe(limit);
  });

  it('any number where max_concurrency is 0', async () => {
    const scene = await busyStage({ providers: [{ max_concurrency: 0 }] });
    const answers = Array.from({ length: 12 }, () => scene.chat({ stream: true }));
    await Promise.all(answers.map((answer) => answer.until((body) => body.includes('content'))));
    scene.rest.resolve();
    await settle(answers);
    expect(scene.studio.maxRunning).toBe(12);
  });

  it('the models of one LM Studio do not share their places', async () => {
    const other = 'qwen2-vl-7b-instruct';
    const models = [chatModel, other].map((id) => ({ id, type: 'llm' as const, loaded: true, parallel: 1 }));
    const scene = await busyStage({ studios: [{ models }] });
    const first = await occupy(scene);
    const second = scene.chat({ stream: true, model: other });
    await second.until((body) => body.includes('content'));
    scene.rest.resolve();
    await settle([first, second]);
  });

  it('as many as another process sets while some wait', async () => {
    const scene = await busyStage({ providers: [{ max_concurrency: 1 }] });
    const answers = [await occupy(scene), scene.chat(withProgress), scene.chat(withProgress)];
    await answers[2]?.until((body) => body.includes('"position":2'));
    const store = await openStore(scene.file);
    const row = await findProvider(store.db, 'lmstudio');
    await updateProvider(store.db, row?.id ?? 0, { max_concurrency: 3 });
    await store.close();
    await Promise.all(answers.map((answer) => answer.until((body) => body.includes('"content":"你'))));
    expect(scene.studio.maxRunning).toBe(3);
    scene.rest.resolve();
    await settle(answers);
  });
});

describe('the queue', () => {
  it('is fair between callers, whoever came first', async () => {
    const scene = await stage({ providers: [{ max_concurrency: 1 }] });
    const rest = deferred();
    scene.studio.next(faults.stall('after-text', rest.promise));
    const running = await occupy(scene);
    const waiting: WireAnswer[] = [];
    const queue = async (from: string, name: string): Promise<void> => {
      const body = chatBody({ ...withProgress, messages: [{ role: 'user', content: name }] });
      const answer = ask(scene.port, '/api/llm/chat', { from, body });
      waiting.push(answer);
      await answer.until((text) => text.includes('"stage":"queued"'));
    };
    for (const name of ['a1', 'a2', 'a3']) await queue('127.0.0.2', name);
    for (const name of ['b1', 'b2']) await queue('127.0.0.3', name);
    await queue('127.0.0.4', 'c1');
    rest.resolve();
    await settle([running, ...waiting]);
    const order = scene.studio.requests.flatMap((one) => /"([abc]\d)"/.exec(one.text)?.[1] ?? []);
    expect(order).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
  });

  it('tells a client that asked for progress its place, each time that it moves', async () => {
    const scene = await stage({ providers: [{ max_concurrency: 1 }] });
    const rests = [deferred(), deferred()];
    scene.studio.next(...rests.map(({ promise }) => faults.stall('after-text', promise)));
    const first = await occupy(scene);
    const second = scene.chat({ stream: true });
    // Anybody who is told a place behind another's is in the queue behind it.
    const third = scene.chat(withProgress);
    await third.until((body) => body.includes('"position":'));
    rests[0]?.resolve();
    await first.done;
    rests[1]?.resolve();
    await settle([second, third]);
    const { chunks, terminal } = readEvents(third.body);
    const places = chunks.flatMap(({ progress }) =>
      JSON.stringify(progress)?.includes('"queued"') ? [progress] : [],
    );
    expect(places).toEqual([
      { stage: 'queued', position: 2 },
      { stage: 'queued', position: 1 },
    ]);
    expect(terminal).toMatchObject({ finish_reason: 'stop', route: { provider: 'lmstudio', attempts: 1 } });
  });

  it('keeps other streams alive after the commit time', async () => {
    const scene = await busyStage({
      environment: { STREAM_COMMIT_MS: '50', HEARTBEAT_MS: '30' },
      providers: [{ max_concurrency: 1 }],
    });
    const running = await occupy(scene);
    const waiting = scene.chat({ stream: true });
    await waiting.until((body) => body === `${heartbeat}\n\n`.repeat(3));
    scene.rest.resolve();
    await settle([running, waiting]);
    expect(readEvents(waiting.body).terminal?.finish_reason).toBe('stop');
  });

  it('refuses with 429 and a retry-after when max_queue wait already', async () => {
    const scene = await busyStage({ providers: [{ max_concurrency: 1, max_queue: 2 }] });
    const answers = [await occupy(scene), scene.chat(withProgress), scene.chat(withProgress)];
    await answers[2]?.until((body) => body.includes('queued'));
    await answers[1]?.until((body) => body.includes('queued'));
    const id = randomUUID();
    const refused = scene.chat({}, { 'x-request-id': id });
    const { status, headers } = await refused.head;
    expect(status).toBe(429);
    expect(headers['x-error-code']).toBe('RATE_LIMITED');
    expect(Number(headers['retry-after'])).toBeGreaterThanOrEqual(1);
    expect(await scene.usageOf(id)).toMatchObject({ ending: 'rejected', status: 429, attempts: 0 });
    scene.rest.resolve();
    await settle(answers);
  });

  it('refuses at once where max_queue is 0', async () => {
    const scene = await busyStage({ providers: [{ max_concurrency: 1, max_queue: 0 }] });
    const running = await occupy(scene);
    expect((await scene.chat().head).status).toBe(429);
    scene.rest.resolve();
    await settle([running]);
  });

  it.each([
    { kind: 'plain', stream: false },
    { kind: 'streamed', stream: true },
  ])('gives up with 504 after QUEUE_TIMEOUT_MS ($kind)', async ({ stream }) => {
    const scene = await busyStage({
      environment: { QUEUE_TIMEOUT_MS: '100' },
      providers: [{ max_concurrency: 1 }],
    });
    const running = await occupy(scene);
    const id = randomUUID();
    const start = performance.now();
    const waiting = scene.chat({ stream }, { 'x-request-id': id });
    const { status, headers } = await waiting.head;
    expect(since(start)).toBeGreaterThan(60);
    expect(status).toBe(504);
    expect(headers['x-error-code']).toBe('TIMEOUT');
    const row = await scene.usageOf(id);
    expect(row).toMatchObject({ ending: 'timeout', attempts: 0, status: 504 });
    expect(row.queued_ms).toBeGreaterThan(60);
    scene.rest.resolve();
    await settle([running]);
  });

  it('gives up in the terminal chunk where the headers have left', async () => {
    const scene = await busyStage({
      environment: { QUEUE_TIMEOUT_MS: '100' },
      providers: [{ max_concurrency: 1 }],
    });
    const running = await occupy(scene);
    const waiting = scene.chat(withProgress);
    await waiting.done;
    expect(readEvents(waiting.body).terminal).toMatchObject({
      finish_reason: 'error',
      error: { code: 504, type: 'TIMEOUT' },
    });
    scene.rest.resolve();
    await settle([running]);
  });

  it('records how long a call waited', async () => {
    const scene = await busyStage({ providers: [{ max_concurrency: 1 }] });
    const running = await occupy(scene);
    const id = randomUUID();
    const waiting = ask(scene.port, '/api/llm/chat', {
      body: chatBody(withProgress),
      headers: { 'x-request-id': id },
    });
    await waiting.until((body) => body.includes('queued'));
    setTimeout(scene.rest.resolve, 120);
    await settle([running, waiting]);
    const { queued_ms } = await scene.usageOf(id);
    expect(queued_ms).toBeGreaterThan(60);
  });
});
