/** API keys over real sockets: what they open, what they do not, and how fast a change of them is noticed. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { createKey, revokeKey } from '../../src/admin/keys.ts';
import { temporaryStore } from '../unit/workspace.ts';
import { adminKey, team } from './administrator.ts';
import { chatBody, chatModel } from './prepare.ts';
import { stage } from './stage.ts';

const otherModel = 'openai/gpt-oss-20b';

const refused = { status: 401, body: { code: 401, message: '未授权:API Key缺失或无效', data: null } };

describe('a new key', () => {
  it('is sk-gw- and 43 url-safe characters', async () => {
    const { createKey: create } = await team();
    expect((await create()).key).toMatch(/^sk-gw-[A-Za-z0-9_-]{43}$/);
  });

  it('opens the inference API as a bearer token and as x-api-key', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create();
    expect((await ask(key, 'POST', '/api/llm/chat', chatBody())).status).toBe(200);
    const headers = { 'x-api-key': key };
    expect((await ask(undefined, 'POST', '/v1/chat/completions', chatBody(), headers)).status).toBe(200);
  });

  it('is shown once: later only its prefix is', async () => {
    const { admin, createKey: create } = await team();
    const { id, key } = await create();
    const { body } = await admin('GET', `/keys/${id}`);
    expect(body.data).toMatchObject({ id, prefix: key.slice(0, 12), state: 'active' });
    expect(body.data).not.toHaveProperty('key');
    expect(body.data).not.toHaveProperty('hash');
  });

  it('is on the disk as its SHA-256 only', async () => {
    const { createKey: create, file } = await team();
    const { key } = await create();
    const bytes = [file, `${file}-wal`].map((name) => readFileSync(name, 'latin1')).join('');
    expect(bytes).toContain(createHash('sha256').update(key).digest('hex'));
    expect(bytes).not.toContain(key.slice(12));
  });

  it('may share its name with the one that it replaces, and both are good', async () => {
    const { ask, createKey: create } = await team();
    const [before, after] = [await create({ name: 'team' }), await create({ name: 'team' })];
    for (const { key } of [before, after])
      expect((await ask(key, 'GET', '/api/llm/models')).status).toBe(200);
  });
});

describe('what is no good key', () => {
  it.each([
    ['none', undefined],
    ['an unknown one', `sk-gw-${'x'.repeat(43)}`],
    ['an empty one', ''],
    ['a long one', 'y'.repeat(5000)],
    ["the administrator's with a letter too many", `${adminKey}x`],
  ])('%s is a 401 in the envelope', async (_name, key) => {
    const { ask } = await team();
    const answer = await ask(key, 'POST', '/api/llm/chat', chatBody());
    expect(answer).toMatchObject(refused);
    expect(answer.headers.get('x-error-code')).toBe('UNAUTHORIZED');
  });

  it("is a 401 in OpenAI's shape under /v1", async () => {
    const { ask } = await team();
    const { status, body } = await ask('nonsense', 'GET', '/v1/models');
    expect([status, body.error.message]).toEqual([401, '未授权:API Key缺失或无效']);
  });

  it('an expired one is refused', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ expires_at: '2020-01-01' });
    expect(await ask(key, 'GET', '/api/llm/models')).toMatchObject(refused);
  });

  it('one that the admin API revokes is refused at once', async () => {
    const { ask, change, createKey: create } = await team();
    const { id, key } = await create();
    expect((await ask(key, 'GET', '/api/llm/models')).status).toBe(200);
    expect((await change('DELETE', `/keys/${id}`, 1)).body.data).toEqual({ id, outcome: 'revoked' });
    expect(await ask(key, 'GET', '/api/llm/models')).toMatchObject(refused);
  });
});

describe('a change by another process', () => {
  it('is noticed within 2 s: a new key opens, a revoked one does not', async () => {
    const { ask, file } = await team();
    const other = await temporaryStore(file);
    const { id, key } = await createKey(other, { name: 'from elsewhere' });
    const status = async (): Promise<number> => (await ask(key, 'GET', '/api/llm/models')).status;
    await vi.waitFor(async () => expect(await status()).toBe(200), { timeout: 2000, interval: 50 });
    await revokeKey(other, id);
    await vi.waitFor(async () => expect(await status()).toBe(401), { timeout: 2000, interval: 50 });
  });
});

describe('a key for some models', () => {
  it('may use those', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ models: [chatModel] });
    expect((await ask(key, 'POST', '/api/llm/chat', chatBody())).status).toBe(200);
  });

  it('is refused the others with a 403 before any upstream is asked', async () => {
    const { ask, createKey: create, studio } = await team();
    const { key } = await create({ models: [chatModel] });
    studio.reset();
    const answer = await ask(key, 'POST', '/api/llm/chat', chatBody({ model: otherModel }));
    expect([answer.status, answer.headers.get('x-error-code')]).toEqual([403, 'FORBIDDEN']);
    expect(answer.body.message).toBe(`无权限:此 API Key 不可使用模型 ${otherModel}`);
    expect(studio.requests.filter((request) => request.method === 'POST')).toEqual([]);
  });

  it('is refused the others as draft models too', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ models: [chatModel] });
    const answer = await ask(key, 'POST', '/api/llm/chat', chatBody({ draft_model: otherModel }));
    expect(answer.status).toBe(403);
    expect(answer.body.message).toBe(`无权限:此 API Key 不可使用模型 ${otherModel}`);
  });

  it("is refused them in OpenAI's shape under /v1, streamed or not", async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ models: [chatModel] });
    for (const stream of [false, true]) {
      const body = chatBody({ model: otherModel, stream });
      const answer = await ask(key, 'POST', '/v1/chat/completions', body);
      expect([answer.status, answer.body.error.param]).toEqual([403, 'model']);
    }
  });

  it('sees no others, in a list or by name', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ models: [otherModel] });
    const own = await ask(key, 'GET', '/api/llm/models');
    expect(own.body.data.map((model: { title: string }) => model.title)).toEqual([otherModel]);
    const openai = await ask(key, 'GET', '/v1/models');
    expect(openai.body.data.map((model: { id: string }) => model.id)).toEqual([otherModel]);
    for (const path of ['/api/llm/models', '/v1/models']) {
      expect((await ask(key, 'GET', `${path}/${otherModel}`)).status).toBe(200);
      expect((await ask(key, 'GET', `${path}/${chatModel}`)).status).toBe(404);
    }
  });

  it('is told that a model which does not exist is unknown', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ models: [chatModel] });
    const { status, headers } = await ask(key, 'POST', '/api/llm/chat', chatBody({ model: 'nobody' }));
    expect([status, headers.get('x-error-code')]).toEqual([400, 'INVALID_MODEL']);
  });
});

describe('the admin scope', () => {
  it.each(['/api/admin/keys', '/api/admin/usage', '/metrics'])('is what %s wants', async (path) => {
    const { ask, createKey: create } = await team();
    const ordinary = await create();
    const admin = await create({ scope: 'admin' });
    const statuses = [];
    for (const key of [undefined, ordinary.key, admin.key, adminKey]) {
      statuses.push((await ask(key, 'GET', path)).status);
    }
    expect(statuses).toEqual([401, 403, 200, 200]);
  });

  it('includes inference', async () => {
    const { ask, createKey: create } = await team();
    const { key } = await create({ scope: 'admin' });
    expect((await ask(key, 'POST', '/api/llm/chat', chatBody())).status).toBe(200);
  });
});

describe('the usage log', () => {
  it('names the key of a call', async () => {
    const { ask, createKey: create, usageOf } = await team();
    const { id, key } = await create({ name: 'blue team' });
    await ask(key, 'POST', '/api/llm/chat', chatBody(), { 'x-request-id': 'of-the-blue-team' });
    expect(await usageOf('of-the-blue-team')).toMatchObject({
      key_id: id,
      key_name: 'blue team',
      key_prefix: key.slice(0, 12),
    });
  });

  it('names it also with AUTH=off, where an unknown one is ignored', async () => {
    const { chat, file, usageOf } = await stage();
    const { id, key } = await createKey(await temporaryStore(file), { name: 'optional' });
    // The running server looks once a second.
    await vi.waitFor(
      async () => {
        const requestId = `with-${performance.now()}`;
        const answer = chat({}, { authorization: `Bearer ${key}`, 'x-request-id': requestId });
        await answer.done;
        expect((await usageOf(requestId)).key_id).toBe(id);
      },
      { timeout: 5000, interval: 100 },
    );
    const stranger = chat({}, { authorization: 'Bearer sk-of-another-gateway', 'x-request-id': 'unknown' });
    expect((await stranger.head).status).toBe(200);
    expect((await usageOf('unknown')).key_id).toBeNull();
  });
});
