/** What pages read a stream with, in Chromium, over upstreams that begin late and fall silent in between. */
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { describeInBrowser, openPage, startBrowser } from './browser.ts';
import { readmeReader } from './readme-reader.ts';
import { late, lateText, scaledTimes } from './silence.ts';
import { startUpstreams, type Upstreams, wireNames } from './upstreams.ts';

const library = path.join(
  path.dirname(fileURLToPath(import.meta.resolve('@microsoft/fetch-event-source'))),
  '../esm',
);

/** As its documentation has it: every message is a chunk until `[DONE]`; when a handler throws it sends the request again. */
const application = `
  import { fetchEventSource } from '/index';
  window.chat = async (url, model) => {
    const contents = [];
    await fetchEventSource(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: '你好' }] }),
      onmessage({ data }) {
        if (data !== '[DONE]') contents.push(JSON.parse(data).content);
      },
    });
    return contents;
  };
`;

/** A page of another loopback port than the gateway's, as a frontend in development is. */
async function servePages(): Promise<Server> {
  const server = createServer(({ url = '/' }, response) => {
    if (url === '/') {
      response.setHeader('content-type', 'text/html; charset=utf-8');
      response.end(
        `<!doctype html><link rel="icon" href="data:,"><script type="module">${application}</script><body>`,
      );
    } else {
      response.setHeader('content-type', 'text/javascript; charset=utf-8');
      response.end(readFileSync(path.join(library, `${path.basename(url)}.js`)));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

function addressOf(server: Server): string {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `http://127.0.0.1:${address.port}/`;
}

describeInBrowser('in a browser', { timeout: 60_000 }, () => {
  let browser: Browser;
  let pages: Server;
  let upstreams: Upstreams;
  beforeAll(async () => {
    [browser, pages, upstreams] = await Promise.all([
      startBrowser(),
      servePages(),
      startUpstreams(scaledTimes),
    ]);
  }, 60_000);
  afterAll(async () => {
    await browser?.close();
    await upstreams?.close();
    pages?.close();
  });
  beforeEach(() => upstreams.reset());

  async function open(): Promise<{ readonly page: Page; readonly errors: readonly string[] }> {
    const opened = await openPage(browser, addressOf(pages));
    onTestFinished(() => opened.page.close());
    return opened;
  }

  describe.each(wireNames)('over a late first token and a silent gap of %s', (name) => {
    it('fetch-event-source gets the whole answer of one prompt', async () => {
      const { model, next, server } = upstreams.of[name];
      const { page, errors } = await open();
      next(late);
      const contents: unknown = await page.evaluate(
        `window.chat(${JSON.stringify(`${upstreams.gateway.url}/api/llm/chat`)}, ${JSON.stringify(model)})`,
      );
      if (!Array.isArray(contents)) throw new Error('no list');
      expect(contents.join('')).toBe(lateText);
      expect(contents.filter((content) => content === '').length).toBeGreaterThan(2);
      // Where a handler throws, the library sends the prompt again a second later.
      expect(server.requests.filter(({ generation }) => generation)).toHaveLength(1);
      expect(errors).toEqual([]);
    });

    it("the README's reader appends the whole answer to the page", async () => {
      const { model, next, server } = upstreams.of[name];
      const { page, errors } = await open();
      next(late);
      await page.evaluate(`(async () => { ${readmeReader(upstreams.gateway.url, model)} })()`);
      expect(await page.textContent('body')).toBe(lateText);
      expect(server.requests.filter(({ generation }) => generation)).toHaveLength(1);
      expect(errors).toEqual([]);
    });
  });
});
