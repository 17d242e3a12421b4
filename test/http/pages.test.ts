/** The API's description and its pages: complete, in step with the code, and without a foreign host. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildOpenApi } from '../../src/openapi.ts';
import { startLmStudio } from '../simulators/lmstudio.ts';
import { jsonOf, type RunningGateway, startGateway } from './gateway.ts';

const committed = new URL('../../openapi/openapi.json', import.meta.url);

let gateway: RunningGateway;
beforeAll(async () => {
  gateway = await startGateway();
});
afterAll(() => gateway.close());

describe('the OpenAPI document', () => {
  it('is committed as it is served; `npm run openapi` writes it', async () => {
    expect(await buildOpenApi()).toBe(readFileSync(committed, 'utf8'));
  });

  it('is served with everything but security and the example model as it is committed', async () => {
    const without = (text: string): unknown =>
      JSON.parse(text, (key, value) =>
        key === 'security' || key === 'securitySchemes' || key === 'model' ? undefined : value,
      );
    const served = await (await gateway.get('/openapi.json')).text();
    expect(without(served)).toEqual(without(readFileSync(committed, 'utf8')));
  });

  it('describes both kinds of answer and every error of a chat, with examples', () => {
    const { openapi, paths } = JSON.parse(readFileSync(committed, 'utf8'));
    expect(openapi).toMatch(/^3\.1/);
    const { responses, requestBody } = paths['/api/llm/chat'].post;
    expect(Object.keys(responses['200'].content)).toEqual(['application/json', 'text/event-stream']);
    expect(responses['200'].content['text/event-stream'].example).toContain('data: [DONE]');
    expect(Object.keys(responses).sort()).toEqual(
      ['200', '400', '401', '403', '413', '415', '429', '500', '502', '503', '504'].sort(),
    );
    expect(Object.keys(responses['400'].content['application/json'].examples).sort()).toEqual([
      'INVALID_MESSAGES',
      'INVALID_MODEL',
      'INVALID_PARAMS',
    ]);
    const body = requestBody.content['application/json'];
    expect(Object.keys(body.examples ?? { one: body.example }).length).toBeGreaterThan(0);
  });

  it('names every path that serves the unified API', () => {
    const { paths } = JSON.parse(readFileSync(committed, 'utf8'));
    expect(Object.keys(paths)).toEqual(
      expect.arrayContaining([
        '/api/llm/chat',
        '/api/llm/models',
        '/api/llm/models/{title}',
        '/healthz',
        '/readyz',
      ]),
    );
  });
});

describe.each(['/docs', '/redoc'])('%s', (page) => {
  it('allows no other host', async () => {
    const answer = await gateway.get(page);
    expect(answer.status).toBe(200);
    const policy = answer.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toMatch(/https?:|\*/);
  });

  it('names no foreign address in its page', async () => {
    const html = await (await gateway.get(page)).text();
    expect(html.match(/(?:src|href)="https?:[^"]*"/g)).toBeNull();
  });
});

it('GET / leads to /docs', async () => {
  const answer = await fetch(gateway.url, { redirect: 'manual' });
  expect([answer.status, answer.headers.get('location')]).toEqual([302, '/docs']);
});

describe('/healthz and /readyz', () => {
  it('say ok while a provider answers', async () => {
    const simulator = await startLmStudio();
    const ready = await startGateway({ LMSTUDIO_BASE_URL: simulator.url });
    expect(await jsonOf(await ready.get('/healthz'))).toEqual({ status: 'ok' });
    const answer = await ready.get('/readyz');
    expect(answer.status).toBe(200);
    expect(await jsonOf(answer)).toMatchObject({
      status: 'ok',
      database: 'ok',
      providers: { lmstudio: 'up' },
    });
    await ready.close();
    await simulator.close();
  });

  it('say unavailable with 503 when no provider is healthy, while the process lives', async () => {
    const answer = await gateway.get('/readyz');
    expect(answer.status).toBe(503);
    expect(await jsonOf(answer)).toMatchObject({ status: 'unavailable', providers: { lmstudio: 'down' } });
    expect((await gateway.get('/healthz')).status).toBe(200);
  });
});
