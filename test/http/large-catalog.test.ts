/** A catalog of 1,000 providers and 50,000 models: nobody waits for it, neither at the start nor when it is listed. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openStore } from '../../src/store/database.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { temporaryDirectory } from '../unit/workspace.ts';
import { jsonOf, type RunningGateway, startGateway } from './gateway.ts';

const SqliteDatabase = await loadSqlite();

const modelsEach = 50;

/** A thousand LM Studios at one address, each below a path of its own. */
async function startStudios(modelsOf: (studio: string) => readonly string[]): Promise<string> {
  const server = createServer((request, response) => {
    const [, studio = '', ...rest] = (request.url ?? '').split('/');
    const listed = modelsOf(studio).map((id) => ({ id, object: 'model', type: 'llm', state: 'not-loaded' }));
    response.writeHead(rest.join('/') === 'api/v0/models' ? 200 : 404, {
      'content-type': 'application/json',
    });
    response.end(JSON.stringify({ object: 'list', data: listed }));
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  onTestFinished(() => void server.close().closeAllConnections());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const modelsOf = (studio: string): string[] =>
  Array.from({ length: modelsEach }, (_, index) => `model-${studio}-${index}`);

/** @param withModels whether discovery has brought the models in already */
async function fill(url: string, providers: number, withModels: boolean): Promise<string> {
  const file = path.join(temporaryDirectory(), 'gateway.db');
  await (await openStore(file)).close();
  const database = new SqliteDatabase(file);
  const provider = database.prepare(
    "INSERT INTO providers (key, kind, base_url, origin) VALUES (?, 'lmstudio', ?, 'admin')",
  );
  const model = database.prepare("INSERT INTO models (title, origin) VALUES (?, 'discovery')");
  const route = database.prepare(
    "INSERT INTO routes (model_id, provider_id, upstream_model, origin) VALUES (?, ?, ?, 'discovery')",
  );
  database.transaction(() => {
    for (let index = 0; index < providers; index += 1) {
      const { lastInsertRowid: providerId } = provider.run(`studio-${index}`, `${url}/${index}`);
      if (!withModels) continue;
      for (const title of modelsOf(String(index))) {
        route.run(model.run(title).lastInsertRowid, providerId, title);
      }
    }
  })();
  database.close();
  return file;
}

/**
 * Watches the turns of the event loop. What counts is this process's own work in the longest of them, in milliseconds: the time of
 * day would also count what other processes of a busy machine did.
 */
function watchTurns(): { end(): number } {
  let longest = 0;
  let over = false;
  void (async () => {
    while (!over) {
      const before = process.cpuUsage();
      await nextTurn();
      const { user, system } = process.cpuUsage(before);
      longest = Math.max(longest, (user + system) / 1000);
    }
  })();
  return {
    end() {
      over = true;
      return longest;
    },
  };
}

const mostMs = 300;

const upIn = async (gateway: RunningGateway): Promise<number> => {
  const { providers: states } = await jsonOf(await gateway.get('/readyz'));
  return Object.values(states).filter((state) => state === 'up').length;
};

describe('a start', () => {
  it.each([
    ['1,000 providers and their 50,000 models', 1000, true],
    ['100 providers whose 5,000 models are new', 100, false],
  ])(
    'with %s holds nobody up for more than 300 ms',
    { timeout: 120_000 },
    async (_which, providers, known) => {
      const file = await fill(await startStudios(modelsOf), providers, known);
      // The first one in a process compiles what all of them run.
      await (await startGateway()).close();
      const turns = watchTurns();
      const gateway = await startGateway({ DATABASE_URL: `sqlite:${file}` });
      onTestFinished(() => gateway.close());
      const waiting = { timeout: 60_000, interval: 500 };
      await vi.waitFor(async () => expect(await upIn(gateway)).toBe(providers), waiting);
      expect(turns.end()).toBeLessThan(mostMs);
      const listed = async (): Promise<unknown[]> =>
        (await jsonOf(await gateway.get('/api/llm/models'))).data;
      await vi.waitFor(async () => expect(await listed()).toHaveLength(providers * modelsEach), waiting);
    },
  );
});
