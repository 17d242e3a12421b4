import { expect, it } from 'vitest';
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
