/** A client that stops reading holds the upstream back, and not the memory of the gateway. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { startLmStudio } from '../simulators/lmstudio.ts';
import type { LmStudioScript } from '../simulators/lmstudio-house.ts';
import { spawnMeasured } from './memory.ts';
import { chatBody } from './prepare.ts';
import { stage } from './stage.ts';
import { requestBytes } from './wire.ts';

const megabyte = 1024 * 1024;

const piece = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'x'.repeat(64 * 1024) }, finish_reason: null }] })}\n\n`;
const ending = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';

/** So many pieces of 64 KiB, as fast as they are taken. */
const flood = (count: number): LmStudioScript => ({
  raw: { pieces: [...Array.from({ length: count }, () => piece), ending] },
});

interface Reader {
  readonly bytes: number;
  readonly tail: string;
  pause(): void;
  resume(): void;
  readonly closed: Promise<void>;
}

/** Reads and forgets. */
function read(port: number): Reader {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  socket.write(
    requestBytes('/api/llm/chat', { body: chatBody({ stream: true }), headers: { connection: 'close' } }),
  );
  let bytes = 0;
  let tail = '';
  socket.on('data', (data: Buffer) => {
    bytes += data.length;
    tail = (tail + data.subarray(-200).toString('latin1')).slice(-200);
  });
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
  return {
    get bytes() {
      return bytes;
    },
    get tail() {
      return tail;
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    closed,
  };
}

it('the process grows by less than 10 MB, the upstream waits, and all arrives in the end', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'llm-gateway-'));
  const studio = await startLmStudio();
  onTestFinished(async () => {
    await studio.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const gateway = await spawnMeasured({
    DATABASE_URL: `sqlite:${path.join(directory, 'gateway.db')}`,
    LMSTUDIO_BASE_URL: studio.url,
  });
  const pieces = 1200;
  studio.next(flood(200), flood(200), flood(pieces));
  await read(gateway.port).closed;

  const quiet = await gateway.memoryInUse();
  // The collections gave back what the next stream needs for a start.
  await read(gateway.port).closed;
  const small = await gateway.resident();
  const reader = read(gateway.port);
  await vi.waitFor(() => expect(reader.bytes).toBeGreaterThan(0), { timeout: 5000, interval: 1 });
  reader.pause();
  const upstream = studio.requests.at(-1);
  let before = -1;
  await vi.waitFor(
    () => {
      const now = upstream?.bytesSent ?? 0;
      const stands = now === before;
      before = now;
      expect(stands).toBe(true);
    },
    { timeout: 10_000, interval: 200 },
  );
  expect(studio.running).toBe(1);
  expect(before).toBeLessThan(60 * megabyte);
  expect(((await gateway.resident()) - small) / megabyte).toBeLessThan(10);
  // What is not in sockets' own buffers is in the process: of 75 MB nearly nothing.
  expect(((await gateway.memoryInUse()) - quiet) / megabyte).toBeLessThan(2);
  expect(upstream?.bytesSent).toBe(before);

  reader.resume();
  await reader.closed;
  expect(reader.bytes).toBeGreaterThan(pieces * 64 * 1024);
  expect(reader.tail).toContain('data: [DONE]\n\n');
}, 60_000);

it('a client that stopped reading and leaves closes the upstream at once', async () => {
  const scene = await stage();
  scene.studio.next(flood(1200));
  const answer = scene.chat({ stream: true });
  await answer.until((body) => body !== '');
  answer.socket.pause();
  const upstream = await scene.studio.waitForRequest();
  let before = -1;
  await vi.waitFor(
    () => {
      const stands = upstream.bytesSent === before;
      before = upstream.bytesSent;
      expect(stands).toBe(true);
    },
    { timeout: 10_000, interval: 100 },
  );
  answer.leave();
  await upstream.closed;
  expect(upstream.aborted).toBe(true);
});
