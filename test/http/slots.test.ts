/** The places of an LM Studio while calls wait for one. */
import { expect, it, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { jsonOf } from './gateway.ts';
import { chatModel } from './prepare.ts';
import { stage } from './stage.ts';
import { deferred } from './wire.ts';

it('grow with the next list of models, without a call that ends or comes', async () => {
  const models = (parallel: number) => [{ id: chatModel, type: 'llm' as const, loaded: true, parallel }];
  const scene = await stage({ studios: [{ models: models(1) }] });
  const rest = deferred();
  scene.studio.always(faults.stall('start', rest.promise));
  const answers = [scene.chat(), scene.chat(), scene.chat()];
  await vi.waitFor(() => expect(scene.studio.running).toBe(1));

  scene.studio.setModels(models(2));
  const providers = await jsonOf(await fetch(`${scene.url}/api/admin/providers`));
  const [{ id }] = providers.data.filter((provider: { key: string }) => provider.key === 'lmstudio');
  const checked = await fetch(`${scene.url}/api/admin/providers/${id}/check`, { method: 'POST' });
  expect(checked.ok).toBe(true);

  await vi.waitFor(() => expect(scene.studio.running).toBe(2));
  rest.resolve();
  for (const answer of answers) expect((await answer.head).status).toBe(200);
});

it('are waited for without using up the total limit', async () => {
  const models = [{ id: chatModel, type: 'llm' as const, loaded: true, parallel: 1 }];
  const scene = await stage({ studios: [{ models }], environment: { UPSTREAM_TOTAL_TIMEOUT_MS: '1500' } });
  scene.studio.always({ hold: 1000 });
  const answers = [scene.chat(), scene.chat(), scene.chat()];
  const statuses = await Promise.all(answers.map(async ({ head }) => (await head).status));
  expect(statuses).toEqual([200, 200, 200]);
});
