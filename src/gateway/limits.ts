/** The time limits of one streamed try: first event, silence between events, and the whole. Knows no protocol. */
import type { Timeouts } from '../config.ts';

/** The limits of one route. A total limit of its own ends its try alone; the configured one spans all tries of a call. */
export interface RouteTimeouts extends Timeouts {
  readonly totalIsOwn: boolean;
}

export type Limit = 'first event' | 'idle' | 'total';

/**
 * Watches one stream. The first-event limit runs until the first content, and starts anew when a model was loaded; the idle
 * limit runs from the first event on and is reset by each. Neither runs while a model loads, the idle limit also not
 * while a slow reader holds the upstream back.
 */
export class StreamLimits {
  readonly #timeouts: Timeouts;
  readonly #onExpired: (limit: Limit) => void;
  #first: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  readonly #total: NodeJS.Timeout | undefined;
  #answering = false;
  #loading = false;
  /** How many of its deliveries the reader has not taken yet. */
  #holds = 0;
  #stopped = false;

  /** @param totalMs what is left of the total limit; 0 = none */
  constructor(timeouts: Timeouts, totalMs: number, onExpired: (limit: Limit) => void) {
    this.#timeouts = timeouts;
    this.#onExpired = onExpired;
    this.#first = this.#start('first event', timeouts.firstEventMs);
    this.#total = this.#start('total', totalMs);
  }

  #start(limit: Limit, milliseconds: number): NodeJS.Timeout | undefined {
    return milliseconds > 0 ? setTimeout(() => this.#onExpired(limit), milliseconds) : undefined;
  }

  /** An event came. Comments are none. */
  event(): void {
    if (this.#stopped || this.#loading || this.#holds > 0) return;
    if (this.#idle !== undefined) this.#idle.refresh();
    else this.#idle = this.#start('idle', this.#timeouts.idleMs);
  }

  /** The model is being loaded (or, with false, is loaded now): minutes without a word are no failure. */
  loading(active: boolean): void {
    this.#loading = active;
    clearTimeout(this.#first);
    if (active) {
      this.#stopIdle();
    } else if (!this.#stopped) {
      if (!this.#answering) this.#first = this.#start('first event', this.#timeouts.firstEventMs);
      this.event();
    }
  }

  /** The first text, reasoning, tool call or finish came. */
  content(): void {
    this.#answering = true;
    clearTimeout(this.#first);
    this.#first = undefined;
  }

  /** The reader holds the upstream back: its silence is not the upstream's. */
  hold(): void {
    this.#holds += 1;
    this.#stopIdle();
  }

  endHold(): void {
    this.#holds -= 1;
    this.event();
  }

  #stopIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
  }

  /** The finish was said: what may follow it is waited for by a limit of its own, and within the total. */
  settle(): void {
    this.#stopped = true;
    clearTimeout(this.#first);
    clearTimeout(this.#idle);
  }

  /** The end: nothing expires any more. */
  stop(): void {
    this.settle();
    clearTimeout(this.#total);
  }
}
