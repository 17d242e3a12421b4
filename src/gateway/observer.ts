/** What happens to calls, told to those who keep records of it. Knows none of them. */
import type { Call, Try } from './call.ts';

/** Each hook but the last runs amid a call: it must be quick, and none may throw. */
export interface Observer {
  /** @param headers of the client's request, by lower-case name */
  callStarted(call: Call, headers: Readonly<Record<string, string | string[] | undefined>>): void;
  /** Before the upstream's request is built. */
  tryStarted(call: Call, tried: Try): void;
  /** May come after the call's end, where the client left. */
  tryEnded(call: Call, tried: Try): void;
  /** Their responses are over, whatever became of them; each call once, and those that ended together at once. */
  callsEnded(ended: readonly EndedCall[]): void;
}

export interface EndedCall {
  readonly call: Call;
  /** As it was answered, 499 where the client left before anything was. */
  readonly status: number;
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
    callsEnded(ended) {
      for (const one of observers) one.callsEnded?.(ended);
    },
  };
}
