/**
 * Most bodies are a model, messages whose content is a string, and a few parameters. A chat schema of forty fields takes
 * 15 us for such a body, nearly all of it for what is not there; this reads what is there. It accepts nothing that the schema
 * would not, and returns what the schema would; everything else is the schema's to judge. Knows no field by name but three.
 */
import type { z } from 'zod';
import { most } from '../chat/request.ts';

/** See validation.ts. */
const atFirst = { reportInput: false, abortEarly: true } as const;

type Fields = Readonly<Record<string, z.ZodType>>;

function isPlainMessage(message: unknown): boolean {
  if (typeof message !== 'object' || message === null) return false;
  if (!('role' in message && 'content' in message) || Object.keys(message).length !== 2) return false;
  return typeof message.content === 'string' && isPlainRole(message.role);
}

const isPlainRole = (role: unknown): boolean => role === 'user' || role === 'assistant' || role === 'system';

const isPlainList = (messages: unknown): boolean =>
  Array.isArray(messages) &&
  messages.length > 0 &&
  messages.length <= most.messages &&
  messages.every(isPlainMessage);

/**
 * Reads bodies of an object schema without checks or defaults of its own, whose only required fields are `model`, any string but
 * the empty one, and `messages`, which takes an object of just `role` and a string as `content` as it is.
 * @returns what the schema's parse would return, or undefined for a body that is not plain
 */
export function plainReader(fields: Fields): (body: unknown) => object | undefined {
  const schemas = new Map(Object.entries(fields));
  return (body) => {
    if (typeof body !== 'object' || body === null || !('model' in body) || !('messages' in body))
      return undefined;
    const read: Record<string, unknown> = {};
    const given: readonly (readonly [string, unknown])[] = Object.entries(body);
    for (const [name, value] of given) {
      if (name === 'messages') {
        if (!isPlainList(value)) return undefined;
        read[name] = value;
      } else if (name === 'model') {
        if (typeof value !== 'string' || value === '') return undefined;
        read[name] = value;
      } else if (name === 'stream' && typeof value === 'boolean') {
        read[name] = value;
      } else {
        const parsed = schemas.get(name)?.safeParse(value, atFirst);
        if (parsed?.success !== true) return undefined;
        read[name] = parsed.data;
      }
    }
    return read;
  };
}
