import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openStore, type Store } from '../../src/store/database.ts';

let store: Store;
let folder: string;

beforeEach(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'seed-'));
  store = await openStore(path.join(folder, 'gateway.db'));
});
afterEach(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

const all = (sql: string): unknown[] => store.raw.prepare(sql).all();

describe('the seeded catalog', () => {
  it('holds the two models of the published example as they are printed there', () => {
    const columns =
      'id, title, img, name, description, keyword, time, tag1, tag2, type, is_featured, created_at, updated_at';
    expect(all(`SELECT ${columns} FROM models WHERE id < 3 ORDER BY id`)).toEqual([
      {
        id: 1,
        title: 'qwen-turbo',
        img: 'https://example.com/qwen-turbo.png',
        name: '通义千问-Turbo',
        description: '通义千问超大规模语言模型,加速响应版本',
        keyword: '文本生成',
        time: '2025-01-01',
        tag1: '高速',
        tag2: 'Qwen',
        type: 0,
        is_featured: 1,
        created_at: '2025-01-01T00:00:00',
        updated_at: '2025-01-01T00:00:00',
      },
      {
        id: 2,
        title: 'qwen-plus',
        img: 'https://example.com/qwen-plus.png',
        name: '通义千问-Plus',
        description: '通义千问超大规模语言模型,均衡性能版本',
        keyword: '文本生成',
        time: '2025-01-01',
        tag1: '均衡',
        tag2: 'Qwen',
        type: 0,
        is_featured: 0,
        created_at: '2025-01-01T00:00:00',
        updated_at: '2025-01-01T00:00:00',
      },
    ]);
  });

  it('keeps to ids 1 to 999 and leaves the rest to run time', () => {
    expect(all('SELECT min(id) AS least, max(id) < 1000 AS below FROM models')).toEqual([
      { least: 1, below: 1 },
    ]);
    store.raw.exec(`INSERT INTO models (title, origin) VALUES ('mine', 'admin')`);
    expect(all(`SELECT id FROM models WHERE title = 'mine'`)).toEqual([{ id: 1000 }]);
  });

  it('routes every model to bailian under its own name', () => {
    const lost = `SELECT title FROM models WHERE NOT EXISTS (SELECT 1 FROM routes JOIN providers ON providers.id = provider_id
      WHERE model_id = models.id AND upstream_model = title AND routes.origin = 'seed' AND providers.key = 'bailian')`;
    expect(all(lost)).toEqual([]);
  });

  it('names the variable that holds the key, and stores none', () => {
    expect(all(`SELECT kind, base_url, api_key_env, origin FROM providers WHERE key = 'bailian'`)).toEqual([
      {
        kind: 'bailian',
        base_url: 'https://dashscope.aliyuncs.com/compatible-mode/v1',
        api_key_env: 'DASHSCOPE_API_KEY',
        origin: 'environment',
      },
    ]);
  });

  it('leaves limits empty where sources disagree', () => {
    expect(all(`SELECT title FROM models WHERE context_length IS NULL ORDER BY id`)).toEqual([
      { title: 'qwen3.8-flash' },
      { title: 'qwen3-vl-flash' },
    ]);
  });

  it('has embedding models of type 1', () => {
    expect(all('SELECT title FROM models WHERE type = 1 ORDER BY id')).toEqual([
      { title: 'text-embedding-v3' },
      { title: 'text-embedding-v4' },
    ]);
  });

  it('describes every model', () => {
    expect(all(`SELECT title FROM models WHERE '' IN (name, description, keyword, tag1, tag2)`)).toEqual([]);
  });
});
