import { copyFileSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { reportUsage } from '../../src/admin/usage.ts';
import { Call, type Caller } from '../../src/gateway/call.ts';
import { Meter, type MeterDependencies } from '../../src/gateway/meter.ts';
import { openStore, type Store } from '../../src/store/database.ts';
import type { NewUsageRow } from '../../src/store/schema.ts';
import { loadSqlite } from '../../src/store/sqlite.ts';
import { UsageBusy, UsageWriter } from '../../src/store/usage.ts';

const SqliteDatabase = await loadSqlite();

let directory: string;
let file: string;
let store: Store;
let writer: UsageWriter;
let log: { readonly level: string; readonly msg: string; readonly [key: string]: unknown }[];
const meters: Meter[] = [];

beforeEach(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'meter-'));
  file = path.join(directory, 'gateway.db');
  store = await openStore(file);
  writer = new UsageWriter(() => store.raw);
  log = [];
});

afterEach(async () => {
  for (const meter of meters.splice(0)) await meter.close();
  await store.close();
  rmSync(directory, { recursive: true });
});

function createMeter(options: Partial<MeterDependencies> = {}): Meter {
  const meter = new Meter({
    writer,
    follow: () => store.follow(),
    log: pino(
      { level: 'info', formatters: { level: (level) => ({ level }) } },
      { write: (line) => void log.push(JSON.parse(line)) },
    ),
    retentionDays: 0,
    ...options,
  });
  meters.push(meter);
  return meter;
}

const anonymous: Caller = { id: '127.0.0.1', address: '127.0.0.1' };

function endedCall(requestId: string, caller = anonymous): Call {
  const call = new Call(requestId, caller, '/api/llm/chat');
  call.model = 'qwen3-8b';
  call.startTry('lmstudio', 'qwen3-8b');
  call.usage = { input_tokens: 10, output_tokens: 5, total_tokens: 15 };
  call.end('stop');
  return call;
}

const row = (requestId: string, time: string, changes: Partial<NewUsageRow> = {}): NewUsageRow => ({
  request_id: requestId,
  time,
  key_id: null,
  key_name: null,
  key_prefix: null,
  user: null,
  model: 'a',
  provider: 'p',
  upstream_model: 'a',
  endpoint: '/api/llm/chat',
  stream: 0,
  status: 200,
  ending: 'stop',
  input_tokens: 3,
  output_tokens: 2,
  reasoning_tokens: null,
  exact: 1,
  queued_ms: 0,
  first_token_ms: 8,
  duration_ms: 10,
  attempts: 1,
  ...changes,
});

/** As another process sees it. */
function onDisk<T>(query: string): T[] {
  const reader = new SqliteDatabase(file, { readonly: true });
  try {
    return reader.prepare<[], T>(query).all();
  } finally {
    reader.close();
  }
}

const idsOnDisk = (): string[] =>
  onDisk<{ request_id: string }>('SELECT request_id FROM usage ORDER BY id').map((one) => one.request_id);

async function until(condition: () => boolean, limitMs = 5000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not come about');
    await sleep(5);
  }
}

