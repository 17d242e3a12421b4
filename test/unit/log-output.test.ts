/** Log lines and a reader that takes nothing, over real pipes. */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { LogOutput } from '../../src/log-output.ts';

/**
 * A pipe whose writes do not block, and what its reader finds in it now. The writing end stays open: an output that still holds
 * lines tries again after its test, and would write into whatever is opened next under the same number.
 */
function makePipe(): { readonly descriptor: number; take(): string } {
  const folder = mkdtempSync(path.join(tmpdir(), 'log-'));
  const file = path.join(folder, 'pipe');
  spawnSync('mkfifo', [file]);
  const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const descriptor = openSync(file, constants.O_WRONLY | constants.O_NONBLOCK);
  onTestFinished(() => {
    closeSync(reader);
    rmSync(folder, { recursive: true });
  });
  const buffer = Buffer.alloc(1 << 20);
  return {
    descriptor,
    take() {
      let taken = '';
      try {
        for (;;) {
          const count = readSync(reader, buffer);
          if (count === 0) return taken;
          taken += buffer.toString('latin1', 0, count);
        }
      } catch {
        return taken;
      }
    },
  };
}

const line = (number: number): string => `${String(number).padStart(8, '0')} ${'x'.repeat(990)}\n`;
const countBreaks = (text: string): number => text.split('\n').length - 1;
const numbersIn = (text: string): number[] =>
  text
    .trimEnd()
    .split('\n')
    .map((one) => Number(one.slice(0, 8)));

it('gives a reader that comes back whole lines in order, and counts exactly those that it dropped', async () => {
  const { descriptor, take } = makePipe();
  const output = new LogOutput(descriptor);
  const given = 6000;
  for (let number = 0; number < given; number += 1) output.write(line(number));
  let read = '';
  await expect
    .poll(
      () => {
        read += take();
        // A line is there when its end is.
        return countBreaks(read) + output.dropped;
      },
      { timeout: 25_000 },
    )
    .toBe(given);
  expect(output.dropped).toBeGreaterThan(1000);
  expect(numbersIn(read)).toEqual(Array.from({ length: given - output.dropped }, (_, index) => index));
  output.write(line(given));
  await expect.poll(take).toBe(line(given));
}, 40_000);

it('takes a line in no time while nobody reads', () => {
  const { descriptor } = makePipe();
  const output = new LogOutput(descriptor);
  const startedAt = performance.now();
  for (let number = 0; number < 20_000; number += 1) output.write(line(number));
  expect(performance.now() - startedAt).toBeLessThan(5000);
});

it('holds up an end by a third of a second at most', () => {
  const { descriptor } = makePipe();
  const output = new LogOutput(descriptor);
  for (let number = 0; number < 1000; number += 1) output.write(line(number));
  const startedAt = performance.now();
  output.end();
  expect(performance.now() - startedAt).toBeLessThan(5000);
});

it('writes at the end what was held back until then', () => {
  const { descriptor, take } = makePipe();
  const output = new LogOutput(descriptor);
  output.write(line(1));
  expect(take()).toBe('');
  output.end();
  expect(take()).toBe(line(1));
});

it('survives a full disk', async () => {
  // Stays open, as the pipes do.
  const output = new LogOutput(openSync('/dev/full', 'w'));
  for (let number = 0; number < 6000; number += 1) output.write(line(number));
  await sleep(150);
  expect(output.dropped).toBeGreaterThan(1000);
});
