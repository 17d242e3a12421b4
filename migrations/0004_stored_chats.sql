-- Which route and caller a stored chat belongs to, so that a follow-up goes to where it is stored and to nobody else's.
-- The chat itself stays with the upstream.

CREATE TABLE stored_chats (
  response_id TEXT PRIMARY KEY,
  provider TEXT NOT NULL,
  upstream_model TEXT NOT NULL,
  owner TEXT NOT NULL,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE INDEX stored_chats_by_age ON stored_chats (created_at);
