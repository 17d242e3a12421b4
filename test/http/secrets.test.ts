/** The log at its most talkative, of a process that has seen every kind of secret: none may be in it, and the audit trail must. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LmStudioSimulator, startLmStudio } from '../simulators/lmstudio.ts';
import { jsonOf } from './gateway.ts';
import { chatModel } from './prepare.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const tsx = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url));

const adminKey = 'the-administrators-secret-key-42';
const studioKey = 'lm-studio-secret-token-42';
const bailianKey = 'sk-bailian0secret0key0042';
const strangersKey = 'sk-strangers-own-secret-key-0042';
const guessedKey = `sk-gw-${'guessed'.repeat(6)}1`;
const mcpKey = 'mcp-header-secret-42';
const prompt = 'the prompt that nobody may read 42';
const answerText = 'the answer that nobody may read 42';

let directory: string;
let studio: LmStudioSimulator;
let child: ChildProcess;
let log = '';
let madeKey = '';
const requestIds: Record<string, string> = {};

function start(): Promise<string> {
  child = spawn(process.execPath, ['--import', tsx, main], {
    cwd: directory,
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: '0',
      LOG_LEVEL: 'trace',
      AUTH: 'on',
      ADMIN_API_KEY: adminKey,
      LMSTUDIO_BASE_URL: studio.url,
      LMSTUDIO_API_KEY: studioKey,
      BAILIAN_BASE_URL: 'http://127.0.0.1:9/compatible-mode/v1',
      DASHSCOPE_API_KEY: bailianKey,
      MCP_ALLOWED_HOSTS: '*',
      UPSTREAM_MAX_RETRIES: '0',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return new Promise((resolve, reject) => {
    const read = (piece: Buffer): void => {
      log += piece.toString();
      const address = /"address":"(http:[^"]+)"/.exec(log)?.[1];
      if (address !== undefined) resolve(address);
    };
    child.stdout?.on('data', read);
    child.stderr?.on('data', read);
    child.once('exit', () => reject(new Error(log)));
  });
}

/** Goes through everything that could make the server say too much. */
async function provoke(url: string): Promise<void> {
  const ask = async (name: string, method: string, where: string, key: string, body?: unknown) => {
    requestIds[name] = `request-${name}`;
    const answer = await fetch(url + where, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        'content-type': 'application/json',
        'x-request-id': `request-${name}`,
        'if-match': '1',
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    return answer;
  };
  const made = await jsonOf(await ask('create', 'POST', '/api/admin/keys', adminKey, { name: 'team' }));
  madeKey = made.data.key;
  const messages = [{ role: 'user', content: prompt }];
  const body = { model: chatModel, messages };
  studio.always({ text: [answerText] });
  await (await ask('chat', 'POST', '/api/llm/chat', madeKey, body)).text();
  await (await ask('stream', 'POST', '/v1/chat/completions', madeKey, { ...body, stream: true })).text();
  const said = `wrong token Bearer ${studioKey} for ${prompt.slice(0, 3)}`;
  studio.always({ answer: { status: 401, body: { error: { message: said } } } });
  await (await ask('refused', 'POST', '/api/llm/chat', madeKey, body)).text();
  studio.always({ answer: { status: 500, body: { error: said } } });
  await (await ask('failed', 'POST', '/api/llm/chat', madeKey, { ...body, stream: true })).text();
  studio.always({ error: { at: 'after-text', message: said } });
  await (await ask('midway', 'POST', '/api/llm/chat', madeKey, { ...body, stream: true })).text();
  studio.always(undefined);
  const integrations = [
    {
      type: 'ephemeral_mcp',
      server_label: 'x',
      server_url: 'http://127.0.0.1:9/mcp',
      headers: { authorization: `Bearer ${mcpKey}` },
    },
  ];
  await (await ask('mcp', 'POST', '/api/llm/chat', madeKey, { ...body, integrations })).text();
  await (await ask('bailian', 'POST', '/api/llm/chat', madeKey, { ...body, model: 'qwen-plus' })).text();
  await (await ask('bad-json', 'POST', '/api/llm/chat', madeKey, `{"model":"${prompt}`)).text();
  await ask('stranger', 'GET', '/api/llm/models', strangersKey);
  await ask('guess', 'GET', '/api/llm/models', guessedKey);
  await ask('query', 'GET', `/api/llm/nothing?api_key=${strangersKey}`, strangersKey);
  await ask('scope', 'GET', '/api/admin/keys', madeKey);
  await ask('change', 'PATCH', '/api/admin/keys/1', adminKey, { rpm: 100 });
  const provider = { key: 'other', kind: 'lmstudio', base_url: `http://user:${strangersKey}@127.0.0.1:9` };
  await ask('provider', 'POST', '/api/admin/providers', adminKey, provider);
}

beforeAll(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'gateway-secrets-'));
  studio = await startLmStudio({ token: studioKey });
  await provoke(await start());
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGTERM');
  await ended;
}, 60_000);

afterAll(async () => {
  child.kill('SIGKILL');
  await studio.close();
  rmSync(directory, { recursive: true, force: true });
});

const lines = (): Record<string, unknown>[] =>
  log
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));

describe('the log at level trace', () => {
  it.each([
    ["the administrator's key", () => adminKey],
    ['a key that was made', () => madeKey.slice(12)],
    ['the hash of a key', () => createHash('sha256').update(madeKey).digest('hex')],
    ["LM Studio's token", () => studioKey],
    ["Bailian's key", () => bailianKey],
    ["a stranger's key", () => strangersKey.slice(0, 12)],
    ['a guessed key beyond its first characters', () => guessedKey.slice(12)],
    ["an integration's header", () => mcpKey],
    ['a prompt', () => 'nobody may read'],
    ['an answer', () => answerText],
  ])('holds nothing of %s', (_name, secret) => {
    expect(secret().length).toBeGreaterThan(8);
    expect(log.split('\n').filter((line) => line.includes(secret()))).toEqual([]);
  });

  it('has a line for every inference call that had a key', () => {
    const calls = lines().filter(({ msg }) => msg === 'call');
    for (const name of ['chat', 'stream', 'refused', 'failed', 'midway', 'mcp', 'bailian']) {
      expect(calls).toContainEqual(
        expect.objectContaining({ requestId: requestIds[name], key: madeKey.slice(0, 12) }),
      );
    }
  });
});

describe('the audit trail', () => {
  it.each([
    ['create', { audit: 'change', action: 'keys.create', id: 1, fields: ['name'], key: 'ADMIN_API_KEY' }],
    ['change', { audit: 'change', action: 'keys.change', id: 1, fields: ['rpm'], key: 'ADMIN_API_KEY' }],
    [
      'guess',
      { audit: 'refusal', reason: 'unknown key', key: guessedKey.slice(0, 12), address: '127.0.0.1' },
    ],
    ['stranger', { audit: 'refusal', reason: 'unknown key' }],
  ])('has %s with its request id', (name, line) => {
    expect(lines()).toContainEqual(expect.objectContaining({ requestId: requestIds[name], ...line }));
  });

  it('names the key that lacked the scope', () => {
    const line = { requestId: requestIds['scope'], reason: 'scope', key: madeKey.slice(0, 12) };
    expect(lines()).toContainEqual(expect.objectContaining(line));
  });
});
