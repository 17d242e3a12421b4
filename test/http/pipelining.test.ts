/** Several requests on one connection before the first is answered: each has an end of its own. */
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { expect, it, onTestFinished, vi } from 'vitest';
import { faults } from '../simulators/faults.ts';
import { chatBody } from './prepare.ts';
import { type Stage, stage } from './stage.ts';
import { requestBytes } from './wire.ts';

/** Sends one chat for each id over one connection, all at once. */
function pipeline({ port }: Stage, ids: readonly string[], stream: boolean) {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  onTestFinished(() => void socket.destroy());
  const requests = ids.map((id) =>
    requestBytes('/api/llm/chat', { body: chatBody({ stream }), headers: { 'x-request-id': id } }),
  );
  socket.write(Buffer.concat(requests));
  return socket;
}

it.each([true, false])(
  'a client that leaves ends all of them, not only the first (stream: %s)',
  async (stream) => {
    const scene = await stage();
    scene.studio.always(faults.stall(stream ? 'after-text' : 'start'));
    const ids = [randomUUID(), randomUUID(), randomUUID()];
    const client = pipeline(scene, ids, stream);
    await vi.waitFor(() => expect(scene.studio.running).toBe(ids.length));

    client.destroy();

    await vi.waitFor(() => expect(scene.studio.running).toBe(0), { timeout: 1000 });
    for (const id of ids) expect((await scene.usageOf(id)).ending).toBe('client_gone');
  },
);
