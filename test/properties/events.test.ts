/** The two directions between an answer and the events that add up to it. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type ChatEvent, type ChatResult, collect, isContent, toEvents } from '../../src/chat/events.ts';

const words = fc.string({ unit: 'grapheme', maxLength: 12 });
const someWords = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 });
const count = fc.nat(100_000);

const toolCall = fc.record({
  id: words,
  type: fc.constant('function' as const),
  function: fc.record({ name: someWords, arguments: words }),
});

const serverToolCall = fc.record(
  { tool: someWords, arguments: fc.jsonValue({ maxDepth: 2 }), output: words, reason: words },
  { requiredKeys: ['tool'] },
);

const finish = fc.record({
  reason: fc.constantFrom('stop', 'length', 'content_filter', 'tool_calls'),
  raw: fc.option(someWords),
});

const result: fc.Arbitrary<ChatResult> = fc.record(
  {
    model: someWords,
    content: words,
    reasoning: someWords,
    toolCalls: fc.array(toolCall, { minLength: 1, maxLength: 3 }),
    serverToolCalls: fc.array(serverToolCall, { minLength: 1, maxLength: 3 }),
    logprobs: fc.record({
      content: fc.array(fc.record({ token: words, logprob: fc.double({ noNaN: true }) })),
    }),
    finish,
    usage: fc.option(fc.record({ input_tokens: count, output_tokens: count, total_tokens: count })),
    stats: fc.record({ tokens_per_second: count, stop_reason: words }),
    responseId: someWords,
  },
  { requiredKeys: ['content', 'finish', 'usage'] },
);

it('an answer made into events and collected is the same answer', () => {
  fc.assert(
    fc.property(result, (answer) => {
      expect(collect(toEvents(answer))).toEqual(answer);
    }),
  );
});

it('the events of an answer begin with its start and hold one terminal event, at the end', () => {
  fc.assert(
    fc.property(result, (answer) => {
      const types = toEvents(answer).map((event) => event.type);
      expect(types[0]).toBe('start');
      expect(types.indexOf('finish')).toBe(types.length - 1);
      expect(types.lastIndexOf('start')).toBe(0);
    }),
  );
});

/** Splits a text event in two, as an upstream might have sent it. */
function split(event: ChatEvent, at: number): ChatEvent[] {
  if (event.type !== 'text' && event.type !== 'reasoning') return [event];
  const { text } = event;
  const middle = at % (text.length + 1);
  return [
    { ...event, text: text.slice(0, middle) },
    { type: event.type, text: text.slice(middle) },
  ];
}

it('it does not matter to the collected answer in how many deltas the text came', () => {
  fc.assert(
    fc.property(result, fc.nat(), (answer, at) => {
      const pieces = toEvents(answer).flatMap((event) => (isContent(event) ? split(event, at) : [event]));
      expect(collect(pieces)).toEqual(answer);
    }),
  );
});
