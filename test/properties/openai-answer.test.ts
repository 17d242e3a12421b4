/** The hand-written reader of answers, against a schema of the same answers. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { z } from 'zod';
import { readAnswer } from '../../src/adapters/openai-answer.ts';

const text = z.string().nullish();
const count = z.number().min(0).nullish().catch(undefined);
const part = z.object({
  content: text,
  refusal: text,
  reasoning_content: text,
  reasoning: text.catch(undefined),
  tool_calls: z
    .array(
      z.object({
        index: z.int().min(0).nullish(),
        id: text,
        function: z.object({ name: text, arguments: text }).nullish(),
      }),
    )
    .nullish(),
});
const choice = z.object({
  delta: part.nullish(),
  message: part.nullish(),
  text,
  finish_reason: text,
  logprobs: z.record(z.string(), z.unknown()).nullish().catch(undefined),
});
const answer = z.object({
  model: text,
  choices: z.array(choice).nullish(),
  usage: z
    .object({
      prompt_tokens: count,
      completion_tokens: count,
      total_tokens: count,
      prompt_tokens_details: z.object({ cached_tokens: count }).nullish().catch(undefined),
      completion_tokens_details: z.object({ reasoning_tokens: count }).nullish().catch(undefined),
    })
    .nullish()
    .catch(undefined),
  stats: z.record(z.string(), z.unknown()).nullish().catch(undefined),
});

const partOf = (given: z.output<typeof part> | null | undefined) =>
  given
    ? {
        content: given.content ?? undefined,
        refusal: given.refusal ?? undefined,
        reasoning: given.reasoning_content || given.reasoning || undefined,
        toolCalls: given.tool_calls?.map((call) => ({
          index: call.index ?? undefined,
          id: call.id ?? undefined,
          name: call.function?.name ?? undefined,
          arguments: call.function?.arguments ?? undefined,
        })),
      }
    : undefined;

/** What the schema makes of it, in the reader's terms. */
function expected(json: unknown) {
  const { data } = answer.safeParse(json);
  if (data === undefined) return undefined;
  return {
    model: data.model ?? undefined,
    choices: data.choices?.map((given) => ({
      delta: partOf(given.delta),
      message: partOf(given.message),
      text: given.text ?? undefined,
      finishReason: given.finish_reason ?? undefined,
      logprobs: given.logprobs ?? undefined,
    })),
    usage: data.usage
      ? {
          promptTokens: data.usage.prompt_tokens ?? undefined,
          completionTokens: data.usage.completion_tokens ?? undefined,
          totalTokens: data.usage.total_tokens ?? undefined,
          cachedTokens: data.usage.prompt_tokens_details?.cached_tokens ?? undefined,
          reasoningTokens: data.usage.completion_tokens_details?.reasoning_tokens ?? undefined,
        }
      : undefined,
    stats: data.stats ?? undefined,
    timings: undefined,
    promptProgress: undefined,
  };
}

const odd = fc.oneof(
  fc.constantFrom(null, undefined, true, '', 'text', -1, 0, 2, 1.5, Number.POSITIVE_INFINITY),
  fc.constantFrom({}, [], [1], { content: 'x' }, { cached_tokens: 3 }),
);
/** Nearly always what it should be: an answer in which all is odd is malformed at its first member. */
const mostly = <T>(usual: fc.Arbitrary<T>) => fc.oneof({ weight: 12, arbitrary: usual }, odd);
const word = mostly(fc.string({ maxLength: 3 }));
const number = mostly(fc.nat(9));
const object = <T>(members: Record<string, fc.Arbitrary<T>>) =>
  mostly(fc.record(members, { requiredKeys: [] }));
const list = <T>(items: fc.Arbitrary<T>) => mostly(fc.array(items, { maxLength: 2 }));

const toolCall = object<unknown>({
  index: number,
  id: word,
  function: object({ name: word, arguments: word }),
});
const anyPart = object<unknown>({
  content: word,
  refusal: word,
  reasoning_content: word,
  reasoning: word,
  tool_calls: list(toolCall),
});
const anyAnswer = object<unknown>({
  model: word,
  choices: list(
    object<unknown>({ delta: anyPart, message: anyPart, text: word, finish_reason: word, logprobs: odd }),
  ),
  usage: object<unknown>({
    prompt_tokens: number,
    completion_tokens: number,
    total_tokens: number,
    prompt_tokens_details: odd,
    completion_tokens_details: object({ reasoning_tokens: number }),
  }),
  stats: odd,
});

/** Without the objects in which nothing is told. */
const comparable = (found: unknown): unknown =>
  JSON.parse(JSON.stringify(found), (_name, member: unknown) => {
    if (Array.isArray(member)) return member.filter((item) => item !== undefined);
    const isEmpty = typeof member === 'object' && member !== null && Object.keys(member).length === 0;
    return isEmpty ? undefined : member;
  });

it('reads what the schema reads, and survives what it refuses', () => {
  let good = 0;
  fc.assert(
    fc.property(anyAnswer, (json) => {
      const found = readAnswer(json);
      const wanted = expected(json);
      if (wanted === undefined) return;
      expect(comparable(found)).toEqual(comparable(wanted));
      good += 1;
    }),
    { numRuns: 5000 },
  );
  expect(good).toBeGreaterThan(500);
});
