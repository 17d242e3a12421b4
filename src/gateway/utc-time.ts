/** Times as the database keeps them. */

let last = Number.NaN;
let lastText = '';

/**
 * `YYYY-MM-DDTHH:MM:SS.sss`, in UTC. Calls that end together mostly began together: they share one text, which is also what the
 * rows that wait for the disk keep of it.
 * @param at milliseconds since 1970, a whole number
 */
export function utcTime(at: number): string {
  if (at !== last) {
    lastText = new Date(at).toISOString().slice(0, -1);
    last = at;
  }
  return lastText;
}
