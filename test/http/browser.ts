/** Chromium for the tests that need a real browser, and what a page did in it. Where there is none, its tests are skipped. */
import { type Browser, chromium, type Page } from 'playwright-core';
import { describe } from 'vitest';
import { chromiumPath, skipsBrowserTests } from '../chromium.ts';

export const describeInBrowser = describe.skipIf(skipsBrowserTests);

/** Close it, or its processes stay. Playwright gives it a profile of its own. It asks nobody but the pages that it is sent to. */
export function startBrowser(): Promise<Browser> {
  if (chromiumPath === undefined) {
    throw new Error('no Chromium: `apt-get install chromium`, or set CHROMIUM_PATH');
  }
  return chromium.launch({
    executablePath: chromiumPath,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

export interface WatchedPage {
  readonly page: Page;
  /** Errors on the console, the policy's refusals among them, and exceptions that nobody caught. */
  readonly errors: readonly string[];
  /** The origins of all that it asked for, itself included. */
  readonly origins: ReadonlySet<string>;
}

/** A page without any memory. */
export async function openPage(browser: Browser, address: string): Promise<WatchedPage> {
  const page = await browser.newPage();
  const errors: string[] = [];
  const origins = new Set<string>();
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(`${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol !== 'data:' && url.protocol !== 'blob:') origins.add(url.origin);
  });
  await page.goto(address);
  return { page, errors, origins };
}
