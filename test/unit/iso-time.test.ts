/** Times as records write them. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isoTime } from '../../src/gateway/iso-time.ts';

it('is what toISOString gives, whatever times follow each other', () => {
  const time = fc.oneof(
    fc.integer({ min: 0, max: 4_102_444_800_000 }),
    fc.integer({ min: 1_795_000_000_000, max: 1_795_000_003_000 }),
  );
  fc.assert(
    fc.property(fc.array(time), (times) => {
      expect(times.map(isoTime)).toEqual(times.map((at) => new Date(at).toISOString()));
    }),
  );
});
