/** Names for requests that bring none, and for answers. */
import { randomUUID } from 'node:crypto';

/** What the 12 bits of the counter can tell apart. */
const counters = 0x1000;

let time = 0;
let count = 0;
/** What all ids of a millisecond have before their counter and behind it. */
let prefix = '';
let suffix = '';

/**
 * A UUID of version 7 (RFC 9562): milliseconds since 1970, a counter within the millisecond (section 6.2, method 1), and 62 random
 * bits that are drawn anew for each millisecond, and whenever its counter has come to its end. Ids that grow with time stand side by side in
 * the usage table's index; random ones touch another page each, which makes a row four times as dear once there are 100,000.
 */
export function newRequestId(): string {
  const now = Date.now();
  if (now !== time || count === counters) {
    const hex = now.toString(16).padStart(12, '0');
    prefix = `${hex.slice(0, 8)}-${hex.slice(8)}-7`;
    suffix = randomUUID().slice(18);
    time = now;
    count = 0;
  }
  const counter = count.toString(16).padStart(3, '0');
  count += 1;
  return prefix + counter + suffix;
}
