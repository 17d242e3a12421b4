/** The OpenAPI document beyond what the routes say: names of shapes, and what only the running server knows. Knows no route. */

import type { ExampleKind } from '../../gateway/example-model.ts';

type Json = { [key: string]: unknown };

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A schema with such a title is a component of that name. */
const isName = (title: unknown): title is string =>
  typeof title === 'string' && /^[A-Z][A-Za-z0-9]+$/.test(title);

/**
 * Moves every schema that has a name for its title to components.schemas, and leaves a reference in its place.
 * @throws Error where two different shapes have one name
 */
export function nameSchemas(document: Json): Json {
  const schemas: Json = {};
  const texts = new Map<string, string>();
  const move = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(move);
    if (!isObject(value)) return value;
    const moved: Json = {};
    for (const [key, child] of Object.entries(value)) {
      // Examples are data, however they look.
      moved[key] = key === 'example' || key === 'examples' || key === 'info' ? child : move(child);
    }
    const { title, ...shape } = moved;
    if (!isName(title)) return moved;
    const text = JSON.stringify(shape);
    if ((texts.get(title) ?? text) !== text) throw new Error(`two shapes are named ${title}`);
    texts.set(title, text);
    schemas[title] = shape;
    return { $ref: `#/components/schemas/${title}` };
  };
  const { components, ...rest } = document;
  const named = move(rest);
  const sorted = Object.fromEntries(Object.entries(schemas).sort(([one], [other]) => (one < other ? -1 : 1)));
  return {
    ...(isObject(named) ? named : rest),
    components: { ...(isObject(components) ? components : {}), schemas: sorted },
  };
}

export interface Running {
  readonly auth: boolean;
  /** The title of a model that answers; undefined where there is none. */
  exampleModel(kind: ExampleKind): string | undefined;
}

function kindOf(path: string): ExampleKind {
  if (path.endsWith('/embeddings')) return 'embedding';
  return /(?<!\/chat)\/completions$/.test(path) ? 'completion' : 'chat';
}

/** Every object of an OpenAPI document that describes an operation, by path. */
function* operationsIn(document: Json): Generator<readonly [string, Json]> {
  for (const [path, item] of Object.entries(isObject(document['paths']) ? document['paths'] : {})) {
    for (const operation of Object.values(isObject(item) ? item : {})) {
      if (isObject(operation)) yield [path, operation];
    }
  }
}

/** Puts the model into each example of a request's body that names one. */
function useModel(operation: Json, model: string): void {
  const walk = (value: unknown): void => {
    if (Array.isArray(value)) for (const child of value) walk(child);
    if (!isObject(value)) return;
    if (typeof value['model'] === 'string') value['model'] = model;
    for (const [key, child] of Object.entries(value)) if (key !== 'schema') walk(child);
  };
  walk(operation['requestBody']);
}

/** The document as the running server shows it: a model that answers in the examples, and padlocks only where a key is wanted. */
export function describeRunning(document: Json, { auth, exampleModel }: Running): Json {
  const copy = structuredClone(document);
  if (auth) {
    copy['security'] = [{ bearer: [] }, { apiKey: [] }];
  } else {
    delete copy['security'];
    if (isObject(copy['components'])) delete copy['components']['securitySchemes'];
  }
  for (const [path, operation] of operationsIn(copy)) {
    if (!auth) delete operation['security'];
    const model = exampleModel(kindOf(path));
    if (model !== undefined) useModel(operation, model);
  }
  return copy;
}
