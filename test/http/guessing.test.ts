/** Keys cannot be guessed at speed, and guessing locks nobody else out. */
import { describe, expect, it } from 'vitest';
import { adminKey, type Team, team } from './administrator.ts';
import { chatBody } from './prepare.ts';

const guess = (position: number): string => `sk-gw-${String(position).padStart(43, '0')}`;

async function guessMany(
  { ask }: Team,
  count: number,
  headers: Record<string, string> = {},
): Promise<number[]> {
  const answers = await Promise.all(
    Array.from({ length: count }, (_, position) =>
      ask(guess(position), 'GET', '/api/llm/models', undefined, headers),
    ),
  );
  return answers.map(({ status }) => status);
}

const count = (statuses: readonly number[], status: number): number =>
  statuses.filter((one) => one === status).length;

describe('wrong keys', () => {
  it('are a 401 thirty times a minute, then a 429 that says when to come back', async () => {
    const scene = await team();
    const statuses = await guessMany(scene, 50);
    expect([count(statuses, 401), count(statuses, 429)]).toEqual([30, 20]);
    const refused = await scene.ask(guess(1), 'GET', '/api/llm/models');
    expect(refused.headers.get('x-error-code')).toBe('RATE_LIMITED');
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(50);
  });

  it('are counted together for all addresses of one IPv6 network', async () => {
    const scene = await team({ environment: { TRUST_PROXY: 'true' } });
    const statuses = await Promise.all(
      Array.from({ length: 40 }, async (_, position) => {
        const headers = { 'x-forwarded-for': `2001:db8:0:1::${position.toString(16)}` };
        return (await scene.ask(guess(position), 'GET', '/api/llm/models', undefined, headers)).status;
      }),
    );
    expect([count(statuses, 401), count(statuses, 429)]).toEqual([30, 10]);
  });

  it('keep no right key out, also from the same address', async () => {
    const scene = await team();
    const { key } = await scene.createKey();
    const [, ...answers] = await Promise.all([
      guessMany(scene, 200),
      ...Array.from({ length: 20 }, () => scene.ask(key, 'POST', '/api/llm/chat', chatBody())),
      scene.ask(adminKey, 'GET', '/api/admin/keys'),
    ]);
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  });

  it('of one address do not count for another', async () => {
    const scene = await team({ environment: { TRUST_PROXY: 'true' } });
    await guessMany(scene, 40, { 'x-forwarded-for': '10.0.0.1' });
    expect(await guessMany(scene, 1, { 'x-forwarded-for': '10.0.0.2' })).toEqual([401]);
    expect(await guessMany(scene, 1, { 'x-forwarded-for': '10.0.0.1' })).toEqual([429]);
  });

  it("cannot hide behind another's address where no proxy is trusted", async () => {
    const scene = await team();
    const statuses = [];
    for (let i = 0; i < 31; i += 1) {
      statuses.push(...(await guessMany(scene, 1, { 'x-forwarded-for': `10.0.0.${i}` })));
    }
    expect(statuses.at(-1)).toBe(429);
  });

  it('are also those that were good once', async () => {
    const scene = await team();
    const { key } = await scene.createKey({ expires_at: '2020-01-01' });
    for (let i = 0; i < 30; i += 1) await scene.ask(key, 'GET', '/v1/models');
    expect((await scene.ask(key, 'GET', '/v1/models')).status).toBe(429);
  });

  it('are not requests without any', async () => {
    const { ask } = await team();
    for (let i = 0; i < 40; i += 1) expect((await ask(undefined, 'GET', '/v1/models')).status).toBe(401);
  });

  it('matter to no route that is open to all', async () => {
    const { ask } = await team();
    for (let i = 0; i < 40; i += 1) expect((await ask(guess(i), 'GET', '/healthz')).status).toBe(200);
  });
});
