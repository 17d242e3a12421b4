/** Names for requests that bring none. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { newRequestId } from '../../src/http/request-id.ts';

it('is a UUID of version 7 that names the millisecond of its making', () => {
  const before = Date.now();
  const id = newRequestId();
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const made = Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  expect(made).toBeGreaterThanOrEqual(before);
  expect(made).toBeLessThanOrEqual(Date.now());
});

it('is never the same, and never smaller than one of an earlier millisecond', () => {
  const ids = Array.from({ length: 20_000 }, newRequestId);
  expect(new Set(ids).size).toBe(ids.length);
  const prefixes = ids.map((id) => id.slice(0, 13));
  expect(prefixes).toEqual([...prefixes].sort());
});

describe('with a clock that is set', () => {
  const now = new Date('2026-11-22T12:00:00.123Z');

  beforeEach(() => void vi.useFakeTimers({ now, toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());

  it('are UUIDs of version 7 that begin with the time', () => {
    const id = newRequestId();
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)).toBe(now.getTime());
  });

  it('grow with time, and within a millisecond as well', () => {
    const ids: string[] = [];
    for (let ms = 0; ms < 3; ms += 1) {
      vi.setSystemTime(now.getTime() + 1000 + ms);
      for (let count = 0; count < 100; count += 1) ids.push(newRequestId());
    }
    expect(ids).toEqual([...ids].sort());
  });

  it('are all different, even where a millisecond has more of them than the counter can tell apart', () => {
    vi.setSystemTime(now.getTime() + 2000);
    const ids = Array.from({ length: 10_000 }, newRequestId);
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]/);
  });

  it('share no random bits between milliseconds', () => {
    const suffixes = [0, 1, 2].map((ms) => {
      vi.setSystemTime(now.getTime() + 3000 + ms);
      return newRequestId().slice(19);
    });
    expect(new Set(suffixes).size).toBe(3);
  });
});
