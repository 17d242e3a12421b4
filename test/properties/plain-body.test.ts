/** The short way through a chat body, against the schema whose place it takes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { chatCompletionBody } from '../../src/facades/openai-request.ts';
import { plainReader } from '../../src/facades/plain-body.ts';
import { chatBody } from '../../src/facades/unified.ts';

const bodies: readonly (readonly [string, z.ZodObject])[] = [
  ['the unified API', chatBody],
  ["OpenAI's dialect", chatCompletionBody],
];

const anything = fc.oneof(
  fc.string({ maxLength: 4 }),
  fc.double(),
  fc.integer({ min: -3, max: 9 }),
  fc.boolean(),
  fc.constant(null),
  fc.constant(undefined),
  fc.jsonValue({ maxDepth: 2 }),
);
const usualRole = fc.constantFrom('user', 'assistant', 'system');
const role = fc.oneof({ weight: 9, arbitrary: usualRole }, fc.constantFrom('tool', 'developer', 'nobody'));
const plainMessage = fc.record({ role, content: fc.string({ maxLength: 4 }) });
const oddMessage = fc.record(
  {
    role: fc.oneof(role, anything),
    content: anything,
    name: anything,
    tool_calls: anything,
    extra: anything,
  },
  { requiredKeys: [] },
);
const messages = fc.array(fc.oneof({ weight: 9, arbitrary: plainMessage }, oddMessage), { maxLength: 3 });

const names = bodies.flatMap(([, schema]) => Object.keys(schema.shape));
const oddNames = ['unknown', 'constructor', 'toString', 'hasOwnProperty'];

const mostly = <T>(usual: fc.Arbitrary<T>) => fc.oneof({ weight: 9, arbitrary: usual }, anything);
const usualFields = {
  model: mostly(fc.constant('a-model')),
  messages: mostly(messages),
  stream: mostly(fc.boolean()),
};

const body = fc
  .tuple(
    fc.oneof(
      { weight: 9, arbitrary: fc.record(usualFields, { requiredKeys: ['model', 'messages'] }) },
      fc.record(usualFields, { requiredKeys: [] }),
    ),
    fc.dictionary(fc.constantFrom(...names, ...oddNames), anything, { maxKeys: 2 }),
  )
  .map(([first, more]): unknown => ({ ...more, ...first }));

describe.each(bodies)('a body of %s', (_, schema) => {
  const read = plainReader(schema.shape);

  it('is read as the schema reads it, or left to the schema', () => {
    let short = 0;
    fc.assert(
      fc.property(fc.oneof({ weight: 9, arbitrary: body }, anything), (given) => {
        const found = read(given);
        if (found === undefined) return;
        short += 1;
        const parsed = schema.safeParse(given);
        expect(parsed.error).toBeUndefined();
        expect(found).toEqual(parsed.data);
      }),
      { numRuns: 3000 },
    );
    expect(short).toBeGreaterThan(300);
  });

  it('goes the short way if it is an ordinary one', () => {
    const ordinary = {
      model: 'a-model',
      messages: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'hello' },
        { role: 'assistant', content: '' },
      ],
      stream: true,
      temperature: 0.5,
      max_tokens: 100,
    };
    expect(read(ordinary)).toEqual(schema.parse(ordinary));
  });

  it.each([
    ['another field', { unheard_of: 1 }],
    ["a field of every object's", { constructor: 1 }],
    ['a value out of range', { temperature: 9 }],
    ['parts as content', { messages: [{ role: 'user', content: [{ type: 'text', text: 'hello' }] }] }],
    ['a message with a name', { messages: [{ role: 'user', content: 'hello', name: 'me' }] }],
    ['no messages', { messages: [] }],
    ['an empty title', { model: '' }],
  ])('is left to the schema with %s', (_what, more) => {
    const plain = { model: 'a-model', messages: [{ role: 'user', content: 'hello' }] };
    expect(read({ ...plain, ...more })).toBeUndefined();
  });
});
