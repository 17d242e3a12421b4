/** Who may call which upstream now: a bounded number at once, the rest in a queue that is fair between callers. */
import { GatewayError } from '../chat/errors.ts';

/** A place that a call can be served at. */
export interface Place {
  /** What shares one limit: a provider, or one model of it. */
  readonly pool: string;
  /** Calls at once; undefined = unlimited. May change while a call waits, so it is read anew each time. */
  readonly limit: number | undefined;
  readonly provider: string;
  readonly maxQueue: number;
}

/** A call's hold on a place. Release it exactly once; later calls of `release` do nothing. */
export interface Slot {
  /** @param afterMs keeps the slot taken for this long, for an upstream that notices late that it was left */
  release(afterMs?: number): void;
}

export interface WaitOptions {
  readonly callerId: string;
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** Told the place in the queue (1 is next) at once and whenever it changes. */
  readonly onPosition?: (position: number) => void;
}

interface Waiter<P extends Place> {
  readonly places: readonly P[];
  readonly callerId: string;
  readonly arrival: number;
  readonly onPosition: ((position: number) => void) | undefined;
  position: number;
  readonly admit: (place: P, slot: Slot) => void;
  readonly refuse: (error: GatewayError) => void;
}

/** Longest wait that a full queue's `retry-after` names, in seconds. */
const longestRetryAfter = 60;

export class Admission<P extends Place> {
  readonly #running = new Map<string, number>();
  readonly #waiters: Waiter<P>[] = [];
  readonly #served = new Map<string, number>();
  /** Per provider: how long a queued call waited per place in the queue, smoothed. Milliseconds. */
  readonly #pace = new Map<string, number>();
  #sequence = 0;
  #closed = false;

  running(pool: string): number {
    return this.#running.get(pool) ?? 0;
  }

  /** Free slots; Infinity where nothing limits them. */
  free(place: P): number {
    const { limit } = place;
    return limit === undefined ? Number.POSITIVE_INFINITY : limit - this.running(place.pool);
  }

