/** Names for requests that bring none. */
import { randomUUID } from 'node:crypto';

/** Ids that the 12 bits of the counter tell apart. */
const mostPerMillisecond = 0x1000;

let time = 0;
let prefix = '';
let suffix = '';
let count = 0;

/**
 * A UUID of version 7 (RFC 9562): milliseconds since 1970, a counter within the millisecond (section 6.2, method 1), and 62 random
 * bits that are drawn anew for each millisecond. Ids that grow with time stand side by side in the usage table's index; random
 * ones touch another page each, which makes a row four times as dear once there are 100,000.
 */
export function newRequestId(): string {
  const now = Date.now();
  if (now !== time || count === mostPerMillisecond) {
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
