/** The commands that load, unload and download models, against simulated LM Studios. */
import { describe, expect, it } from 'vitest';
import { lmstudioControl } from '../../src/adapters/lmstudio-control.ts';
import { AdminError } from '../../src/admin/administration.ts';
import { progressLine } from '../../src/cli/control.ts';
import { commandLine, type Ended } from './command-line.ts';
import { simulator } from './workspace.ts';

/** Not in memory at first. */
const model = 'openai/gpt-oss-20b';

/** The command refuses in one line. */
async function expectFailure(run: Promise<Ended>, words: RegExp): Promise<void> {
  await expect(run).rejects.toThrow(AdminError);
  await expect(run).rejects.toThrow(/^[^\n]+$/);
  await expect(run).rejects.toThrow(words);
}

describe('a model on a named provider', () => {
  it('is loaded with a context length, listed, and put away, and the others stay', async () => {
    const [first, second] = [await simulator(), await simulator()];
    const run = commandLine({ LMSTUDIO_BASE_URL: first.url });
    await run('providers', 'add', 'studio-2', '--kind', 'lmstudio', '--base-url', second.url);
    const loaded = await run('providers', 'load', 'studio-2', model, '--context-length', '16384', '--json');
    expect(loaded.code).toBe(0);
    expect(JSON.parse(loaded.stdout)).toEqual({
      id: model,
      model,
      load_time_seconds: 0,
      context_length: 16_384,
      parallel: 4,
    });
    const inMemory = await run('providers', 'loaded', 'studio-2', '--json');
    expect(JSON.parse(inMemory.stdout)).toContainEqual({
      id: model,
      model,
      type: 'llm',
      context_length: 16_384,
      parallel: 4,
    });
    expect((await run('providers', 'unload', 'studio-2', model)).stdout).toBe(`unloaded ${model}\n`);
    const left = (await run('providers', 'loaded', 'studio-2')).stdout;
    expect(left).not.toContain(model);
    expect(left).toContain('qwen2.5-7b-instruct');
    expect(first.requests.map((request) => request.path)).toEqual([]);
  });

  it('is put away with all its copies by its name, and one copy by its id', async () => {
    const studio = await simulator();
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    for (let copy = 0; copy < 3; copy += 1) await run('providers', 'load', 'lmstudio', model);
    expect((await run('providers', 'unload', 'lmstudio', `${model}:2`)).stdout).toBe(`unloaded ${model}:2\n`);
    expect((await run('providers', 'unload', 'lmstudio', model)).stdout).toBe(
      `unloaded ${model}\nunloaded ${model}:3\n`,
    );
  });

  it('that cannot be loaded or put away is told in the words of the server, and 1', async () => {
    const studio = await simulator({ token: 'lm-token' });
    const trusted = commandLine({ LMSTUDIO_BASE_URL: studio.url, LMSTUDIO_API_KEY: 'lm-token' });
    await expectFailure(trusted('providers', 'load', 'lmstudio', 'none'), /lmstudio: Model "none" not found/);
    await expectFailure(
      trusted('providers', 'unload', 'lmstudio', model),
      /not loaded on lmstudio \(loaded: qwen2\.5/,
    );
    const stranger = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    await expectFailure(
      stranger('providers', 'load', 'lmstudio', model),
      /wants the API key \(LMSTUDIO_API_KEY\)/,
    );
    await expectFailure(
      stranger('providers', 'loaded', 'bailian'),
      /bailian .* does not let models be controlled/,
    );
    await expectFailure(stranger('providers', 'loaded', 'nobody'), /no provider nobody/);
  });

  it('cannot be loaded by a server older than 0.4, which says so', async () => {
    const studio = await simulator({ generation: 'v0' });
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    await expectFailure(run('providers', 'load', 'lmstudio', model), /LM Studio 0\.4\.0 or later/);
    expect((await run('providers', 'loaded', 'lmstudio')).stdout).toContain('qwen2.5-7b-instruct');
  });

  it('is not loaded where nothing answers', async () => {
    await expectFailure(
      commandLine()('providers', 'load', 'lmstudio', model),
      /lmstudio does not answer: connect/,
    );
  });
});

describe('a download', () => {
  it('is shown as it goes on, and ends when the model is there', async () => {
    const studio = await simulator();
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    const { code, stdout, stderr } = await run('providers', 'download', 'lmstudio', 'qwen/qwen3-4b');
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'qwen/qwen3-4b is downloaded\n' });
    expect(stderr).toMatch(/^(?:\[[#-]{30}\] +\d+% {2}\d\.\d\d of 2\.28 GB[^\n]*\n){4}$/);
    const again = await run('providers', 'download', 'lmstudio', 'qwen/qwen3-4b');
    expect(again).toEqual({ code: 0, stdout: 'qwen/qwen3-4b was there already\n', stderr: '' });
  });

  it('that fails ends with 1, and one that is refused with the words of the server', async () => {
    const studio = await simulator();
    const run = commandLine({ LMSTUDIO_BASE_URL: studio.url });
    studio.nextControl({}, { answer: { status: 200, body: { job_id: 'job_1', status: 'failed' } } });
    const failed = await run('providers', 'download', 'lmstudio', 'qwen/qwen3-4b', '--json');
    expect(failed.code).toBe(1);
    expect(JSON.parse(failed.stdout)).toMatchObject({ model: 'qwen/qwen3-4b', status: 'failed' });
    await expectFailure(
      run('providers', 'download', 'lmstudio', 'qwen/qwen3-4b', '--quantization', 'Q4_K_M'),
      /only supported for Hugging Face links/,
    );
  });

  it('has a bar that is full at the end and never overflows', () => {
    const news = { id: 'job', model: 'm', status: 'downloading', bytes_per_second: 50e6 } as const;
    const line = (downloaded_bytes: number | null, total_bytes: number | null = 2e9) =>
      progressLine({ ...news, downloaded_bytes, total_bytes });
    expect(line(0)).toBe(`[${'-'.repeat(30)}]   0%  0.00 of 2.00 GB, 50.0 MB/s`);
    expect(line(1e9)).toContain(`[${'#'.repeat(15)}${'-'.repeat(15)}]  50%`);
    expect(line(3e9)).toContain(`[${'#'.repeat(30)}] 100%`);
    expect(line(null)).toBe('downloading');
    expect(line(0, 0)).toBe('downloading');
    expect(progressLine({ ...news, status: 'paused', downloaded_bytes: 1, total_bytes: 2 })).toContain(
      ', paused',
    );
  });
});

describe('an order to LM Studio', () => {
  const answer = (status: number, body: unknown) => ({
    status,
    body: typeof body === 'string' ? body : JSON.stringify(body),
    contentType: 'application/json',
    retryAfterSeconds: undefined,
  });

  it.each([
    ['a refusal', answer(404, { error: { message: 'Model "x" not found.' } }), 'Model "x" not found.'],
    ['an error in a 200', answer(200, { error: 'out of memory' }), 'out of memory'],
    ['a 200 of another kind', answer(200, {}), ''],
    [
      'a server that is older',
      answer(200, { error: 'Unexpected endpoint or method. (POST /api/v1/models/load)' }),
      'this server takes no orders; LM Studio 0.4.0 or later does',
    ],
  ])('is not carried out: %s', (_, said, words) => {
    expect(lmstudioControl.decodeLoad(said)).toEqual({ ok: false, words });
    expect(lmstudioControl.decodeUnload(said)).toEqual({ ok: false, words });
    expect(lmstudioControl.decodeDownload(said)).toEqual({ ok: false, words });
  });

  it('carries the token, and the job as one part of the path', () => {
    expect(lmstudioControl.downloadStatus('job/../x', 'lm-token')).toMatchObject({
      method: 'GET',
      path: '/api/v1/models/download/status/job%2F..%2Fx',
      headers: { authorization: 'Bearer lm-token' },
    });
    expect(lmstudioControl.unload('qwen3:2', undefined).headers).not.toHaveProperty('authorization');
  });
});
