/** What happens to calls, told to those who keep records of it. Knows none of them. */
import type { Call, Try } from './call.ts';

/** Each hook runs amid a call: it must be quick and must not throw. */
export interface Observer {
  /** @param headers of the client's request, by lower-case name */
  callStarted(call: Call, headers: Readonly<Record<string, string | string[] | undefined>>): void;
  /** Before the upstream's request is built. */
  tryStarted(call: Call, tried: Try): void;
  /** May come after the call's end, where the client left. */
  tryEnded(call: Call, tried: Try): void;
  /**
   * The response is over, whatever became of it; once per call.
   * @param status as it was answered, 499 where the client left before anything was
   */
  callEnded(call: Call, status: number): void;
}

/** One that tells each of them, in this order. */
export function joinObservers(observers: readonly Partial<Observer>[]): Observer {
  return {
    callStarted(call, headers) {
      for (const one of observers) one.callStarted?.(call, headers);
    },
    tryStarted(call, tried) {
      for (const one of observers) one.tryStarted?.(call, tried);
    },
    tryEnded(call, tried) {
      for (const one of observers) one.tryEnded?.(call, tried);
    },
    callEnded(call, status) {
      for (const one of observers) one.callEnded?.(call, status);
    },
  };
}
