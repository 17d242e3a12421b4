/**
 * The members of a chat-completions answer that anybody here asks for: chunk, whole chat answer and text completion in one,
 * since they differ only in where a choice keeps its text. What is merely interesting is left out where it is not what
 * it should be; what the answer consists of makes it malformed.
 */
import {
  type JsonObject,
  looseNumber,
  looseObject,
  looseText,
  Malformed,
  strictList,
  strictObject,
  strictText,
} from './wire-values.ts';

export interface WireToolCall {
  /** From 0 on */
  readonly index: number | undefined;
  readonly id: string | undefined;
  readonly name: string | undefined;
  /** A piece of JSON text. */
  readonly arguments: string | undefined;
}

/** A stream's `delta` or a whole answer's `message`. */
export interface WirePart {
  readonly content: string | undefined;
  readonly refusal: string | undefined;
  readonly reasoning: string | undefined;
  readonly toolCalls: readonly WireToolCall[] | undefined;
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
}

function readToolCall(value: unknown): WireToolCall {
  const call = strictObject(value);
  if (call === undefined) throw new Malformed();
  const { index } = call;
  const numbered = index !== undefined && index !== null;
  if (numbered && !(Number.isSafeInteger(index) && Number(index) >= 0)) throw new Malformed();
  const named = strictObject(call['function']);
  return {
    index: numbered ? Number(index) : undefined,
    id: strictText(call['id']),
    name: strictText(named?.['name']),
    arguments: strictText(named?.['arguments']),
  };
}

function readPart(value: unknown): WirePart | undefined {
  const part = strictObject(value);
  if (part === undefined) return undefined;
  return {
    content: strictText(part['content']),
    refusal: strictText(part['refusal']),
    // Two names for one thing; the second is taken by others for something else as well.
    reasoning: strictText(part['reasoning_content']) || looseText(part['reasoning']),
    toolCalls: strictList(part['tool_calls'], readToolCall),
  };
}

function readChoice(value: unknown): WireChoice {
  const choice = strictObject(value);
  if (choice === undefined) throw new Malformed();
  return {
    delta: readPart(choice['delta']),
    message: readPart(choice['message']),
    text: strictText(choice['text']),
    finishReason: strictText(choice['finish_reason']),
    logprobs: looseObject(choice['logprobs']),
  };
}

/** Token counts; undefined where there are none. */
export function readWireUsage(value: unknown): WireUsage | undefined {
  const usage = looseObject(value);
  if (usage === undefined) return undefined;
  return {
    promptTokens: looseNumber(usage['prompt_tokens']),
    completionTokens: looseNumber(usage['completion_tokens']),
    totalTokens: looseNumber(usage['total_tokens']),
    cachedTokens: looseNumber(looseObject(usage['prompt_tokens_details'])?.['cached_tokens']),
    reasoningTokens: looseNumber(looseObject(usage['completion_tokens_details'])?.['reasoning_tokens']),
  };
}

/** Undefined for what is no such answer. */
export function readAnswer(json: unknown): WireAnswer | undefined {
  try {
    const answer = strictObject(json);
    if (answer === undefined) return undefined;
    return {
      model: strictText(answer['model']),
      choices: strictList(answer['choices'], readChoice),
      usage: readWireUsage(answer['usage']),
      stats: looseObject(answer['stats']),
    };
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}
