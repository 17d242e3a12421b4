/** Where Chromium is on this machine. vitest.config.ts runs it once before all tests, to say where there is none. */
import { existsSync } from 'node:fs';

export const chromiumPath = [
  process.env['CHROMIUM_PATH'],
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
].find((file) => file !== undefined && existsSync(file));

/** A test that CI never runs would pass there for ever, so CI fails without a browser. */
export const skipsBrowserTests = chromiumPath === undefined && process.env['CI'] !== 'true';

export default function setup(): void {
  if (!skipsBrowserTests) return;
  process.stderr.write('No Chromium in /usr/bin or at CHROMIUM_PATH: the tests in a browser are skipped.\n');
}
