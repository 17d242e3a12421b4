/** The API's pages in Chromium: they show what they are for, report no error and ask no other host. */
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeInBrowser, openPage, startBrowser } from './browser.ts';
import { type RunningGateway, startGateway } from './gateway.ts';

describeInBrowser('in a browser', { timeout: 60_000 }, () => {
  let browser: Browser;
  let gateway: RunningGateway;
  beforeAll(async () => {
    browser = await startBrowser();
    gateway = await startGateway();
  });
  afterAll(async () => {
    await browser?.close();
    await gateway?.close();
  });

  it.each(['/docs', '/redoc'])(
    '%s shows the chat, without an error and without a foreign host',
    async (path) => {
      const { page, errors, origins } = await openPage(browser, gateway.url + path);
      await page.getByText('/api/llm/chat').first().waitFor();
      await page.waitForLoadState('networkidle');
      expect({ errors, origins: [...origins] }).toEqual({ errors: [], origins: [gateway.url] });
      await page.close();
    },
  );
});
