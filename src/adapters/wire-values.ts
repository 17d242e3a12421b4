/**
 * Reads members of parsed JSON without a schema library, for what comes once per answer or per event: a zod schema of the
 * same answer takes 6 us. Knows no wire.
 */

export type JsonObject = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** What no reader here can read; for the reader's caller, never for anybody else. */
export class Malformed extends Error {}

/** Undefined where it is absent, null or something else. */
export const looseText = (value: unknown): string | undefined =>
  typeof value === 'string' ? value : undefined;

/** Undefined where it is absent, null or something else. */
export const looseNumber = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined;

/** Undefined where it is absent, null or something else. */
export const looseObject = (value: unknown): JsonObject | undefined => (isObject(value) ? value : undefined);

/** Undefined where it is absent or null. @throws Malformed for anything but a string */
export function strictText(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (value === undefined || value === null) return undefined;
  throw new Malformed();
}

/** Undefined where it is absent or null. @throws Malformed for anything but an object */
export function strictObject(value: unknown): JsonObject | undefined {
  if (isObject(value)) return value;
  if (value === undefined || value === null) return undefined;
  throw new Malformed();
}

/** Undefined where it is absent or null. @throws Malformed for anything but a list, or whatever `read` throws */
export function strictList<T>(value: unknown, read: (item: unknown) => T): readonly T[] | undefined {
  if (Array.isArray(value)) return value.map(read);
  if (value === undefined || value === null) return undefined;
  throw new Malformed();
}
