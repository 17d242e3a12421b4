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

/** A number, or the digits of one: some servers count in texts. Undefined below 0 and for anything else. */
export function looseCount(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : looseNumber(value);
  return number !== undefined && number >= 0 ? number : undefined;
}

/** Undefined for all that says nothing, whatever was expected there: null, false, "", an empty object or list. */
export function emptyAsAbsent(value: unknown): unknown {
  if (value === null || value === undefined || value === false || value === '') return undefined;
  return typeof value === 'object' && Object.keys(value).length === 0 ? undefined : value;
}

/** Undefined where it is absent or null. @throws Malformed for anything but an object */
export function strictObject(value: unknown): JsonObject | undefined {
  if (isObject(value)) return value;
  if (value === undefined || value === null) return undefined;
  throw new Malformed();
}