describe('the writer', () => {
  it('writes each member into the column of its name', () => {
    const given = row('an-id', '2026-01-02T03:04:05.678', {
      key_id: 1,
      key_name: 'name',
      key_prefix: 'prefix',
      user: 'user',
      model: 'model',
      provider: 'provider',
      upstream_model: 'upstream',
      endpoint: 'endpoint',
      stream: 1,
      status: 201,
      ending: 'length',
      input_tokens: 4,
      output_tokens: 5,
      reasoning_tokens: 6,
      exact: 0,
      queued_ms: 7,
      first_token_ms: 8,
      duration_ms: 9,
      attempts: 10,
    });
    writer.write([given]);
    expect(onDisk('SELECT * FROM usage')).toEqual([{ id: expect.any(Number), ...given }]);
  });

  it('adds each row to its own hour and group', () => {
    const changes: Partial<NewUsageRow>[] = [
      {},
      {},
      { user: 'u' },
      { user: 'u', provider: 'q' },
      { user: 'u', provider: 'q', model: 'b' },
      { user: 'u', provider: 'q', model: 'b', ending: 'length' },
      { user: 'u', provider: 'q', model: 'b', ending: 'length', key_name: 'n' },
      { user: 'u', provider: 'q', model: 'b', ending: 'length', key_name: 'n', key_prefix: 'k' },
      {},
    ];
    const time = '2026-01-02T03:04:05.678';
    const rows = changes.map((change, index) => row(`call-${index}`, time, change));
    writer.write([...rows, row('later', '2026-01-02T04:04:05.678')]);
    const sums = onDisk<{ requests: number }>('SELECT * FROM usage_hours');
    expect(sums).toHaveLength(8);
    expect(sums).toContainEqual(
      expect.objectContaining({ hour: '2026-01-02T03', key: '', user: '', requests: 3, input_tokens: 9 }),
    );
    expect(sums.filter(({ requests }) => requests === 1)).toHaveLength(7);
  });
});

