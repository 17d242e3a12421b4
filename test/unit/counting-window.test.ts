import { describe, expect, it } from 'vitest';
import { CountingWindow } from '../../src/gateway/counting-window.ts';

/** A minute's window, and the count of a name at a time in seconds. */
function minute() {
  const window = new CountingWindow();
  return {
    window,
    at: (seconds: number, name = 'a') => window.of(name, seconds * 1000, (seconds + 60) * 1000),
  };
}

describe('a count', () => {
  it("runs from a name's first use until its span is over, and then starts from 0", () => {
    const { at } = minute();
    at(0).points += 2;
    at(59.9).points += 3;
    expect(at(59.999)).toEqual({ points: 5, endsAt: 60_000 });
    expect(at(60)).toEqual({ points: 0, endsAt: 120_000 });
  });

  it('is of one name', () => {
    const { at } = minute();
    at(0, 'a').points += 1;
    at(30, 'b').points += 5;
    expect([at(59, 'a'), at(59, 'b')]).toEqual([
      { points: 1, endsAt: 60_000 },
      { points: 5, endsAt: 90_000 },
    ]);
  });

  it('starts anew where the clock was set back: its end would be hours away', () => {
    const { at } = minute();
    at(7200).points += 5;
    expect(at(3600)).toEqual({ points: 0, endsAt: 3_660_000 });
  });
});

describe('a name', () => {
  it('is forgotten when another begins after its span was over', () => {
    const { window, at } = minute();
    for (let second = 0; second < 1000; second += 1) at(second, `address ${second}`);
    expect(window.size).toBe(60);
  });

  it('that is used again and again is kept behind those that are not', () => {
    const { window, at } = minute();
    for (let second = 0; second < 1000; second += 1) {
      at(second, 'busy');
      at(second, `address ${second}`);
    }
    expect(window.size).toBe(61);
  });
});
