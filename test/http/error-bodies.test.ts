/** An upstream that has told its status but not its words: what is known is told, and soon. */
import { expect, it } from 'vitest';
import type { Cut } from '../simulators/script.ts';
import { since, stage } from './stage.ts';

const words = '{"error":{"message":"Bad request"}}';

/** A refusal whose body does not end as it should. */
const refusal = (status: number, ending: Cut | 'hang', length = words.length) => ({
  raw: {
    status,
    headers: { 'content-type': 'application/json', 'content-length': String(length) },
    pieces: [words],
    ending,
  },
});

it.each([true, false])('a refusal whose body never ends is told within 4 s (stream: %s)', async (stream) => {
  const scene = await stage();
  scene.studio.next(refusal(400, 'hang', 1000));
  const start = performance.now();
  const answer = scene.chat({ stream });
  expect((await answer.head).status).toBe(400);
  await answer.done;
  expect(answer.body).toContain('Bad request');
  expect(since(start)).toBeLessThan(4000);
  const [request] = scene.studio.requests.filter((one) => one.generation);
  await request?.closed;
  expect(scene.studio.running).toBe(0);
});

it('a refusal whose body is cut is still a refusal, and not tried again', async () => {
  const scene = await stage();
  scene.studio.next(refusal(422, 'destroy', 1000));
  const answer = scene.chat();
  expect((await answer.head).status).toBe(400);
  expect(scene.studio.requests.filter((one) => one.generation)).toHaveLength(1);
});

it('a failure whose body is cut is tried again by its status', async () => {
  const scene = await stage();
  scene.studio.next(refusal(503, 'destroy', 1000));
  const answer = scene.chat();
  expect((await answer.head).status).toBe(200);
});
