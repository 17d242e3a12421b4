/**
 * Counts the values of a JSON text in its bytes, before it is parsed: JSON.parse takes two seconds for 20 MB of empty objects, in which
 * nothing else runs, and this a hundredth of that. Judges nothing; of a text that is no JSON the count means nothing.
 */

const quote = 0x22;
const comma = 0x2c;
const openBracket = 0x5b;
const backslash = 0x5c;
const closeBracket = 0x5d;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const blank = 0x20;

/** Where the string ends whose first character is here: the place of its quote, or beyond the end. */
function endOfString(bytes: Buffer, from: number): number {
  let at = from;
  while (at < bytes.length && bytes[at] !== quote) at += bytes[at] === backslash ? 2 : 1;
  return at;
}

export interface ValueLimits {
  /** Of all depths, lists and objects included, keys not. */
  readonly values: number;
  /** Of one object: the time that many keys take is not that of as many values. */
  readonly members: number;
}

/** In place of a count of members, where a list is open. */
const list = Number.NEGATIVE_INFINITY;

/** What there is too much of. Stops as soon as there is; does not look at a text that is too short for so many values. */
export function findExcess(bytes: Buffer, most: ValueLimits): 'values' | 'members' | undefined {
  // A value takes a byte, and one more that parts it from the next.
  if (bytes.length < 2 * most.values) return undefined;
  // Every value but the first of a list or object stands behind a comma, and that one behind the bracket.
  let values = 1;
  let members = list;
  let before = 0;
  const outer: number[] = [];
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte <= blank) continue;
    if (byte === quote) at = endOfString(bytes, at + 1);
    else if (byte === comma) {
      values += 1;
      members += 1;
      if (members > most.members) return 'members';
    } else if (byte === openBracket || byte === openBrace) {
      values += 1;
      outer.push(members);
      members = byte === openBrace ? 1 : list;
    } else if (byte === closeBracket || byte === closeBrace) {
      // An empty one holds no first value.
      if (before === openBracket || before === openBrace) values -= 1;
      members = outer.pop() ?? list;
    }
    if (values > most.values + 1) return 'values';
    before = byte;
  }
  return values > most.values ? 'values' : undefined;
}
