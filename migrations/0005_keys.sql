-- Who may call. Of a key only its SHA-256 is kept; the prefix is what people recognise it by. A limit that is NULL is the
-- server's default, 0 is none. A revoked key keeps its row, so that the usage log can still name it.

CREATE TABLE api_keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL CHECK (name <> ''),
  prefix TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
  scope TEXT NOT NULL DEFAULT 'inference' CHECK (scope IN ('inference', 'admin')),
  -- A JSON list of model titles; NULL: every model.
  models TEXT CHECK (models IS NULL OR json_type(models) = 'array'),
  rpm INTEGER CHECK (rpm >= 0),
  tpm INTEGER CHECK (tpm >= 0),
  max_concurrency INTEGER CHECK (max_concurrency >= 0),
  daily_tokens INTEGER CHECK (daily_tokens >= 0),
  expires_at TEXT,
  revoked_at TEXT,
  version INTEGER NOT NULL DEFAULT 1,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

-- One row that every change of a key bumps: a running server compares it to know when to reload.
CREATE TABLE keys_version (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL
);
INSERT INTO keys_version (id, version) VALUES (1, 1);

CREATE TRIGGER api_keys_inserted AFTER INSERT ON api_keys BEGIN UPDATE keys_version SET version = version + 1; END;
CREATE TRIGGER api_keys_updated AFTER UPDATE ON api_keys BEGIN UPDATE keys_version SET version = version + 1; END;
CREATE TRIGGER api_keys_deleted AFTER DELETE ON api_keys BEGIN UPDATE keys_version SET version = version + 1; END;
