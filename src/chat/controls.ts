/** Characters that command a terminal instead of being shown on it, and how each kind of text is freed of them. Pure. */

/** C0, DEL and C1 (U+009B alone is what ESC and [ are together), and what turns the direction of writing. */
const commands = '\\u0000-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069';

const runs = new RegExp(`[${commands}]+`, 'g');
const runsInLines = new RegExp(`(?:(?![\\t\\n])[${commands}])+`, 'g');
const beyondAscii = /[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** One line of text: whatever commands, line breaks included, is a blank. */
export const withoutControls = (text: string): string => text.replace(runs, ' ');

/** Text of several lines, which keeps its line breaks and tabs. */
export const linesWithoutControls = (text: string): string => text.replace(runsInLines, ' ');

/** The same JSON, in which nothing commands; JSON.stringify has escaped the rest. */
export const escapeControls = (json: string): string =>
  json.replace(beyondAscii, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** Escapes in JSON text, read in pairs so that an escaped backslash is never taken for the begin of the next one. */
const jsonEscapes = /\\(?:u[\da-f]{4}|.)/gi;
const commandEscape = /^\\(?:u00[0189][\da-f]|u007f|[bfr])$/i;

/** A log line in JSON whose strings command nothing once they are read; line breaks and tabs stay, as stacks have them. */
export const cleanLogLine = (line: string): string =>
  line.replace(jsonEscapes, (found) => (commandEscape.test(found) ? ' ' : found)).replace(beyondAscii, ' ');
