/** What the benchmark's upstream can play: the name of the model is the script, so that it survives every gateway. */

export interface Script {
  /** 0: one whole JSON answer instead of a stream. */
  readonly chunks: number;
  /** Milliseconds from one chunk to the next. */
  readonly delayMs: number;
  /** Events that leave in one write; each is an HTTP chunk of its own, as a server sends that flushes every event. */
  readonly eventsPerWrite: number;
}

const pattern = /^bench-(\d+)x(\d+)ms-by-(\d+)$/;

export function nameOf(script: Script): string {
  return `bench-${script.chunks}x${script.delayMs}ms-by-${script.eventsPerWrite}`;
}

export function scriptOf(name: string): Script | undefined {
  const [, chunks, delayMs, eventsPerWrite] = pattern.exec(name) ?? [];
  if (chunks === undefined) return undefined;
  return { chunks: Number(chunks), delayMs: Number(delayMs), eventsPerWrite: Number(eventsPerWrite) };
}

export const scripts = {
  json: { chunks: 0, delayMs: 0, eventsPerWrite: 1 },
  fast: { chunks: 200, delayMs: 0, eventsPerWrite: 1 },
  batched: { chunks: 200, delayMs: 0, eventsPerWrite: 20 },
  slow: { chunks: 10, delayMs: 1000, eventsPerWrite: 1 },
  slowShort: { chunks: 3, delayMs: 1000, eventsPerWrite: 1 },
  single: { chunks: 1, delayMs: 0, eventsPerWrite: 1 },
} satisfies Record<string, Script>;

export const models: readonly string[] = Object.values(scripts).map(nameOf);
