/** What a stream keeps of its request while it runs. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import { spawnMeasured } from './memory.ts';
import { chatBody, chatModel, prepareDatabase } from './prepare.ts';
import { request } from './wire.ts';

const streams = 20;
const promptBytes = 500_000;

it.each(['/api/llm/chat', '/v1/chat/completions'])(
  'a stream at %s gives up its text once the answer has begun',
  { timeout: 60_000 },
  async (path) => {
    const directory = mkdtempSync(join(tmpdir(), 'llm-gateway-'));
    const model = { id: chatModel, type: 'llm', publisher: 'qwen', loaded: true } as const;
    const roomy = { ...model, maxContextLength: promptBytes, contextLength: promptBytes };
    const studio = await startLmStudio({ remember: 1, models: [roomy] });
    onTestFinished(async () => {
      await studio.close();
      rmSync(directory, { recursive: true, force: true });
    });
    const file = join(directory, 'gateway.db');
    await prepareDatabase(file, [studio], { providers: [{ max_concurrency: 0 }] });
    const gateway = await spawnMeasured({
      DATABASE_URL: `sqlite:${file}`,
      LMSTUDIO_BASE_URL: studio.url,
    });
    const messages = [{ role: 'user', content: 'x'.repeat(promptBytes) }];
    const begin = async (content: typeof messages) => {
      studio.next({ ...faults.stall('after-text'), text: ['begun', ''], gapMs: 0 });
      const answer = request(gateway.port, path, {
        body: { ...chatBody({ stream: true }), messages: content },
      });
      onTestFinished(() => answer.leave());
      await answer.until((text) => text.includes('begun'));
    };
    await begin([{ role: 'user', content: 'warm up' }]);
    const before = await gateway.heapUsed();
    for (let begun = 0; begun < streams; begun += 1) await begin(messages);
    const each = ((await gateway.heapUsed()) - before) / streams;
    // What a stream takes by itself is a twentieth of this; the text as it was sent to the upstream lies outside of V8's heap.
    expect(each).toBeLessThan(promptBytes / 2);
  },
);
