/** The idle limit of a stream whose reader is slow. */
import { beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import { StreamLimits } from '../../src/gateway/limits.ts';

const timeouts = { connectMs: 0, firstEventMs: 0, idleMs: 1000, totalMs: 0 };
const longer = 1001;

let limits: StreamLimits;
const expired = vi.fn();

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  expired.mockClear();
  limits = new StreamLimits(timeouts, 0, expired);
  limits.event();
});

it('does not run while the reader is behind, also not when something that is not for it still comes', () => {
  limits.hold();
  limits.event();
  vi.advanceTimersByTime(longer);
  expect(expired).not.toHaveBeenCalled();
});

it('does not run before the last of two holds has ended', () => {
  limits.hold();
  limits.hold();
  limits.endHold();
  vi.advanceTimersByTime(longer);
  expect(expired).not.toHaveBeenCalled();
  limits.endHold();
  vi.advanceTimersByTime(longer);
  expect(expired).toHaveBeenCalledExactlyOnceWith('idle');
});

it('does not run before a model is loaded, whatever the reader does meanwhile', () => {
  limits.hold();
  limits.loading(true);
  limits.endHold();
  vi.advanceTimersByTime(longer);
  expect(expired).not.toHaveBeenCalled();
  limits.hold();
  limits.loading(false);
  vi.advanceTimersByTime(longer);
  expect(expired).not.toHaveBeenCalled();
  limits.endHold();
  vi.advanceTimersByTime(longer);
  expect(expired).toHaveBeenCalledExactlyOnceWith('idle');
});
