/** What commands a terminal reaches none, whoever put it into a name or an error. */
import { describe, expect, it, vi } from 'vitest';
import { cleanLogLine } from '../../src/chat/controls.ts';
import { GatewayError, sanitizeWords } from '../../src/chat/errors.ts';
import { print, printJson, printTable } from '../../src/cli/output.ts';

const hostile = 'a\u001b[2Jb\u009b2Jc\u0007d\u202ee';

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
const commands = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

function written(work: () => void): string {
  let text = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  try {
    work();
  } finally {
    write.mockRestore();
  }
  return text;
}

describe('control characters', () => {
  it("are no part of an upstream's words", () => {
    expect(sanitizeWords(hostile)).toBe('a [2Jb 2Jc d e');
  });

  it('are no part of an error, whatever name it quotes', () => {
    expect(new GatewayError('FORBIDDEN', { detail: hostile }).message).toBe('无权限:a [2Jb 2Jc d e');
  });

  it('are no part of what a command prints, and no line break is part of a cell', () => {
    const lines = written(() => print(`${hostile}\n${hostile}`));
    const table = written(() => printTable(['NAME', 'ID'], [[`${hostile}\nx`, '1']]));
    for (const text of [lines, table]) expect(text).not.toMatch(commands);
    expect([lines, table].map((text) => text.trimEnd().split('\n').length)).toEqual([2, 2]);
  });

  it('are escaped in JSON, which still says the same', () => {
    const json = written(() => printJson({ title: hostile }));
    expect(json).not.toMatch(commands);
    expect(JSON.parse(json)).toEqual({ title: hostile });
  });

  it('are blanks in the log of a terminal, in which backslashes stay backslashes', () => {
    const line = JSON.stringify({ msg: hostile, path: 'C:\\u001b', stack: 'one\n\ttwo' });
    expect(JSON.parse(cleanLogLine(line))).toEqual({
      msg: 'a [2Jb 2Jc d e',
      path: 'C:\\u001b',
      stack: 'one\n\ttwo',
    });
  });
});
