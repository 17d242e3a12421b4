/** Paths as clients get them wrong: what is forgiven, what is not, and how a 404 says what is meant. Over real sockets. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask } from './ask.ts';
import { startGateway } from './gateway.ts';
import { chatBody, chatModel } from './prepare.ts';
import { type Stage, startStage } from './stage.ts';

let scene: Stage;
beforeAll(async () => {
  scene = await startStage();
});
afterAll(() => scene.close());

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

async function send(method: string, path: string, body?: unknown): Promise<Answer> {
  const answer = ask(scene.port, path, { method, ...(body === undefined ? {} : { body }) });
  const { status, headers } = await answer.head;
  await answer.done;
  return { status, headers, body: JSON.parse(answer.body) };
}

describe('forgiven paths', () => {
  it.each([
    '/v1/chat/completions/',
    '//v1/chat/completions',
    '/v1//chat///completions',
    '/v1/v1/chat/completions',
    '/v1/v1/v1/chat/completions?stream=',
    '/openai/v1/chat/completions',
    '/v1/chat/completions/chat/completions',
    '/chat/completions/chat/completions/',
    '/chat/completions',
    '/chat/completions?api-version=2024-10-21',
  ])('%s is /v1/chat/completions', async (path) => {
    expect(await send('POST', path, chatBody())).toMatchObject({
      status: 200,
      body: { object: 'chat.completion' },
    });
  });

  it.each(['/api//llm/chat', '//api/llm/chat/'])('%s is /api/llm/chat', async (path) => {
    expect(await send('POST', path, chatBody())).toMatchObject({ status: 200, body: { code: 200 } });
  });

  it.each(['/models', '/models/', '/v1/v1/models', '/openai/v1//models'])(
    '%s is /v1/models',
    async (path) => {
      expect(await send('GET', path)).toMatchObject({ status: 200, body: { object: 'list' } });
    },
  );

  it('/completions and /embeddings are those of /v1', async () => {
    const completion = await send('POST', '/completions', { model: chatModel, prompt: 'a' });
    expect(completion).toMatchObject({ status: 200, body: { object: 'text_completion' } });
    const embeddings = await send('POST', '/embeddings', { model: 'nothing', input: 'a' });
    expect(embeddings).toMatchObject({ status: 400, body: { error: { code: 'model_not_found' } } });
  });

  it('a title is left as it is, slashes and all', async () => {
    for (const path of ['/v1/models/a//chat/completions', '/models/a//chat/completions']) {
      expect((await send('GET', path)).body).toMatchObject({ error: { param: 'model' } });
    }
    expect(await send('GET', `/models/${chatModel}`)).toMatchObject({ status: 200, body: { id: chatModel } });
  });

  it.each([
    '//api/admin/keys',
    '/api//admin/keys',
    '/v1//api/admin/keys',
    '/openai/api/admin/keys',
    '/v1/../api/admin/keys',
    '//metrics',
    'http://localhost//api/admin/keys',
  ])('administration has no second name: %s', async (path) => {
    expect((await send('GET', path)).status).toBe(404);
  });

  it('an absolute target is its path', async () => {
    expect((await send('GET', 'http://localhost/v1/v1/models')).status).toBe(200);
  });

  it('a page that may not call may not by a forgiven path either', async () => {
    const answer = ask(scene.port, '/chat/completions', {
      body: chatBody(),
      headers: { origin: 'https://evil.example' },
    });
    expect((await answer.head).status).toBe(403);
  });

  it('a key is wanted on them, too', async () => {
    const gateway = await startGateway({
      AUTH: 'on',
      ADMIN_API_KEY: 'an-admin-key-of-24-characters-or-more',
    });
    try {
      for (const path of ['/models', '//v1/models', '/openai/v1/models', '/api/tags']) {
        expect((await gateway.get(path)).status).toBe(401);
      }
    } finally {
      await gateway.close();
    }
  });
});

describe('a path that does not exist', () => {
  const ends = expect.stringMatching(/^资源不存在:.* http:\/\/localhost\/v1$/);

  it.each([
    ['GET', '/v1/foo'],
    ['POST', '/v1'],
    ['POST', '/v1/responses'],
    ['GET', '/responses/resp_1'],
    ['GET', '/v1/engines'],
    ['POST', '/chat'],
    ['POST', '/engines/gpt-4/completions'],
    ['POST', '/openai/deployments/gpt-4/chat/completions'],
    ['POST', '/api/chat/completions'],
    ['POST', '/api/llm/chat/completions'],
    ['POST', '/images/generations'],
  ])("%s %s is refused in OpenAI's shape and ends in the base URL that is meant", async (method, path) => {
    const { status, headers, body } = await send(method, path, method === 'POST' ? {} : undefined);
    expect([status, headers['x-error-code']]).toEqual([404, 'NOT_FOUND']);
    expect(body).toEqual({
      error: { message: ends, type: 'invalid_request_error', param: null, code: 'unknown_url' },
    });
  });

  it.each([
    '/v1/messages',
    '/v1/messages?beta=true',
    '/messages',
    '/v1/messages/count_tokens',
    '/anthropic/v1/messages',
  ])("POST %s is refused in Anthropic's", async (path) => {
    const { status, headers, body } = await send('POST', path, {});
    expect(status).toBe(404);
    expect(body).toEqual({
      type: 'error',
      error: { type: 'not_found_error', message: ends },
      request_id: headers['request-id'],
    });
    expect(headers['request-id']).toBe(headers['x-request-id']);
  });

  it.each([
    '/api/chat',
    '/api/generate',
    '/api/tags',
    '/api/embeddings',
    '/ollama/api/chat',
    '/api/v0/models',
    '/api/v1/chat',
  ])("POST %s is refused in Ollama's and LM Studio's", async (path) => {
    expect(await send('POST', path, {})).toMatchObject({ status: 404, body: { error: ends } });
  });

  it.each([
    '/nothing',
    '/api/nothing',
    '/api/llm/nothing',
    '/favicon.ico',
    '/images/logo.png',
    '/api/admin/nothing',
  ])('GET %s, which is no dialect’s, is a plain envelope', async (path) => {
    const { status, body } = await send('GET', path);
    expect([status, body]).toEqual([404, { code: 404, message: '资源不存在', data: null }]);
  });
});
