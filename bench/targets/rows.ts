/** Fills a gateway's database, to see what a large one costs. Knows the tables that grow with use. */

import { loadSqlite } from '../../src/store/sqlite.ts';

const Database = await loadSqlite();

const count = 'WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < @rows)';

const statements = [
  `${count} INSERT INTO models (title, origin) SELECT 'filler-' || n, 'admin' FROM count`,
  `INSERT INTO routes (model_id, provider_id, upstream_model, origin)
   SELECT models.id, providers.id, title, 'admin' FROM models, providers
   WHERE title LIKE 'filler-%' AND providers.key = 'lmstudio' AND @rows > 0`,
  `${count} INSERT INTO api_keys (name, prefix, hash) SELECT 'filler-' || n, 'sk-gw-filler', printf('%064x', n) FROM count`,
  `${count} INSERT INTO usage
     (request_id, time, key_id, model, endpoint, stream, status, ending, exact, queued_ms, duration_ms, attempts)
   SELECT 'filler-' || n, strftime('%Y-%m-%dT%H:%M:%f', 'now', '-' || (n % 80) || ' days'),
     n, 'filler-' || n, '/api/llm/chat', 0, 200, 'complete', 1, 0, 100, 1 FROM count`,
];

/** Adds so many rows to each table. */
export function fillDatabase(file: string, rows: number): void {
  const database = new Database(file);
  try {
    database.transaction(() => {
      for (const statement of statements) database.prepare(statement).run({ rows });
    })();
  } finally {
    database.close();
  }
}
