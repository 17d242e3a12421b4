/** `npm run demo`: the gateway in front of a simulated LM Studio, for a first look with nothing else installed. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serve } from '../../src/main.ts';
import { startLmStudio } from './lmstudio.ts';

const chatModel = 'qwen2.5-7b-instruct';
const thinkingModel = 'openai/gpt-oss-20b';

const command = (address: string, body: object, flags = '-s'): string =>
  `curl ${flags} ${address}/api/llm/chat -H 'content-type: application/json' -d '${JSON.stringify(body)}'`;

function printCommands(address: string): void {
  const ask = (content: string): object[] => [{ role: 'user', content }];
  const plain = { model: chatModel, messages: ask('你好,很高兴认识你!') };
  const streamed = { ...plain, stream: true };
  const withProgress = {
    model: thinkingModel,
    messages: ask('北京今天天气怎么样?'),
    stream: true,
    stream_options: { include_progress: true },
    integrations: [{ type: 'plugin', id: 'mcp/weather', allowed_tools: ['get_weather'] }],
  };
  console.log(`
A simulated LM Studio stands behind the gateway at ${address}. Try:

1. One answer:
${command(address, plain)}

2. The same as a stream:
${command(address, streamed, '-sN')}

3. A model that is loaded first (3 s, the first time), thinks and calls a tool, with progress:
${command(address, withProgress, '-sN')}

The documentation is at ${address}/docs. Ctrl-C ends the demo.
`);
}

const directory = mkdtempSync(join(tmpdir(), 'llm-gateway-demo-'));
// Thirty tokens a second, as a small model on a laptop.
const simulator = await startLmStudio({ tokenMs: 33, promptMs: 400, loadMs: 3000 });
const removeDirectory = (): void => rmSync(directory, { recursive: true, force: true });

try {
  const gateway = await serve({
    ...process.env,
    LMSTUDIO_BASE_URL: simulator.url,
    LMSTUDIO_API_KEY: undefined,
    DATABASE_URL: `sqlite:${join(directory, 'demo.db')}`,
    SHUTDOWN_GRACE_MS: process.env.SHUTDOWN_GRACE_MS ?? '2000',
    // The commands are to be the last thing on the screen.
    LOG_LEVEL: process.env.LOG_LEVEL ?? 'warn',
  });
  printCommands(gateway.address);
  let ending = false;
  // Ctrl-C arrives twice: from the terminal, and from the tsx process that passes it on.
  const end = (): void => {
    if (ending) return;
    ending = true;
    void gateway
      .close()
      .then(() => simulator.close())
      .finally(() => {
        removeDirectory();
        process.exit();
      });
  };
  process.on('SIGINT', end);
  process.on('SIGTERM', end);
} catch (error) {
  removeDirectory();
  await simulator.close();
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
