/** What becomes of calls whose key is revoked, or whose time comes, while they run or wait. */
import { expect, it } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { type Team, team } from './administrator.ts';
import { since } from './stage.ts';
import { deferred, readEvents, type WireAnswer } from './wire.ts';

const message = '无权限:API Key 已撤销或过期';

interface Scene extends Team {
  readonly id: number;
  chatWith(body?: Readonly<Record<string, unknown>>): WireAnswer;
}

/** One slot, and an upstream that begins its answers and never ends them. */
async function slowScene(settings: Readonly<Record<string, unknown>> = {}): Promise<Scene> {
  const scene = await team({ providers: [{ max_concurrency: 1 }] });
  scene.studio.always(faults.stall('after-text', deferred().promise));
  const { id, key } = await scene.createKey(settings);
  return { ...scene, id, chatWith: (body = {}) => scene.chat(body, { authorization: `Bearer ${key}` }) };
}

async function endingOf(scene: Team): Promise<string[]> {
  await expect.poll(() => scene.usage().length, { timeout: 3000 }).toBeGreaterThan(0);
  return scene.usage().map(({ ending }) => ending);
}

it('a stream ends with an error chunk, and its upstream is closed', async () => {
  const scene = await slowScene();
  const answer = scene.chatWith({ stream: true });
  await answer.until((body) => body.includes('content'));
  const start = performance.now();
  await scene.change('DELETE', `/keys/${scene.id}`, 1);
  expect(await answer.done).toBe('complete');
  expect(since(start)).toBeLessThan(2500);
  const { chunks, done } = readEvents(answer.body);
  expect(done).toBe(true);
  expect(chunks.at(-1)).toMatchObject({
    finish_reason: 'error',
    error: { code: 403, type: 'FORBIDDEN', message },
  });
  await scene.studio.requests.at(-1)?.closed;
  expect(await endingOf(scene)).toEqual(['revoked']);
});

it('a plain call is a 403', async () => {
  const scene = await slowScene();
  const answer = scene.chatWith();
  await scene.studio.waitForRequest();
  await scene.change('DELETE', `/keys/${scene.id}`, 1);
  expect((await answer.head).status).toBe(403);
  await answer.done;
  expect(JSON.parse(answer.body)).toEqual({ code: 403, message, data: null });
  expect(await endingOf(scene)).toEqual(['revoked']);
});

it('a queued call ends too, and never reaches its upstream', async () => {
  const scene = await slowScene();
  const other = await scene.createKey();
  const running = scene.chat({ stream: true }, { authorization: `Bearer ${other.key}` });
  await running.until((body) => body.includes('content'));
  const queued = scene.chatWith({ stream: true, stream_options: { include_progress: true } });
  await queued.until((body) => body.includes('"stage":"queued"'));
  await scene.change('DELETE', `/keys/${scene.id}`, 1);
  expect(await queued.done).toBe('complete');
  expect(readEvents(queued.body).chunks.at(-1)).toMatchObject({ error: { code: 403, message } });
  expect(scene.studio.requests.filter(({ method }) => method === 'POST')).toHaveLength(1);
  running.leave();
});

it('a key whose time comes ends its calls too, and nobody else’s', async () => {
  const expires = new Date(Date.now() + 1500).toISOString();
  const scene = await slowScene({ expires_at: expires });
  const answer = scene.chatWith({ stream: true });
  expect(await answer.done).toBe('complete');
  expect(answer.body).toContain('"type":"FORBIDDEN"');
  expect((await scene.chatWith().head).status).toBe(401);
});