describe('the meter', () => {
  it('has a row on the disk within 500 ms of the call', async () => {
    const meter = createMeter();
    const recordedAt = performance.now();
    meter.callsEnded([{ call: endedCall('a'), status: 200 }]);
    await until(() => idsOnDisk().length === 1);
    expect(performance.now() - recordedAt).toBeLessThan(500);
  });

  it('writes behind the end of a later call, and where none comes, in time none the less', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      const written: string[][] = [];
      const write = (rows: readonly NewUsageRow[]) => void written.push(rows.map((one) => one.request_id));
      const meter = createMeter({ writer: { write, deleteBefore: () => 0 }, follow: async () => true });
      const end = (id: string): void => meter.callsEnded([{ call: endedCall(id), status: 200 }]);
      end('a');
      await vi.advanceTimersByTimeAsync(100);
      end('b');
      await vi.advanceTimersByTimeAsync(60);
      expect(written).toEqual([]);
      end('c');
      await vi.advanceTimersByTimeAsync(0);
      expect(written).toEqual([['a', 'b', 'c']]);
      end('alone');
      await vi.advanceTimersByTimeAsync(199);
      expect(written).toHaveLength(1);
      await vi.advanceTimersByTimeAsync(1);
      expect(written.slice(1)).toEqual([['alone']]);
    } finally {
      vi.useRealTimers();
    }
  });

  it('leaves a database that fails its time, however many calls end meanwhile', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'performance'] });
    try {
      let tries = 0;
      const write = (): never => {
        tries += 1;
        throw new Error('disk I/O error');
      };
      const meter = createMeter({ writer: { write, deleteBefore: () => 0 }, follow: async () => true });
      for (let ms = 0; ms < 1000; ms += 10) {
        meter.callsEnded([{ call: endedCall(`call-${ms}`), status: 200 }]);
        // Also between the failure and whatever the failed attempt left for the next turn.
        for (let step = 0; step < 20; step += 1) await Promise.resolve();
        meter.callsEnded([{ call: endedCall(`call-${ms}-b`), status: 200 }]);
        await vi.advanceTimersByTimeAsync(10);
      }
      expect(tries).toBe(1);
      const ended = meter.close();
      await vi.advanceTimersByTimeAsync(4000);
      await ended;
    } finally {
      vi.useRealTimers();
    }
  });

  it('writes what waits when it is closed', async () => {
    const meter = createMeter();
    for (let index = 0; index < 1200; index += 1)
      meter.callsEnded([{ call: endedCall(`call-${index}`), status: 200 }]);
    await meter.close();
    expect(idsOnDisk()).toEqual(Array.from({ length: 1200 }, (_, index) => `call-${index}`));
  });

  it('keeps both rows of two calls that chose the same request id', async () => {
    const meter = createMeter();
    for (let index = 0; index < 3; index += 1) meter.callsEnded([{ call: endedCall('same'), status: 200 }]);
    await meter.flush();
    const ids = idsOnDisk();
    expect(ids[0]).toBe('same');
    expect(ids.slice(1)).toEqual([
      expect.stringMatching(/^same~.{8}$/),
      expect.stringMatching(/^same~.{8}$/),
    ]);
    expect(new Set(ids).size).toBe(3);
  });

  it('writes every fact of the call', async () => {
    const meter = createMeter();
    const call = endedCall('a', { ...anonymous, keyId: 7, keyName: 'team', keyPrefix: 'sk-gw-abcd' });
    call.user = 'u1';
    call.stream = true;
    call.upstreamModel = 'qwen3-8b@q4';
    call.firstTokenMs = 12.4;
    call.queuedMs = 3.6;
    call.reasoningTokens = 2;
    meter.callsEnded([{ call: call, status: 200 }]);
    await meter.flush();
    expect(onDisk('SELECT * FROM usage')).toEqual([
      {
        id: 1,
        request_id: 'a',
        time: new Date(call.startedAt).toISOString().slice(0, -1),
        key_id: 7,
        key_name: 'team',
        key_prefix: 'sk-gw-abcd',
        user: 'u1',
        model: 'qwen3-8b',
        provider: 'lmstudio',
        upstream_model: 'qwen3-8b@q4',
        endpoint: '/api/llm/chat',
        stream: 1,
        status: 200,
        ending: 'stop',
        input_tokens: 10,
        output_tokens: 5,
        reasoning_tokens: 2,
        exact: 1,
        queued_ms: 4,
        first_token_ms: 12,
        duration_ms: expect.any(Number),
        attempts: 1,
      },
    ]);
  });

  it('says that counts are unknown where the upstream told none', async () => {
    const meter = createMeter();
    const call = new Call('a', anonymous, '/api/llm/chat');
    call.startTry('lmstudio', 'qwen3-8b');
    call.end('client_gone');
    meter.callsEnded([{ call: call, status: 499 }]);
    await meter.flush();
    expect(onDisk('SELECT exact, input_tokens, output_tokens FROM usage')).toEqual([
      { exact: 0, input_tokens: null, output_tokens: null },
    ]);
  });

  it('says that a call which reached no upstream used exactly nothing', async () => {
    const meter = createMeter();
    const call = new Call('a', anonymous, '/api/llm/chat');
    call.end('rejected');
    meter.callsEnded([{ call: call, status: 400 }]);
    await meter.flush();
    expect(onDisk('SELECT exact, input_tokens, output_tokens, provider FROM usage')).toEqual([
      { exact: 1, input_tokens: 0, output_tokens: 0, provider: null },
    ]);
  });

  it('shortens a name that a client made long', async () => {
    const meter = createMeter();
    const call = endedCall('a');
    call.model = 'm'.repeat(100_000);
    meter.callsEnded([{ call: call, status: 400 }]);
    await meter.flush();
    expect(onDisk('SELECT length(model) AS length FROM usage')).toEqual([{ length: 201 }]);
  });

  it('waits for a lock without holding up the process, and then writes every row once', async () => {
    const meter = createMeter();
    const other = new SqliteDatabase(file);
    other.exec('BEGIN IMMEDIATE');
    meter.callsEnded([{ call: endedCall('a'), status: 200 }]);
    const startedAt = performance.now();
    await meter.flush();
    expect(performance.now() - startedAt).toBeLessThan(300);
    expect(meter.buffered).toBe(1);
    other.exec('COMMIT');
    other.close();
    await until(() => meter.buffered === 0);
    expect(idsOnDisk()).toEqual(['a']);
  });

  it('is unhealthy while a lock is held for long, and healthy when it is gone', async () => {
    const meter = createMeter();
    const other = new SqliteDatabase(file);
    other.exec('BEGIN IMMEDIATE');
    meter.callsEnded([{ call: endedCall('a'), status: 200 }]);
    expect(meter.healthy).toBe(true);
    await until(() => !meter.healthy);
    other.exec('COMMIT');
    other.close();
    await until(() => meter.healthy);
    expect(idsOnDisk()).toEqual(['a']);
    expect(log.map((line) => [line.level, line.msg])).toEqual([
      ['error', 'usage rows cannot be written; they wait in memory'],
      ['info', 'usage rows are written again'],
    ]);
  });

  it('writes none of a batch that fails half way, and all of it later', async () => {
    const meter = createMeter();
    store.raw.exec(
      `CREATE TRIGGER full BEFORE INSERT ON usage WHEN NEW.request_id = 'b' BEGIN SELECT RAISE(ABORT, 'disk full'); END`,
    );
    meter.callsEnded([{ call: endedCall('a'), status: 200 }]);
    meter.callsEnded([{ call: endedCall('b'), status: 200 }]);
    await meter.flush();
    expect(idsOnDisk()).toEqual([]);
    expect(onDisk('SELECT * FROM usage_hours')).toEqual([]);
    expect(meter.healthy).toBe(false);
    store.raw.exec('DROP TRIGGER full');
    await meter.flush();
    expect(idsOnDisk()).toEqual(['a', 'b']);
    expect(meter.healthy).toBe(true);
  });

  it('drops the oldest rows of a full buffer, counts them and warns', async () => {
    let broken = true;
    const written: string[] = [];
    const meter = createMeter({
      capacity: 100,
      writer: {
        write: (rows) => {
          if (broken) throw new Error('disk full');
          written.push(...rows.map((one) => one.request_id));
        },
        deleteBefore: () => 0,
      },
    });
    const ended = Array.from({ length: 250 }, (_, index) => ({
      call: endedCall(`call-${index}`),
      status: 200,
    }));
    for (const one of ended.slice(0, 120)) meter.callsEnded([one]);
    meter.callsEnded(ended.slice(120));
    expect(meter.buffered).toBeLessThanOrEqual(100);
    expect(meter.dropped + meter.buffered).toBe(250);
    expect(log.some((line) => line.level === 'warn' && line['droppedInAll'] === 2)).toBe(true);
    broken = false;
    const { buffered } = meter;
    await meter.flush();
    expect(written).toEqual(Array.from({ length: buffered }, (_, index) => `call-${250 - buffered + index}`));
  });

  it('notices a removed file within 2 s, keeps the rows, and writes them into the file that comes back', async () => {
    const meter = createMeter();
    meter.start();
    renameSync(file, `${file}.away`);
    await until(() => !meter.healthy, 2000);
    meter.callsEnded([{ call: endedCall('a'), status: 200 }]);
    await meter.flush();
    expect(meter.buffered).toBe(1);
    renameSync(`${file}.away`, file);
    await until(() => meter.healthy && meter.buffered === 0);
    expect(idsOnDisk()).toEqual(['a']);
  });

  it('goes on in a file that was put in the place of the old one', async () => {
    const meter = createMeter();
    meter.callsEnded([{ call: endedCall('old'), status: 200 }]);
    await meter.flush();
    store.raw.pragma('wal_checkpoint(TRUNCATE)');
    copyFileSync(file, `${file}.backup`);
    meter.callsEnded([{ call: endedCall('lost'), status: 200 }]);
    await meter.flush();
    rmSync(file);
    renameSync(`${file}.backup`, file);
    meter.callsEnded([{ call: endedCall('new'), status: 200 }]);
    await meter.flush();
    expect(idsOnDisk()).toEqual(['old', 'new']);
    expect(onDisk('PRAGMA integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    expect(await store.db.selectFrom('usage').select('request_id').execute()).toHaveLength(2);
  });

  it('says how many rows are lost where the database stays broken to the end', async () => {
    const meter = createMeter({
      writer: {
        write: () => {
          throw new UsageBusy('locked');
        },
        deleteBefore: () => 0,
      },
    });
    meter.callsEnded([{ call: endedCall('a'), status: 200 }]);
    await meter.close();
    expect(log.at(-1)).toMatchObject({ level: 'error', rows: 1, msg: 'usage rows are lost' });
  });

  it('deletes what is older than the retention, and nothing younger', async () => {
    const daysAgo = (days: number): string =>
      new Date(Date.now() - days * 86_400_000).toISOString().slice(0, -1);
    writer.write([row('old', daysAgo(8)), row('older', daysAgo(9)), row('young', daysAgo(6))]);
    const meter = createMeter({ retentionDays: 7 });
    meter.start();
    await until(() => idsOnDisk().length === 1 && onDisk('SELECT * FROM usage_hours').length === 1);
    expect(idsOnDisk()).toEqual(['young']);
    expect(onDisk('SELECT hour FROM usage_hours')).toEqual([{ hour: daysAgo(6).slice(0, 13) }]);
  });
});

