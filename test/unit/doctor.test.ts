/** The command `doctor` against servers on real sockets. What its findings mean is in diagnosis.test. */
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createModelShelf, defaultModels, modelOnV1 } from '../simulators/lmstudio-models.ts';
import { commandLine, type Ended } from './command-line.ts';
import { simulator } from './workspace.ts';

const findings = z.array(
  z.strictObject({
    id: z.string(),
    subject: z.string(),
    severity: z.enum(['ok', 'note', 'problem']),
    message: z.string(),
    action: z.string().nullable(),
  }),
);

function read(ended: Ended) {
  const all = findings.parse(JSON.parse(ended.stdout));
  return { all, of: (id: string) => all.find((finding) => finding.id === id) };
}

describe('doctor', () => {
  it('finds nothing to do where all is well, and says what there is', async () => {
    const studio = await simulator();
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    const ended = await run('doctor', '--json');
    const { all, of } = read(ended);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(all.filter(({ severity }) => severity === 'problem')).toEqual([]);
    expect(of('lmstudio.generation')?.message).toBe('speaks v0 and v1');
    expect(of('lmstudio.loaded')?.message).toContain('qwen2.5-7b-instruct (context 4096, 4 in parallel)');
    expect(of('bailian.auth')).toMatchObject({
      severity: 'note',
      message: expect.stringContaining('DASHSCOPE_API_KEY'),
    });
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
  });

  it('loads no model, spends no token and leaves the catalog alone', async () => {
    const studio = await simulator();
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    const before = await run('models', 'list', '--json');
    const { of } = read(await run('doctor', '--json'));
    expect(of('lmstudio.catalog')).toMatchObject({
      severity: 'note',
      action: expect.stringContaining('models sync lmstudio'),
    });
    expect((await run('models', 'list', '--json')).stdout).toBe(before.stdout);
    expect(studio.requests.map(({ method, path }) => `${method} ${path}`)).toEqual(['GET /api/v1/models']);
  });

  it('tells an older server that wants a token by its variable, and ends with 1', async () => {
    const studio = await simulator({ generation: 'v0', token: 'lm-token' });
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    const wanting = await run('doctor', '--json');
    expect(wanting.code).toBe(1);
    expect(read(wanting).of('lmstudio.auth')).toMatchObject({
      severity: 'problem',
      action: expect.stringContaining('set LMSTUDIO_API_KEY'),
    });
    const trusted = commandLine({ LMSTUDIO_BASE_URL: studio.url, LMSTUDIO_API_KEY: 'lm-token' });
    const given = await trusted('doctor', '--json');
    expect(given.code).toBe(0);
    expect(read(given).of('lmstudio.generation')).toMatchObject({
      severity: 'note',
      message: 'speaks v0 only, not v1',
    });
    expect(wanting.stdout + given.stdout).not.toContain('lm-token');
  });

  it('tells in plain lines what to do where nothing answers', async () => {
    const run = commandLine();
    const { code, stdout } = await run('doctor');
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /^lmstudio\n {2}PROBLEM no connection \(ECONNREFUSED\) at http:\/\/127\.0\.0\.1:9\n {10}-> start LM Studio/m,
    );
    expect(stdout).toContain('PROBLEM no provider can be called');
    expect(stdout).toMatch(/\n2 problems, 1 note\.\n$/);
  });

  it.each([
    [
      'a database that cannot be opened',
      { DATABASE_URL: 'sqlite:/dev/null/none/gateway.db' },
      'database.opens',
      '/dev/null/none',
    ],
    ['a variable that is wrong', { PORT: 'many' }, 'configuration.valid', 'PORT'],
  ])('has findings also for %s', async (_, environment, id, words) => {
    const ended = await commandLine(environment)('doctor', '--json');
    expect(ended.code).toBe(1);
    expect(read(ended).all).toMatchObject([
      { id, severity: 'problem', message: expect.stringContaining(words), action: expect.any(String) },
    ]);
  });

  it('notes a proxy variable, which the gateway does not use, and keeps its value to itself', async () => {
    const studio = await simulator();
    const proxy = 'http://user:proxy-secret@127.0.0.1:9';
    const run = commandLine({
      LMSTUDIO_BASE_URL: studio.url,
      HTTP_PROXY: proxy,
      https_proxy: proxy,
      NO_PROXY: '',
    });
    const ended = await run('doctor', '--json');
    expect(ended.code).toBe(0);
    expect(read(ended).of('environment.proxy')).toMatchObject({
      severity: 'note',
      message: expect.stringMatching(/^HTTP_PROXY, https_proxy: set/),
    });
    expect(ended.stdout).not.toContain('proxy-secret');
  });

  it('reads the clock and the proxy of a provider from its answer', async () => {
    const studio = await simulator();
    const shelf = createModelShelf(defaultModels);
    const date = new Date(Date.now() - 20 * 60_000).toUTCString();
    studio.alwaysControl({
      answer: {
        status: 200,
        headers: { date, via: '1.1 edge' },
        body: { models: defaultModels.map((model) => modelOnV1(model, shelf)) },
      },
    });
    const ended = await commandLine({ LMSTUDIO_BASE_URL: studio.url })('doctor', '--json');
    expect(ended.code).toBe(1);
    const { of } = read(ended);
    expect(of('lmstudio.clock')?.message).toBe('its clock is 20 min behind ours');
    expect(of('lmstudio.proxy')?.message).toContain('1.1 edge');
  });

  it('takes a web page for what it is', async () => {
    const studio = await simulator();
    studio.alwaysControl({
      answer: {
        status: 502,
        headers: { 'content-type': 'text/html' },
        body: '<!DOCTYPE html><h1>Bad Gateway</h1>',
      },
    });
    const ended = await commandLine({ LMSTUDIO_BASE_URL: studio.url })('doctor', '--json');
    expect(read(ended).of('lmstudio.reachable')).toMatchObject({
      severity: 'problem',
      action: expect.stringContaining('a web page'),
    });
  });

  it('names a route to a model that the provider does not list', async () => {
    const studio = await simulator();
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    await run('models', 'add', 'my-assistant', '--provider', 'lmstudio', '--upstream-model', 'not/there');
    const ended = await run('doctor', '--json');
    expect(ended.code).toBe(1);
    expect(read(ended).of('lmstudio.routes')?.message).toMatch(/my-assistant \(route \d+ to not\/there\)/);
  });
});
