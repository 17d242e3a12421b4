/** One measurement: a load job on one target, with the processor time and memory that it took there. */
import type { LoadJob, LoadResult } from './load/jobs.ts';
import type { Ask } from './process-messages.ts';
import { cpuSeconds, memoryKb } from './processes.ts';
import type { Running } from './targets/target.ts';

export interface Measured extends LoadResult {
  readonly cpuSeconds: number;
  readonly memoryBeforeKb: number;
  readonly memoryPeakKb: number;
}

const memoryIntervalMs = 500;

export async function measure(
  ask: Ask<LoadJob, LoadResult>,
  running: Running,
  job: LoadJob,
): Promise<Measured> {
  const memoryBeforeKb = memoryKb(running.pid);
  let memoryPeakKb = memoryBeforeKb;
  const look = (): void => {
    memoryPeakKb = Math.max(memoryPeakKb, memoryKb(running.pid));
  };
  const watch = setInterval(look, memoryIntervalMs);
  const before = cpuSeconds(running.pid);
  const result = await ask(job);
  const used = cpuSeconds(running.pid) - before;
  clearInterval(watch);
  look();
  return { ...result, cpuSeconds: used, memoryBeforeKb, memoryPeakKb };
}

const systemMessage = { role: 'system', content: 'You are a helpful assistant.' };
const sentence = 'Please tell me something about foxes, dogs and the fences between them. ';

/** A chat body whose messages are about so long, as a conversation of turns of 1 KB. */
export function chatBody(model: string, stream: boolean, kilobytes: number): string {
  const turns = Array.from({ length: Math.max(1, Math.round(kilobytes)) }, (_, index) => ({
    role: index % 2 === 0 ? 'user' : 'assistant',
    content: sentence.repeat(13),
  }));
  return JSON.stringify({ model, ...(stream ? { stream: true } : {}), messages: [systemMessage, ...turns] });
}
