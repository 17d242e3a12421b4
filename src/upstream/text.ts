/** What the bytes of a body are as text, and what they look like. Knows no connection and no wire. */

const byteOrderMark = '\ufeff';

/** A body as text, without the byte order mark that some servers put before it. */
export function plainText(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  return text.startsWith(byteOrderMark) ? text.slice(1) : text;
}

/** Empty where they are no text: bytes that nobody decoded are shown to nobody. A last character may be cut. */
export function strictText(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
  } catch {
    return '';
  }
}

/** `events`: server-sent events. `document`: one text, JSON where all is well. */
export type BodyShape = 'events' | 'document';

/** White space, and the three bytes of a byte order mark. */
const sayNothing = new Set([0x09, 0x0a, 0x0d, 0x20, 0xef, 0xbb, 0xbf]);

/** How a line of server-sent events begins; nothing before the colon is a comment. */
const fields = ['data:', 'event:', 'id:', 'retry:', ':'];

const longestField = 6;

/**
 * What a body is by its first significant bytes, whatever its head declares; that decides only where they can be either. Undefined as
 * long as none came.
 */
export function shapeOf(bytes: Buffer, declared: BodyShape): BodyShape | undefined {
  const at = bytes.findIndex((byte) => !sayNothing.has(byte));
  if (at < 0) return undefined;
  const start = bytes.toString('latin1', at, at + longestField);
  if (/^[[{]/.test(start)) return 'document';
  // A read may have ended in the middle of the name.
  return fields.some((field) => start.startsWith(field) || field.startsWith(start)) ? 'events' : declared;
}
