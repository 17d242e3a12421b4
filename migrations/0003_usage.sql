-- What was used: one row per call, and the same calls summed up by the hour, so that a report over months reads thousands
-- of rows and not millions. Never a prompt or an answer. Times are UTC; durations are milliseconds.

CREATE TABLE usage (
  id INTEGER PRIMARY KEY,
  -- The caller may choose it and may choose it twice: the second row's is then `<its own>~<eight characters>`.
  request_id TEXT NOT NULL UNIQUE,
  -- When the call came, `YYYY-MM-DDTHH:MM:SS.sss`.
  time TEXT NOT NULL,
  -- No reference: a row outlives its key. NULL: the administrator's key, or no key at all.
  key_id INTEGER,
  key_name TEXT,
  key_prefix TEXT,
  user TEXT,
  model TEXT NOT NULL,
  provider TEXT,
  upstream_model TEXT,
  endpoint TEXT NOT NULL,
  stream INTEGER NOT NULL CHECK (stream IN (0, 1)),
  -- As it was answered; 499 where the client left before anything was.
  status INTEGER NOT NULL,
  ending TEXT NOT NULL,
  input_tokens INTEGER,
  output_tokens INTEGER,
  reasoning_tokens INTEGER,
  -- 1: the upstream reported these counts. 0: it did not, and they are unknown.
  exact INTEGER NOT NULL CHECK (exact IN (0, 1)),
  queued_ms INTEGER NOT NULL,
  first_token_ms INTEGER,
  duration_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL
);

CREATE INDEX usage_by_time ON usage (time);

CREATE TABLE usage_hours (
  -- `YYYY-MM-DDTHH`
  hour TEXT NOT NULL,
  -- Empty where the call had none, since NULLs are all different in a key.
  key TEXT NOT NULL,
  user TEXT NOT NULL,
  model TEXT NOT NULL,
  provider TEXT NOT NULL,
  ending TEXT NOT NULL,
  requests INTEGER NOT NULL,
  exact INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  reasoning_tokens INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  queued_ms INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  -- Calls that had a first token, and their times to it added up.
  first_tokens INTEGER NOT NULL,
  first_token_ms INTEGER NOT NULL,
  PRIMARY KEY (hour, key, user, model, provider, ending)
) WITHOUT ROWID;
