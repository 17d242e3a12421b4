/** A name of two addresses, such as `localhost` on most machines: Fastify listens with a server of its own at each. */
import dns from 'node:dns';
import { networkInterfaces } from 'node:os';
import { afterEach, expect, it, vi } from 'vitest';
import { startGateway } from './gateway.ts';

const hasIPv6 = Object.values(networkInterfaces())
  .flat()
  .some((one) => one?.address === '::1');

const both = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
];

afterEach(() => void vi.restoreAllMocks());

it.skipIf(!hasIPv6)('ends calls over either address', async () => {
  const lookup = dns.lookup as (...given: unknown[]) => void;
  vi.spyOn(dns, 'lookup').mockImplementation(((...given: unknown[]) => {
    const [host, options, callback] = given;
    if (host === 'localhost' && typeof callback === 'function') callback(null, both);
    else lookup(host, options, callback);
  }) as typeof dns.lookup);
  const gateway = await startGateway({ HOST: 'localhost' });
  const { port } = new URL(gateway.url);
  try {
    for (const host of ['127.0.0.1', '[::1]']) {
      const answer = await fetch(`http://${host}:${port}/api/llm/chat`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'none', messages: [{ role: 'user', content: 'hi' }] }),
      });
      expect(answer.status).toBe(400);
      await answer.text();
    }
    await expect
      .poll(async () => (await gateway.get('/metrics')).text())
      .toMatch(/^gateway_requests_total\{.*ending="rejected"\} 2$/m);
    expect(await (await gateway.get('/metrics')).text()).toMatch(/^gateway_in_flight 0$/m);
  } finally {
    const begun = performance.now();
    await gateway.close();
    // Nothing runs any more that the end would have to wait for: it has a grace of 1 s.
    expect(performance.now() - begun).toBeLessThan(900);
  }
});
