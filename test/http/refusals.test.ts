/** What the log says of those who come without a key: that they came, and not a line for each time. */
import { expect, it, vi } from 'vitest';
import { spawnGateway } from './spawned.ts';

it('500 requests without a key are a line a second, with the count of the others', {
  timeout: 60_000,
}, async () => {
  const gateway = await spawnGateway({
    AUTH: 'on',
    ADMIN_API_KEY: 'the-administrators-own-key-0001',
    DATABASE_URL: 'sqlite::memory:',
  });
  const ask = () => fetch(`${gateway.url}/api/llm/models`).then((answer) => answer.status);
  const statuses = await Promise.all(Array.from({ length: 500 }, ask));
  expect(new Set(statuses)).toEqual(new Set([401]));
  const lines = () => gateway.log.filter(({ audit }) => audit === 'refusal');
  const told = () => lines().reduce((sum, line) => sum + Number(line['suppressed'] ?? 1), 0);
  await vi.waitFor(() => expect(told()).toBe(500), { timeout: 5000, interval: 50 });
  expect(lines().length).toBeLessThanOrEqual(6);
  expect(lines()[0]).toMatchObject({ level: 'warn', reason: 'no key', address: '127.0.0.1' });
});
