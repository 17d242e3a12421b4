/** What the log tells once for each name that an upstream makes up, and how many names it keeps. Knows no log. */
import { shortName } from './call.ts';

/** Names that are told of one source at most: the log is no list of whatever an upstream makes up. */
const mostNames = 100;

/** Bounded by the sources that ever were. */
export class ToldOnce {
  readonly #names = new Map<string, Set<string>>();

  /** The name as it is to be told; undefined where it was told, or enough were. */
  tell(source: string, name: string): string | undefined {
    const short = shortName(name);
    const known = this.#names.get(source) ?? new Set();
    if (known.has(short) || known.size >= mostNames) return undefined;
    this.#names.set(source, known.add(short));
    return short;
  }
}
