import fc from 'fast-check';
import { expect, it } from 'vitest';
import { findExcess } from '../../src/http/value-count.ts';

/** Lists and objects included, keys not. */
function countOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1;
  return Object.values(value).reduce<number>((sum, one) => sum + countOf(one), 1);
}

/** Padded with blanks, since a short text is not looked at. */
const excessOf = (text: string, values: number, members = 1000) =>
  findExcess(Buffer.from(`${' '.repeat(2 * values)}${text}`), { values, members });

it('counts the values of any JSON text as its parser does', () => {
  fc.assert(
    fc.property(fc.json(), fc.integer({ min: 0, max: 3 }), (text, indent) => {
      const value: unknown = JSON.parse(text);
      const written = JSON.stringify(value, null, indent);
      const count = countOf(value);
      expect(excessOf(written, count)).toBeUndefined();
      expect(excessOf(written, count - 1)).toBe('values');
    }),
  );
});

it('takes no bracket, comma or quote within a string for one', () => {
  expect(excessOf('["a,b,c", "\\",[{", "\\\\", {"k,\\"":1}]', 6)).toBeUndefined();
});

it('tells of an object of too many members, and not of a list, or of objects beside it', () => {
  expect(excessOf('{"a":1,"b":2,"c":3}', 100, 2)).toBe('members');
  expect(excessOf('[{"a":1,"b":2},{"a":[1,2,3],"b":2}]', 100, 2)).toBeUndefined();
});

it('is done with 20 MB in a moment', () => {
  const start = performance.now();
  expect(findExcess(Buffer.from(`["${'\\"'.repeat(10_000_000)}"]`), { values: 500_000, members: 10 })).toBe(
    undefined,
  );
  expect(performance.now() - start).toBeLessThan(1000);
});
