/** About how many tokens a call has used, where nobody has counted them. Knows no limit and no tokenizer. */
import type { ChatResult, Usage } from '../chat/events.ts';
import type { EmbeddingRequest, GenerationRequest } from '../chat/request.ts';
import type { Call } from './call.ts';

/** Tokens that are reserved for an answer whose length the request does not limit. */
const usualAnswer = 256;

/** About four bytes of text make one token; of pictures only the upstream knows. */
const bytesPerToken = 4;

function bytesOf(request: GenerationRequest | EmbeddingRequest): number {
  let bytes = 0;
  const count = (text: string): void => {
    bytes += Buffer.byteLength(text);
  };
  switch (request.kind) {
    case 'chat':
      for (const { content } of request.messages) {
        if (typeof content === 'string') count(content);
        else for (const part of content ?? []) if (part.type === 'text') count(part.text);
      }
      return bytes;
    case 'completion':
      count(request.prompt);
      return bytes;
    case 'embedding':
      request.input.forEach(count);
      return bytes;
    default:
      return request satisfies never;
  }
}

/** Roughly how many tokens a prompt has, the tools that it offers included. */
export function estimatePrompt(request: GenerationRequest): number {
  const { tools } = request.parameters;
  const offered = tools === undefined ? 0 : Buffer.byteLength(JSON.stringify(tools));
  return Math.ceil((bytesOf(request) + offered) / bytesPerToken);
}

/** Roughly how many tokens the text of a call has. Noted in the call, which outlives its request. */
export function notePrompt(request: GenerationRequest | EmbeddingRequest, call: Call): number {
  call.promptTokens ??= Math.ceil(bytesOf(request) / bytesPerToken);
  return call.promptTokens;
}

/** Roughly how many tokens a request will use, its answer included. */
export function estimateTokens(request: GenerationRequest | EmbeddingRequest, call: Call): number {
  const answer = request.kind === 'embedding' ? 0 : (request.parameters.max_tokens ?? usualAnswer);
  return notePrompt(request, call) + answer;
}

/** What came of an answer that was not streamed, as far as the upstream did not count it. In bytes of text. */
export function bytesOfAnswer({ content, reasoning = '', toolCalls = [] }: ChatResult): number {
  let bytes = Buffer.byteLength(content) + Buffer.byteLength(reasoning);
  for (const call of toolCalls) bytes += Buffer.byteLength(call.function.arguments);
  return bytes;
}

/**
 * Roughly what a call has used whose upstream did not say: the prompt once it was sent, and what came. Null for one that was
 * never sent, or that failed before anything came: nobody knows what that has cost.
 */
export function estimateUsage(call: Call): Usage | null {
  const came = call.answerBytes > 0;
  const failed = call.error !== undefined && !call.stopped;
  if (!came && (failed || !call.sent)) return null;
  const input_tokens = call.promptTokens ?? 0;
  const output_tokens = Math.ceil(call.answerBytes / bytesPerToken);
  return { input_tokens, output_tokens, total_tokens: input_tokens + output_tokens };
}
