import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const root = new URL('../../', import.meta.url);
const page = readFileSync(new URL('docs/lmstudio.md', root), 'utf8');
const named = [...page.matchAll(/`(test\/[\w./-]+)`/g)].map((match) => match[1] ?? '');

describe('docs/lmstudio.md', () => {
  it('names tests that exist', () => {
    expect(named.length).toBeGreaterThan(25);
    expect(named.filter((path) => !existsSync(new URL(path, root)))).toEqual([]);
  });

  it('has a test in every row on what LM Studio does wrong', () => {
    const [, section = ''] = page.split('## What LM Studio does wrong');
    const rows = section
      .split('\n')
      .filter((line) => line.startsWith('| ') && !line.startsWith('| LM Studio |'));
    expect(rows.length).toBeGreaterThan(20);
    for (const row of rows) expect(row).toMatch(/\| `test\/[^|]+\|$/);
  });

  it('names recorded cases that the conformance suite reads', () => {
    for (const path of named.filter((one) => one.startsWith('test/fixtures/'))) {
      expect(readdirSync(new URL(path, root))).toEqual(
        expect.arrayContaining(['request.json', 'expected.json']),
      );
    }
  });
});
