/** Times as the database keeps them. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { utcTime } from '../../src/gateway/utc-time.ts';

it('is what toISOString gives, but for the Z, whatever times follow each other', () => {
  const time = fc.oneof(
    fc.integer({ min: 0, max: 4_102_444_800_000 }),
    fc.integer({ min: 1_795_000_000_000, max: 1_795_000_003_000 }),
    fc.constantFrom(1_795_000_000_001, 1_795_000_000_002),
  );
  fc.assert(
    fc.property(fc.array(time), (times) => {
      expect(times.map(utcTime)).toEqual(times.map((at) => new Date(at).toISOString().slice(0, -1)));
    }),
  );
});
