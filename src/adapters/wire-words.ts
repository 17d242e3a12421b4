/** What a message says, whether it stands there as text, as a number or as a list of parts. Knows no wire. */
import { emptyAsAbsent, isObject, type JsonObject, looseText, Malformed } from './wire-values.ts';

/** The words of a message, by the kind of its parts. */
export interface Words {
  readonly text: string;
  readonly thoughts: string;
}

const silence: Words = { text: '', thoughts: '' };

/** Lists of parts come from Mistral and Databricks, numbers from servers that read their own output as JSON. @throws Malformed */
export function readWords(value: unknown): Words {
  if (typeof value === 'string') return value === '' ? silence : { text: value, thoughts: '' };
  if (emptyAsAbsent(value) === undefined) return silence;
  if (typeof value === 'number') return { text: String(value), thoughts: '' };
  if (isObject(value)) return readPart(value);
  if (!Array.isArray(value)) throw new Malformed();
  const parts = value.map(readWords);
  return {
    text: parts.map(({ text }) => text).join(''),
    thoughts: parts.map(({ thoughts }) => thoughts).join(''),
  };
}

/** A part of a kind that holds no words, such as a citation, says nothing. */
function readPart(part: JsonObject): Words {
  const type = looseText(part['type']);
  if (type === 'thinking' || type === 'reasoning') {
    const { text, thoughts } = readWords(part['thinking'] ?? part['reasoning'] ?? part['text']);
    return { text: '', thoughts: text + thoughts };
  }
  return readWords(part['text'] ?? part['refusal']);
}

/** All that it says, thoughts and the rest alike; undefined where that is nothing. @throws Malformed */
export function plainWords(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  const { text, thoughts } = readWords(value);
  return text + thoughts || undefined;
}
