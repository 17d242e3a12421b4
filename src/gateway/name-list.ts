/** Names that callers made up, as one short line of ASCII for a header or the log. */

/** How many names it holds, and how many bytes it may take. */
const mostNames = 20;
const mostBytes = 1024;

/** In percent-encoding, as all of the list. */
const ellipsis = encodeURIComponent('…');

/** Percent-encoded, as many as fit. */
export function nameList(names: readonly string[]): string {
  let list = '';
  for (const [index, name] of names.entries()) {
    const separator = index === 0 ? '' : ', ';
    const encoded = encodeURIComponent(name.slice(0, mostBytes).toWellFormed());
    const isLast = index === names.length - 1;
    const room = mostBytes - (isLast ? 0 : ', '.length + ellipsis.length);
    if (index === mostNames || list.length + separator.length + encoded.length > room) {
      return `${list}${separator}${ellipsis}`;
    }
    list += separator + encoded;
  }
  return list;
}
