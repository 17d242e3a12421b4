import path from 'node:path';
import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Caller } from '../../src/gateway/call.ts';
import { StoredChats } from '../../src/gateway/stored-chats.ts';
import { openStore } from '../../src/store/database.ts';
import { temporaryDirectory, temporaryStore } from './workspace.ts';

const at = { provider: 'lmstudio', upstreamModel: 'qwen3' };
const anonymous: Caller = { id: '127.0.0.1', address: '127.0.0.1' };
const key = (keyId: number): Caller => ({
  id: `key-${keyId}`,
  address: '127.0.0.1',
  keyId,
  keyPrefix: 'sk-gw-aaa',
});
const admin: Caller = { id: 'admin', address: '127.0.0.1', keyPrefix: 'ADMIN_API_KEY' };

const quiet = pino({ level: 'silent' });

async function setUp() {
  const store = await temporaryStore();
  return { store, chats: new StoredChats(store.db, quiet) };
}

const refusal = (id: string) =>
  expect.objectContaining({
    code: 'INVALID_PARAMS',
    param: 'previous_response_id',
    message: expect.stringContaining(id),
  });

afterEach(() => {
  vi.useRealTimers();
});

/** Moves the clock only: timers stay real, the database needs them. */
function travel(days: number): void {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + days * 24 * 60 * 60 * 1000 });
}

describe('a stored chat', () => {
  it('is found by who stored it', async () => {
    const { chats } = await setUp();
    await chats.remember('resp_1', at, key(1));
    expect(await chats.find('resp_1', key(1))).toMatchObject(at);
  });

  it.each([
    ["another key's", key(1), key(2)],
    ["a key's to the administrator", key(1), admin],
    ["the administrator's to a key", admin, key(1)],
    ['one without a key to a key', anonymous, key(1)],
    ["a key's to callers without one", key(1), anonymous],
  ])('is unknown where it is %s', async (_, owner, other) => {
    const { chats } = await setUp();
    await chats.remember('resp_1', at, owner);
    await expect(chats.find('resp_1', other)).rejects.toThrow(refusal('resp_1'));
  });

  it('reads the same to a stranger as one that never was', async () => {
    const { chats } = await setUp();
    await chats.remember('resp_1', at, key(1));
    const said = async (id: string): Promise<string> =>
      chats.find(id, key(2)).then(
        () => '',
        (error: Error) => error.message.replace(id, 'ID'),
      );
    expect(await said('resp_1')).toBe(await said('resp_2'));
  });

  it('is shared by all callers without a key, whatever their address', async () => {
    const { chats } = await setUp();
    await chats.remember('resp_1', at, anonymous);
    expect(await chats.find('resp_1', { id: '::1', address: '::1' })).toMatchObject(at);
  });

  it('is found by another process, and after a restart', async () => {
    const file = path.join(temporaryDirectory(), 'gateway.db');
    const first = await openStore(file);
    await new StoredChats(first.db, quiet).remember('resp_1', at, key(1));
    await first.close();
    const second = await temporaryStore(file);
    const chats = new StoredChats(second.db, quiet);
    expect(await chats.find('resp_1', key(1))).toMatchObject(at);
    await expect(chats.find('resp_1', key(2))).rejects.toThrow(refusal('resp_1'));
  });

  it('is remembered for 30 days, with and without the database row', async () => {
    const { chats, store } = await setUp();
    await chats.remember('resp_1', at, key(1));
    const afresh = new StoredChats(store.db, quiet);
    travel(29.9);
    expect(await chats.find('resp_1', key(1))).toMatchObject(at);
    expect(await afresh.find('resp_1', key(1))).toMatchObject(at);
    travel(0.2);
    await expect(chats.find('resp_1', key(1))).rejects.toThrow(refusal('resp_1'));
    await expect(afresh.find('resp_1', key(1))).rejects.toThrow(refusal('resp_1'));
  });

  it('leaves the database when it is too old, and only then', async () => {
    const { chats, store } = await setUp();
    await chats.remember('resp_old', at, key(1));
    travel(20);
    await chats.remember('resp_new', at, key(1));
    travel(11);
    chats.start();
    chats.close();
    const ids = async (): Promise<string[]> =>
      (await store.db.selectFrom('stored_chats').select('response_id').execute()).map(
        (row) => row.response_id,
      );
    await vi.waitFor(async () => expect(await ids()).toEqual(['resp_new']));
  });

  it('is found in this process though the database could not note it', async () => {
    const logged: string[] = [];
    const store = await openStore(':memory:');
    const chats = new StoredChats(
      store.db,
      pino({ level: 'warn' }, { write: (line) => void logged.push(line) }),
    );
    store.raw.exec('DROP TABLE stored_chats');
    await chats.remember('resp_1', at, key(1));
    expect(await chats.find('resp_1', key(1))).toMatchObject(at);
    expect(logged.join('')).toContain('could not be noted');
    await store.close();
  });

  it('belongs to whoever got its id last', async () => {
    const { chats, store } = await setUp();
    await chats.remember('resp_1', at, key(1));
    await chats.remember('resp_1', { ...at, provider: 'studio-2' }, key(2));
    expect(await chats.find('resp_1', key(2))).toMatchObject({ provider: 'studio-2' });
    expect(await new StoredChats(store.db, quiet).find('resp_1', key(2))).toMatchObject({
      provider: 'studio-2',
    });
    await expect(chats.find('resp_1', key(1))).rejects.toThrow(refusal('resp_1'));
  });

  it('has no room in a refusal for an id of any length', async () => {
    const { chats } = await setUp();
    await expect(chats.find('x'.repeat(10_000), key(1))).rejects.toThrow(/^.{0,200}$/);
  });
});
