/** An address that takes no connection: its port listens, but nobody ever accepts. For tests of the connect limit. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { onTestFinished } from 'vitest';

const listener = `
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => process.send(server.address().port));
`;

/** The URL. A process that is stopped holds the port; its queue of connections is full, so that further ones wait for ever. */
export async function deafServer(): Promise<string> {
  const child = spawn(process.execPath, ['-e', listener], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const [port]: unknown[] = await once(child, 'message');
  child.kill('SIGSTOP');
  const fillers = Array.from({ length: 8 }, () => connect(Number(port), '127.0.0.1'));
  for (const filler of fillers) filler.on('error', () => {});
  onTestFinished(async () => {
    for (const filler of fillers) filler.destroy();
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  // Two fit into the queue of one; the others show that it is full.
  await Promise.race(fillers.map((filler) => once(filler, 'connect')));
  return `http://127.0.0.1:${String(port)}`;
}
