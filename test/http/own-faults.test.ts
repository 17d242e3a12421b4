/** What the log says of the gateway's own faults: each line names the request, so that it can be found. */
import { expect, it, onTestFinished } from 'vitest';
import { startLmStudio } from '../simulators/lmstudio.ts';
import { spawnGateway } from './spawned.ts';

const model = 'qwen2.5-7b-instruct';

/** Faults that a program might have, in a process of its own. */
const faulty = `
import { ServerResponse } from 'node:http';
const { stringify } = JSON;
JSON.stringify = (value, ...others) => {
  if (value === 'cannot be said') throw new TypeError('not to be said');
  return stringify(value, ...others);
};
const { end } = ServerResponse.prototype;
ServerResponse.prototype.end = function (...given) {
  end.apply(this, given);
  if (this.req.url === '/healthz?twice') this.write('once more');
  return this;
};`;

it('are logged with the id of the request, and end neither the process nor the next call', async () => {
  const studio = await startLmStudio({});
  onTestFinished(() => studio.close());
  const gateway = await spawnGateway({ DATABASE_URL: 'sqlite::memory:', LMSTUDIO_BASE_URL: studio.url }, [
    '--import',
    `data:text/javascript,${encodeURIComponent(faulty)}`,
  ]);
  const chat = (id: string): Promise<Response> =>
    fetch(`${gateway.url}/api/llm/chat`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-request-id': id },
      body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: 'hi' }] }),
    });

  const twice = await fetch(`${gateway.url}/healthz?twice`, { headers: { 'x-request-id': 'twice' } });
  expect(twice.status).toBe(200);
  await twice.text();
  studio.next({ text: ['fine', 'cannot be said', 'and more'] });
  const cut = await (await chat('amid')).text();
  expect(cut).toContain('"finish_reason":"error"');
  expect(cut).toContain('INTERNAL_ERROR');
  expect(await (await chat('next')).text()).toContain('"finish_reason":"stop"');

  await gateway.end('SIGTERM');
  const errors = gateway.log.filter(({ level }) => level === 'error');
  expect(errors).toEqual([
    expect.objectContaining({
      msg: 'response failed',
      requestId: 'twice',
      err: expect.objectContaining({ code: 'ERR_STREAM_WRITE_AFTER_END' }),
    }),
    expect.objectContaining({
      msg: 'stream failed',
      requestId: 'amid',
      err: expect.objectContaining({ message: 'not to be said' }),
    }),
  ]);
});
