/** How commands print: tables for people, JSON for programs. */
import { escapeControls, linesWithoutControls, withoutControls } from '../chat/controls.ts';

/** Chinese, Japanese and Korean characters take two columns of a terminal. */
const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}]/u;

function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += wide.test(character) ? 2 : 1;
  return width;
}

/** Names come from upstreams and callers: none of them commands the terminal. */
export function print(text: string): void {
  process.stdout.write(`${linesWithoutControls(text)}\n`);
}

/** What is said beside the result. */
export function printError(text: string): void {
  process.stderr.write(`${linesWithoutControls(text)}\n`);
}

export function printJson(value: unknown): void {
  print(escapeControls(JSON.stringify(value, null, 2)));
}

/** Aligned columns under their headings; says `(none)` where there is no row. */
export function printTable(headings: readonly string[], rows: readonly (readonly string[])[]): void {
  if (rows.length === 0) {
    print('(none)');
    return;
  }
  const lines = [headings, ...rows].map((line) => line.map(withoutControls));
  const widths = headings.map((_, column) =>
    lines.reduce((widest, line) => Math.max(widest, widthOf(line[column] ?? '')), 0),
  );
  const padded = lines.map((line) =>
    line
      .map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell)))
      .join('  ')
      .trimEnd(),
  );
  print(padded.join('\n'));
}

export const yesNo = (value: boolean): string => (value ? 'yes' : 'no');
