/** Names for requests that bring none, and for answers. */
import { randomUUID } from 'node:crypto';

/** All that the 12 bits of the counter can say. */
const counters = Array.from({ length: 0x1000 }, (_, value) => value.toString(16).padStart(3, '0'));

let time = 0;
let count = 0;
/** What all ids of a millisecond have before their counter and behind it, with and without dashes. */
let prefix = '';
let suffix = '';
let bare = { prefix, suffix };

/** Three digits that no other id of this millisecond has. */
function nextCounter(): string {
  const now = Date.now();
  if (now !== time || count === counters.length) {
    const hex = now.toString(16).padStart(12, '0');
    prefix = `${hex.slice(0, 8)}-${hex.slice(8)}-7`;
    suffix = randomUUID().slice(18);
    bare = { prefix: `${hex}7`, suffix: suffix.replaceAll('-', '') };
    time = now;
    count = 0;
  }
  const counter = counters[count] ?? '';
  count += 1;
  return counter;
}

/**
 * A UUID of version 7 (RFC 9562): milliseconds since 1970, a counter within the millisecond (section 6.2, method 1), and 62 random
 * bits that are drawn anew for each millisecond. Ids that grow with time stand side by side in the usage table's index; random
 * ones touch another page each, which makes a row four times as dear once there are 100,000.
 */
export function newRequestId(): string {
  const counter = nextCounter();
  return prefix + counter + suffix;
}

/** The same as 32 hexadecimal digits. */
export function newHexId(): string {
  const counter = nextCounter();
  return bare.prefix + counter + bare.suffix;
}
