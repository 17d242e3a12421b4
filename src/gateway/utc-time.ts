/** Times as the database keeps them. */

let last = Number.NaN;
let lastText = '';
let lastSecond = Number.NaN;
/** All of it but the milliseconds. */
let lastSecondText = '';

/**
 * `YYYY-MM-DDTHH:MM:SS.sss`, in UTC. Calls that end together mostly began together: they share one text, which is also what the
 * rows that wait for the disk keep of it.
 * @param at milliseconds since 1970, a whole number
 */
export function utcTime(at: number): string {
  if (at === last) return lastText;
  const second = Math.floor(at / 1000);
  if (second !== lastSecond) {
    lastSecondText = new Date(second * 1000).toISOString().slice(0, -'000Z'.length);
    lastSecond = second;
  }
  lastText = lastSecondText + String(at - second * 1000).padStart(3, '0');
  last = at;
  return lastText;
}
