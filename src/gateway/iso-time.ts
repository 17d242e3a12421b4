/** Times as records write them. */

let second = Number.NaN;
let secondText = '';

/**
 * What `new Date(at).toISOString()` gives, at a fifth of its cost: times that follow each other are mostly of one second.
 * @param at milliseconds since 1970, a whole number
 */
export function isoTime(at: number): string {
  const itsSecond = Math.floor(at / 1000);
  if (itsSecond !== second) {
    secondText = new Date(itsSecond * 1000).toISOString().slice(0, 20);
    second = itsSecond;
  }
  return `${secondText}${String(at - itsSecond * 1000).padStart(3, '0')}Z`;
}
