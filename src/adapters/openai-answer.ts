/**
 * The members of a chat-completions answer that anybody here asks for: chunk, whole chat answer and text completion in one,
 * since they differ only in where a choice keeps its text. What says nothing (null, false, "", {}, []) counts as absent whatever
 * should stand there; text that cannot be read makes the answer malformed, everything else is merely left out.
 */
import type { ToolCallPiece } from './tool-calls.ts';
import {
  emptyAsAbsent,
  isObject,
  type JsonObject,
  looseCount,
  looseNumber,
  looseObject,
  looseText,
  Malformed,
  strictObject,
} from './wire-values.ts';
import { plainWords, readWords } from './wire-words.ts';

/** A stream's `delta` or a whole answer's `message`. */
export interface WirePart {
  readonly content: string | undefined;
  readonly refusal: string | undefined;
  readonly reasoning: string | undefined;
  readonly toolCalls: readonly ToolCallPiece[] | undefined;
}

export interface WireChoice {
  readonly delta: WirePart | undefined;
  readonly message: WirePart | undefined;
  readonly text: string | undefined;
  readonly finishReason: string | undefined;
  readonly logprobs: JsonObject | undefined;
}

export interface WireUsage {
  readonly promptTokens: number | undefined;
  readonly completionTokens: number | undefined;
  readonly totalTokens: number | undefined;
  readonly cachedTokens: number | undefined;
  readonly reasoningTokens: number | undefined;
}

export interface WireAnswer {
  readonly model: string | undefined;
  readonly choices: readonly WireChoice[] | undefined;
  readonly usage: WireUsage | undefined;
  readonly stats: JsonObject | undefined;
  /** llama.cpp's measurements. */
  readonly timings: JsonObject | undefined;
  /** llama.cpp: the part of the prompt that is read, 0 to 1. */
  readonly promptProgress: number | undefined;
}

function readIndex(value: unknown): number | undefined {
  const index = looseCount(value);
  return Number.isSafeInteger(index) ? index : undefined;
}

/** JSON text, or the object that it should have become. An empty one may be the place of what is yet to come. */
function readArguments(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  const given = emptyAsAbsent(value);
  return given === undefined ? undefined : JSON.stringify(given);
}

function readToolCall(value: unknown): ToolCallPiece[] {
  if (emptyAsAbsent(value) === undefined) return [];
  const call = strictObject(value) ?? {};
  const { id } = call;
  const named = looseObject(call['function']) ?? call;
  return [
    {
      index: readIndex(call['index']),
      id: typeof id === 'number' ? String(id) : looseText(id),
      name: looseText(named['name']),
      arguments: readArguments(named['arguments']),
    },
  ];
}

/** A list, one call without its list, or the one call of OpenAI's former `function_call`. */
function readToolCalls(part: JsonObject): readonly ToolCallPiece[] | undefined {
  const calls = part['tool_calls'];
  if (Array.isArray(calls)) return calls.flatMap(readToolCall);
  if (emptyAsAbsent(calls) !== undefined) return readToolCall(calls);
  const former = part['function_call'];
  return isObject(former) ? readToolCall({ index: 0, function: former }) : undefined;
}

function readPart(value: unknown): WirePart | undefined {
  const part = strictObject(emptyAsAbsent(value));
  if (part === undefined) return undefined;
  const content = part['content'];
  const words = typeof content === 'string' ? undefined : readWords(content);
  return {
    content: words === undefined ? looseText(content) : words.text || undefined,
    refusal: plainWords(part['refusal']),
    // Two names for one thing; the second is taken by others for something else as well.
    reasoning:
      plainWords(part['reasoning_content']) || looseText(part['reasoning']) || words?.thoughts || undefined,
    toolCalls: readToolCalls(part),
  };
}

function readChoice(value: unknown): WireChoice[] {
  const choice = strictObject(emptyAsAbsent(value));
  if (choice === undefined) return [];
  const finish = choice['finish_reason'];
  return [
    {
      delta: readPart(choice['delta']),
      message: readPart(choice['message']),
      text: plainWords(choice['text']),
      // SGLang once sent an object.
      finishReason: looseText(finish) ?? looseText(looseObject(finish)?.['type']),
      logprobs: looseObject(choice['logprobs']),
    },
  ];
}

/** Token counts; undefined where there are none. */
export function readWireUsage(value: unknown): WireUsage | undefined {
  const usage = looseObject(value);
  if (usage === undefined) return undefined;
  return {
    promptTokens: looseCount(usage['prompt_tokens']) ?? looseCount(usage['input_tokens']),
    completionTokens: looseCount(usage['completion_tokens']) ?? looseCount(usage['output_tokens']),
    totalTokens: looseCount(usage['total_tokens']),
    cachedTokens: looseCount(looseObject(usage['prompt_tokens_details'])?.['cached_tokens']),
    reasoningTokens: looseCount(looseObject(usage['completion_tokens_details'])?.['reasoning_tokens']),
  };
}

/** Whether it counts anything: many servers send zeros, or nothing, where they do not know yet. */
export const countsTokens = (usage: WireUsage | undefined): boolean =>
  Boolean(usage?.promptTokens || usage?.completionTokens || usage?.totalTokens);

/** Where the answer has its usage: beside the choices, inside one (Moonshot), or under `x_groq`. */
function findUsage(answer: JsonObject): WireUsage | undefined {
  const usual = readWireUsage(answer['usage']);
  if (countsTokens(usual)) return usual;
  const choices = answer['choices'];
  const inChoice = Array.isArray(choices) ? readWireUsage(looseObject(choices[0])?.['usage']) : undefined;
  if (countsTokens(inChoice)) return inChoice;
  return readWireUsage(looseObject(answer['x_groq'])?.['usage']) ?? inChoice ?? usual;
}

function readPromptProgress(value: unknown): number | undefined {
  const progress = looseObject(value);
  const total = looseNumber(progress?.['total']);
  const processed = looseNumber(progress?.['processed']);
  if (total === undefined || processed === undefined || total <= 0) return undefined;
  return Math.min(1, Math.max(0, processed / total));
}

function readChoices(value: unknown): readonly WireChoice[] | undefined {
  if (Array.isArray(value)) return value.flatMap(readChoice);
  if (emptyAsAbsent(value) === undefined) return undefined;
  throw new Malformed();
}

/** Undefined for what is no such answer. */
export function readAnswer(json: unknown): WireAnswer | undefined {
  try {
    const answer = strictObject(json);
    if (answer === undefined) return undefined;
    return {
      model: looseText(answer['model']),
      choices: readChoices(answer['choices']),
      usage: findUsage(answer),
      stats: looseObject(answer['stats']),
      timings: looseObject(answer['timings']),
      promptProgress: readPromptProgress(answer['prompt_progress']),
    };
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}
