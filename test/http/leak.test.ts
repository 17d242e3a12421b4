/** Memory stays flat over ten thousand calls of every kind of ending. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Pool } from 'undici';
import { expect, it, onTestFinished } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { spawnMeasured } from './memory.ts';
import { chatBody, prepareDatabase } from './prepare.ts';

import { request } from './wire.ts';

const megabyte = 1024 * 1024;
const atOnce = 32;
const mostGrown = 2;

/** What a stream says before it says nothing more. */
const silentFrom = 'silence';

/** Ten calls in a row: most are good, the others are not. */
const scripts: readonly LmStudioScript[] = [
  {},
  ...Array.from({ length: 5 }, () => faults.manyPerWrite()),
  faults.status(400),
  faults.cut(),
  faults.errorFrame(),
  { ...faults.stall('after-text'), text: [silentFrom, ''], gapMs: 0 },
];

it('heapUsed grows by less than 2 MB between call 2,000 and call 12,000', { timeout: 120_000 }, async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-'));
  const studio = await startLmStudio({ remember: 100 });
  onTestFinished(async () => {
    await studio.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const file = path.join(directory, 'gateway.db');
  await prepareDatabase(file, [studio], { providers: [{ max_concurrency: 0 }] });
  const gateway = await spawnMeasured({
    DATABASE_URL: `sqlite:${file}`,
    LMSTUDIO_BASE_URL: studio.url,
    UPSTREAM_MAX_RETRIES: '0',
  });
  const body = chatBody({ stream: true });
  const pool = new Pool(gateway.url, { connections: atOnce });
  onTestFinished(() => pool.destroy());
  await run(2000);
  expect(await growth()).toBeLessThan(mostGrown);

  /** Megabytes over ten thousand calls. */
  async function growth(): Promise<number> {
    const before = await gateway.heapUsed();
    await run(10_000);
    const more = (await gateway.heapUsed()) - before;
    console.log(
      `heapUsed: ${(before / megabyte).toFixed(1)} MB, then ${(more / megabyte).toFixed(2)} MB more`,
    );
    return more / megabyte;
  }

  /** Of those who leave a silent stream, one in a while does so by closing a connection of its own. */
  async function leaveEarly(): Promise<void> {
    const answer = request(gateway.port, '/api/llm/chat', { body });
    await Promise.race([answer.done, answer.until((text) => text.includes(silentFrom))]);
    answer.leave();
  }

  async function readToTheEnd(): Promise<void> {
    const leaving = new AbortController();
    const answer = await pool.request({
      method: 'POST',
      path: '/api/llm/chat',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: leaving.signal,
    });
    answer.body.on('error', () => {});
    for await (const piece of answer.body) {
      if (!String(piece).includes(silentFrom)) continue;
      leaving.abort();
      return;
    }
  }

  async function run(calls: number): Promise<void> {
    let left = calls;
    const client = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        const script = scripts[left % scripts.length] ?? {};
        studio.next(script);
        await (left % scripts.length === 0 ? leaveEarly() : readToTheEnd());
      }
    };
    await Promise.all(Array.from({ length: atOnce }, client));
  }
});
