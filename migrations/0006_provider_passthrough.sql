-- Request fields that no API of the gateway has and that this provider gets as they came: a JSON list of names, `*` for all of them.
ALTER TABLE providers ADD COLUMN passthrough TEXT NOT NULL DEFAULT '[]' CHECK (json_type(passthrough) = 'array');
