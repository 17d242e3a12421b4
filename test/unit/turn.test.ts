import { expect, it } from 'vitest';
import { atEndOfTurn, endOfTurn } from '../../src/turn.ts';

it('runs what was asked for behind all that is under way, in its order', async () => {
  const seen: string[] = [];
  atEndOfTurn(() => seen.push('first'));
  atEndOfTurn(() => seen.push('second'));
  process.nextTick(() => seen.push('tick'));
  await Promise.resolve().then(() => seen.push('microtask'));
  await endOfTurn();
  expect(seen).toEqual(['microtask', 'tick', 'first', 'second']);
});

it('lets those who wait go on step by step together', async () => {
  const seen: string[] = [];
  const work = async (name: string): Promise<void> => {
    await endOfTurn();
    seen.push(`${name} 1`);
    await Promise.resolve();
    seen.push(`${name} 2`);
  };
  await Promise.all([work('a'), work('b')]);
  expect(seen).toEqual(['a 1', 'b 1', 'a 2', 'b 2']);
});

it('leaves to the next turn what is asked for at the end of one', async () => {
  const seen: string[] = [];
  atEndOfTurn(() => atEndOfTurn(() => seen.push('next')));
  await endOfTurn();
  expect(seen).toEqual([]);
  await endOfTurn();
  expect(seen).toEqual(['next']);
});

it('runs the others where one throws', async () => {
  const seen: string[] = [];
  const caught: unknown[] = [];
  const earlier = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.once('uncaughtException', (error) => caught.push(error));
  try {
    atEndOfTurn(() => seen.push('before'));
    atEndOfTurn(() => {
      throw new Error('thrown at the end of a turn');
    });
    atEndOfTurn(() => seen.push('behind'));
    await endOfTurn();
    expect(seen).toEqual(['before', 'behind']);
    expect(caught).toEqual([new Error('thrown at the end of a turn')]);
  } finally {
    for (const listener of earlier) process.on('uncaughtException', listener);
  }
});
