-- The catalog: who answers (providers), what can be called (models), and which provider answers for which model (routes).
-- Times are UTC, `YYYY-MM-DDTHH:MM:SS`. `version` counts the changes of a row; `origin` says who made it.

CREATE TABLE providers (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE CHECK (key GLOB '[a-z0-9]*' AND key NOT GLOB '*[^a-z0-9-]*'),
  kind TEXT NOT NULL,
  name TEXT NOT NULL DEFAULT '',
  base_url TEXT NOT NULL,
  api_key_env TEXT,
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  max_concurrency INTEGER CHECK (max_concurrency >= 0),
  max_queue INTEGER CHECK (max_queue >= 0),
  abort_grace_ms INTEGER CHECK (abort_grace_ms >= 0),
  connect_timeout_ms INTEGER CHECK (connect_timeout_ms >= 0),
  first_event_timeout_ms INTEGER CHECK (first_event_timeout_ms >= 0),
  idle_timeout_ms INTEGER CHECK (idle_timeout_ms >= 0),
  total_timeout_ms INTEGER CHECK (total_timeout_ms >= 0),
  origin TEXT NOT NULL CHECK (origin IN ('environment', 'admin')),
  version INTEGER NOT NULL DEFAULT 1,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

CREATE TABLE models (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  title TEXT NOT NULL UNIQUE CHECK (title <> ''),
  img TEXT NOT NULL DEFAULT '',
  name TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT '',
  keyword TEXT NOT NULL DEFAULT '',
  time TEXT NOT NULL DEFAULT '',
  tag1 TEXT NOT NULL DEFAULT '',
  tag2 TEXT NOT NULL DEFAULT '',
  type INTEGER NOT NULL DEFAULT 0,
  is_featured INTEGER NOT NULL DEFAULT 0 CHECK (is_featured IN (0, 1)),
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  context_length INTEGER CHECK (context_length > 0),
  max_output_tokens INTEGER CHECK (max_output_tokens > 0),
  origin TEXT NOT NULL CHECK (origin IN ('seed', 'discovery', 'admin')),
  version INTEGER NOT NULL DEFAULT 1,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now'))
);

-- Ids 1 to 999 are for seeded rows; what is made at run time starts at 1000.
INSERT INTO sqlite_sequence (name, seq) VALUES ('models', 999);

CREATE TABLE routes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
  provider_id INTEGER NOT NULL REFERENCES providers (id) ON DELETE CASCADE,
  upstream_model TEXT NOT NULL CHECK (upstream_model <> ''),
  api TEXT NOT NULL DEFAULT 'auto',
  priority INTEGER NOT NULL DEFAULT 0,
  weight INTEGER NOT NULL DEFAULT 1 CHECK (weight > 0),
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  -- 1 when the provider's last successful discovery lacked the model; only for routes that discovery made.
  vanished INTEGER NOT NULL DEFAULT 0 CHECK (vanished IN (0, 1)),
  connect_timeout_ms INTEGER CHECK (connect_timeout_ms >= 0),
  first_event_timeout_ms INTEGER CHECK (first_event_timeout_ms >= 0),
  idle_timeout_ms INTEGER CHECK (idle_timeout_ms >= 0),
  total_timeout_ms INTEGER CHECK (total_timeout_ms >= 0),
  origin TEXT NOT NULL CHECK (origin IN ('seed', 'discovery', 'admin')),
  version INTEGER NOT NULL DEFAULT 1,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S', 'now')),
  UNIQUE (model_id, provider_id, upstream_model)
);

CREATE INDEX routes_by_provider ON routes (provider_id);

-- One row that every catalog change bumps: a running server compares it to know when to reload.
CREATE TABLE catalog_version (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL
);
INSERT INTO catalog_version (id, version) VALUES (1, 1);

CREATE TRIGGER providers_inserted AFTER INSERT ON providers BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER providers_updated AFTER UPDATE ON providers BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER providers_deleted AFTER DELETE ON providers BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER models_inserted AFTER INSERT ON models BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER models_updated AFTER UPDATE ON models BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER models_deleted AFTER DELETE ON models BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER routes_inserted AFTER INSERT ON routes BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER routes_updated AFTER UPDATE ON routes BEGIN UPDATE catalog_version SET version = version + 1; END;
CREATE TRIGGER routes_deleted AFTER DELETE ON routes BEGIN UPDATE catalog_version SET version = version + 1; END;