describe('a usage report', () => {
  const now = new Date('2026-03-10T12:30:00Z');

  const rows = [
    row('1', '2026-03-10T12:10:00.000', { model: 'b', input_tokens: 100 }),
    row('2', '2026-03-10T11:59:59.999', {
      ending: 'error',
      exact: 0,
      input_tokens: null,
      output_tokens: null,
    }),
    row('3', '2026-03-10T10:00:00.000', { user: 'u1', key_name: 'team', key_prefix: 'sk-gw-a' }),
    row('4', '2026-03-10T09:45:00.000', { first_token_ms: null, queued_ms: 30 }),
    row('5', '2026-03-10T09:15:00.000'),
    row('6', '2026-03-09T23:00:00.000'),
  ];

  const report = (input: unknown) => reportUsage(store, input, now);

  it('counts whole hours from the sums and the edges from the rows', async () => {
    writer.write(rows);
    const [a, b] = await report({ since: '2026-03-10T09:30', by: 'model' });
    expect(a).toMatchObject({ id: 'a', requests: 3, unknown_usage: 1, input_tokens: 6, total_tokens: 10 });
    expect(b).toMatchObject({ id: 'b', requests: 1, input_tokens: 100 });
  });

  it('does not read the rows of whole hours', async () => {
    writer.write(rows);
    store.raw.exec(`DELETE FROM usage WHERE request_id IN ('2', '3')`);
    const sum = (await report({ since: '2026-03-10T09:30' })).reduce((total, one) => total + one.requests, 0);
    expect(sum).toBe(4);
  });

  it.each([
    ['provider', ['p']],
    ['ending', ['stop', 'error']],
    ['key', ['', 'team (sk-gw-a)']],
    ['user', ['', 'u1']],
    ['day', ['2026-03-09', '2026-03-10']],
  ] as const)('groups by %s', async (by, groups) => {
    writer.write(rows);
    expect((await report({ by })).map((one) => one.group)).toEqual(groups);
  });

  it('gives a line for each hour of a series', async () => {
    writer.write(rows);
    const series = await report({ by: 'provider', series: 'hour', since: '4h' });
    expect(series.map((one) => [one.period, one.requests])).toEqual([
      ['2026-03-10T09:00', 2],
      ['2026-03-10T10:00', 1],
      ['2026-03-10T11:00', 1],
      ['2026-03-10T12:00', 1],
    ]);
  });

  it('averages over the calls that were measured', async () => {
    writer.write([rows[3], rows[4]].flatMap((one) => one ?? []));
    expect((await report({}))[0]).toMatchObject({
      average_first_token_ms: 8,
      average_queued_ms: 15,
      average_duration_ms: 10,
    });
  });

  it.each([
    [{ by: 'colour' }, 'by'],
    [{ since: 'yesterday' }, 'since'],
    [{ since: '2026-13-40' }, 'since'],
    [{ since: '1h', until: '2h' }, 'since'],
    [{ until: 'x' }, 'until'],
    [{ colour: 1 }, 'colour'],
  ])('refuses %j by the name of the field', async (input, field) => {
    await expect(report(input)).rejects.toThrow(new RegExp(`^${field}: `));
  });
});
