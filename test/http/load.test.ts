/** Many streams at once, and what the gateway adds to the first byte of one. */
import { loadavg } from 'node:os';
import { expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { chatBody, chatModel } from './prepare.ts';
import { stage } from './stage.ts';
import { deferred, readEvents, request } from './wire.ts';

it('64 streams of 200 chunks at once arrive complete and in order', async () => {
  const scene = await stage({ providers: [{ max_concurrency: 0 }] });
  scene.studio.always({ ...faults.chunks(200), gapMs: 1 });
  const answers = Array.from({ length: 64 }, () => scene.chat({ stream: true }));
  const expected = Array.from({ length: 200 }, (_, index) => `${index} `);
  for (const answer of answers) {
    expect(await answer.done).toBe('complete');
    const { deltas, terminal, done } = readEvents(answer.body);
    expect(deltas).toEqual(expected);
    expect(terminal).toMatchObject({ finish_reason: 'stop', usage: { output_tokens: 200 } });
    expect(done).toBe(true);
  }
  expect(scene.studio.maxRunning).toBe(64);
});

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

it('the first byte of a stream leaves within 2 ms of its arrival (median of 200, on an idle machine)', async () => {
  const scene = await stage();
  const delta = 'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n';
  const ending = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';

  /** From the upstream's write to the client's read. */
  async function firstByte(port: number, path: string, body: unknown): Promise<number> {
    const go = deferred();
    const script: LmStudioScript = { raw: { pieces: [go.promise, delta, ending] } };
    scene.studio.next(script);
    const asked = scene.studio.waitForRequest((one) => one.generation && one.closedAt === undefined);
    const answer = request(port, path, { body });
    await asked;
    // Headers and all else are on their way; what is measured is the first byte alone.
    await new Promise((resolve) => setTimeout(resolve, 2));
    const start = performance.now();
    go.resolve();
    await answer.until((text) => text.includes('"x"'));
    const took = (answer.times[0] ?? 0) - start;
    await answer.done;
    answer.leave();
    return took;
  }

  const messages = [{ role: 'user', content: '你好' }];
  const direct: number[] = [];
  const through: number[] = [];
  for (let round = 0; round < 220; round += 1) {
    const straight = { model: chatModel, messages, stream: true };
    const one = await firstByte(scene.studio.port, '/api/v0/chat/completions', straight);
    const other = await firstByte(scene.port, '/api/llm/chat', chatBody({ stream: true }));
    if (round < 20) continue;
    direct.push(one);
    through.push(other);
  }
  const added = median(through) - median(direct);
  console.log(
    `first byte: ${median(direct).toFixed(2)} ms straight, ${median(through).toFixed(2)} ms through the gateway, ${added.toFixed(2)} ms added`,
  );
  // A machine that does other things besides cannot tell; then only a gross mistake is one.
  const [load = 0] = loadavg();
  expect(added).toBeLessThan(load < 1 ? 2 : 25);
});
