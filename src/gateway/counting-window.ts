/** Counts what each name uses up of a span of time, such as a minute. Knows no limit and reads no clock. */

/** What a name has used since its span began. */
export interface Count {
  points: number;
  /** When it starts from 0 again. Unix milliseconds. */
  readonly endsAt: number;
}

export class CountingWindow {
  /** In the order in which they began. */
  readonly #counts = new Map<string, Count>();

  /**
   * The count of a name, to be read and added to before its span is over.
   * @param endsAt when a span ends that begins now
   */
  of(name: string, now: number, endsAt: number): Count {
    const known = this.#counts.get(name);
    // One that ends later than a new one would was begun by a clock that has been set back since.
    if (known !== undefined && known.endsAt > now && known.endsAt <= endsAt) return known;
    for (const [other, count] of this.#counts) {
      if (count.endsAt > now) break;
      this.#counts.delete(other);
    }
    const begun = { points: 0, endsAt };
    this.#counts.set(name, begun);
    return begun;
  }

  /** How many names it keeps. Those whose span is over leave when another's begins. */
  get size(): number {
    return this.#counts.size;
  }
}