  /** Calls that wait and count for this provider's queue. */
  queued(provider: string): number {
    let count = 0;
    for (const waiter of this.#waiters) if (waiter.places[0]?.provider === provider) count += 1;
    return count;
  }

  /** A slot now, or undefined. Nobody overtakes those who wait: where a limit grew, they go first. */
  tryAcquire(place: P): Slot | undefined {
    if (this.free(place) <= 0) return undefined;
    if (this.#waiters.length > 0) {
      this.recheck();
      if (this.free(place) <= 0) return undefined;
    }
    return this.#take(place);
  }

  /**
   * Waits until one of the places has a slot.
   * @throws GatewayError RATE_LIMITED if the queue is full, TIMEOUT if the wait was too long; the signal's reason if it fired
   */
  wait<C extends P>(
    places: readonly C[],
    options: WaitOptions,
  ): Promise<{ readonly place: C; readonly slot: Slot }> {
    const first = places[0];
    if (first === undefined) throw new Error('nowhere to wait for');
    if (options.signal.aborted) return Promise.reject(options.signal.reason);
    if (this.#closed) return Promise.reject(new GatewayError('SHUTTING_DOWN', { retryAfterSeconds: 1 }));
    const ahead = this.queued(first.provider);
    if (ahead >= first.maxQueue) {
      return Promise.reject(
        new GatewayError('RATE_LIMITED', {
          retryAfterSeconds: this.#retryAfter(first.provider, ahead),
          retryable: false,
        }),
      );
    }
    return new Promise((resolve, reject) => {
      const joinedAt = performance.now();
      let timer: NodeJS.Timeout | undefined;
      const leave = (): void => {
        clearTimeout(timer);
        options.signal.removeEventListener('abort', onAbort);
        const at = this.#waiters.indexOf(waiter);
        if (at >= 0) this.#waiters.splice(at, 1);
      };
      const onAbort = (): void => {
        leave();
        reject(options.signal.reason);
        this.#tellPositions();
      };
      const waiter: Waiter<P> = {
        places,
        callerId: options.callerId,
        arrival: this.#sequence++,
        onPosition: options.onPosition,
        position: 0,
        admit: (place, slot) => {
          leave();
          this.#learnPace(first.provider, (performance.now() - joinedAt) / (ahead + 1));
          // One of `places`, and so a C.
          resolve({ place: place as C, slot });
        },
        refuse: (error) => {
          leave();
          reject(error);
        },
      };
      if (options.timeoutMs > 0) {
        timer = setTimeout(() => {
          leave();
          reject(new GatewayError('TIMEOUT', { retryable: false }));
          this.#tellPositions();
        }, options.timeoutMs);
      }
      options.signal.addEventListener('abort', onAbort, { once: true });
      this.#waiters.push(waiter);
      this.#tellPositions();
    });
  }

  /** From now on nobody waits: who does is refused, and so is who would. Free places are still given. */
  close(): void {
    this.#closed = true;
    const error = new GatewayError('SHUTTING_DOWN', { retryAfterSeconds: 1 });
    for (const waiter of [...this.#waiters]) waiter.refuse(error);
  }

  /** Admits whom it can; for when a slot got free or limits grew. */
  recheck(): void {
    if (this.#waiters.length === 0) return;
    for (const waiter of this.#order()) {
      const place = waiter.places.find((candidate) => this.free(candidate) > 0);
      if (place === undefined) continue;
      this.#served.set(waiter.callerId, this.#sequence++);
      waiter.admit(place, this.#take(place));
    }
    this.#forgetIdleCallers();
    this.#tellPositions();
  }

  #take(place: P): Slot {
    const { pool } = place;
    this.#running.set(pool, this.running(pool) + 1);
    let held = true;
    return {
      release: (afterMs = 0) => {
        if (!held) return;
        held = false;
        if (afterMs > 0) setTimeout(() => this.#free(pool), afterMs).unref();
        else this.#free(pool);
      },
    };
  }

  #free(pool: string): void {
    const left = this.running(pool) - 1;
    if (left > 0) this.#running.set(pool, left);
    else this.#running.delete(pool);
    this.recheck();
  }

  /** Round robin: each caller's first waiting call, then each one's second, and so on; who was served last comes last. */
  #order(): Waiter<P>[] {
    const turns = new Map<string, number>();
    return this.#waiters
      .map((waiter) => {
        const turn = turns.get(waiter.callerId) ?? 0;
        turns.set(waiter.callerId, turn + 1);
        return { waiter, turn, served: this.#served.get(waiter.callerId) ?? -1 };
      })
      .sort(
        (one, other) =>
          one.turn - other.turn || one.served - other.served || one.waiter.arrival - other.waiter.arrival,
      )
      .map(({ waiter }) => waiter);
  }

  #tellPositions(): void {
    if (!this.#waiters.some((waiter) => waiter.onPosition !== undefined)) return;
    const positions = new Map<string, number>();
    for (const waiter of this.#order()) {
      const provider = waiter.places[0]?.provider ?? '';
      const position = (positions.get(provider) ?? 0) + 1;
      positions.set(provider, position);
      if (waiter.position === position) continue;
      waiter.position = position;
      waiter.onPosition?.(position);
    }
  }

  #learnPace(provider: string, milliseconds: number): void {
    const known = this.#pace.get(provider);
    this.#pace.set(provider, known === undefined ? milliseconds : known * 0.8 + milliseconds * 0.2);
  }

  #retryAfter(provider: string, ahead: number): number {
    const seconds = Math.ceil(((this.#pace.get(provider) ?? 1000) * (ahead + 1)) / 1000);
    return Math.min(longestRetryAfter, Math.max(1, seconds));
  }

  #forgetIdleCallers(): void {
    if (this.#served.size <= 1000) return;
    const waiting = new Set(this.#waiters.map((waiter) => waiter.callerId));
    for (const callerId of this.#served.keys()) if (!waiting.has(callerId)) this.#served.delete(callerId);
  }
}
