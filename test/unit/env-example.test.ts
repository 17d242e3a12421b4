/** .env.example and the README's table say what src/config.ts does. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { environmentSchema } from '../../src/config.ts';

const read = (name: string): string => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');

/** A variable's default as a person would write it into .env; empty where there is none. */
const defaults = new Map(
  Object.entries({
    ...Object.fromEntries(Object.keys(environmentSchema.shape).map((name) => [name, ''])),
    ...environmentSchema.parse({}),
  }).map(([name, value]) => [name, value === undefined ? '' : String(value)]),
);

describe('.env.example', () => {
  const lines = read('.env.example').split('\n');
  const entries = lines.flatMap((line, index) => {
    const match = /^# ([A-Z][A-Z_0-9]*)=(.*)$/.exec(line);
    return match === null
      ? []
      : [{ name: match[1] ?? '', value: match[2] ?? '', before: lines[index - 1] ?? '' }];
  });

  it('names every variable of the schema once, with its default, and no other', () => {
    expect(entries.map(({ name, value }) => [name, value]).sort()).toEqual([...defaults].sort());
  });

  it('sets nothing, so that a plain copy changes nothing', () => {
    expect(lines.filter((line) => line !== '' && !line.startsWith('#'))).toEqual([]);
  });

  it('explains each variable in the line above it', () => {
    for (const { name, before } of entries) expect(before, name).toMatch(/^# [A-Za-z].{10,}$/);
  });
});

describe.runIf(existsSync(new URL('../../README.md', import.meta.url)))('the configuration table', () => {
  const documents = ['README.md', 'README.zh-CN.md'].filter((name) =>
    existsSync(new URL(`../../${name}`, import.meta.url)),
  );

  it.each(documents)('of %s has a row for every variable, with its default', (document) => {
    const rows = [...read(document).matchAll(/^\| `([A-Z][A-Z_0-9]*)` \| ([^|]*) \|/gm)];
    expect(rows.map((row) => row[1]).sort()).toEqual([...defaults.keys()].sort());
    for (const [, name = '', cell = ''] of rows) {
      const value = defaults.get(name);
      // Where the code has no fixed default, the cell says in words what holds.
      if (value === '') expect(cell.trim(), name).not.toBe('');
      else expect(cell.trim(), name).toBe(`\`${value}\``);
    }
  });
});
