/** The top-level fields of a body that its schema does not name: some provider may know them. Knows no provider and no dialect. */
import type { z } from 'zod';

export type ExtraFields = Readonly<Record<string, unknown>>;

/** Reads bodies of one loose schema, made once for each. Undefined where there is nothing beside what the schema names. */
export function extraReader(schema: z.ZodObject): (body: object) => ExtraFields | undefined {
  const known = new Set(Object.keys(schema.shape));
  return (body) => {
    let extra: Record<string, unknown> | undefined;
    const given: readonly string[] = Object.keys(body);
    for (const name of given) {
      if (known.has(name)) continue;
      extra ??= {};
      extra[name] = (body as ExtraFields)[name];
    }
    return extra;
  };
}

/** For dialects whose callers send fields of their own with everything: a route goes without those that it cannot honour. */
export function asWishes(extra: ExtraFields): ReadonlyMap<string, string> {
  return new Map(Object.keys(extra).map((name) => [name, name]));
}
