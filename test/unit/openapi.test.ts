/** The committed OpenAPI document: good by a linter's rules, and with names and words that a person would choose. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const document = JSON.parse(readFileSync(path.join(root, 'openapi/openapi.json'), 'utf8'));

it('passes redocly without an error or a warning', { timeout: 120_000 }, async () => {
  const { stdout } = await promisify(execFile)(
    path.join(root, 'node_modules/.bin/redocly'),
    ['lint', 'openapi/openapi.json', '--format=json'],
    { cwd: root, env: { ...process.env, REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', REDOCLY_TELEMETRY: 'off' } },
  );
  const { problems, totals } = JSON.parse(stdout);
  expect(problems).toEqual([]);
  expect(totals).toMatchObject({ errors: 0, warnings: 0 });
});

it('names every operation once, in words', () => {
  const ids = Object.values<Record<string, { operationId?: string }>>(document.paths).flatMap((item) =>
    Object.values(item).map(({ operationId }) => operationId ?? ''),
  );
  for (const id of ids) expect(id).toMatch(/^[a-z]+(?:[A-Z][A-Za-z]+)*$/);
  expect(new Set(ids).size).toBe(ids.length);
});

it('names the shape of every body and JSON answer', () => {
  for (const item of Object.values<Record<string, Record<string, unknown>>>(document.paths)) {
    for (const { operationId, requestBody, responses } of Object.values(item)) {
      const schemas = JSON.stringify([requestBody ?? {}, responses]).match(
        /"application\/json":\{"schema":\{"[^"]+"/g,
      );
      const unnamed = (schemas ?? []).filter((schema) => !schema.endsWith('"$ref"'));
      expect({ operationId, unnamed }).toEqual({ operationId, unnamed: [] });
    }
  }
});

const described = Object.keys(document.components.schemas).filter(
  (name) =>
    name === 'ChatRequest' ||
    /^(?:System|User|Assistant|Tool)Message$/.test(name) ||
    /Settings$|Order$|^New|^(?:Provider|Route|ManagedModel|Key|Removal|ProviderReport|LoadedModel|Load|Download|UsageLine)$/.test(
      name,
    ),
);

it.each(described)('describes every field of %s', (name) => {
  const { properties } = document.components.schemas[name];
  const silent = Object.entries<{ description?: string }>(properties).filter(
    ([, field]) => field.description === undefined,
  );
  expect(silent.map(([field]) => field)).toEqual([]);
});
