/** What upstreams call the end of an answer, by its meaning. Knows no provider by name. */
import type { FinishReason } from './events.ts';

const wordsByMeaning = {
  stop: ['stop', 'eos', 'eos_token', 'end_turn', 'stop_sequence', 'end', 'complete', 'completed', 'done'],
  length: [
    'length',
    'max_tokens',
    'max_length',
    'max_output_tokens',
    'max_completion_tokens',
    'model_length',
    'model_context_window_exceeded',
    'context_length_exceeded',
    'token_limit',
  ],
  tool_calls: ['tool_calls', 'tool_call', 'tool_use', 'function_call', 'function_calls'],
  content_filter: [
    'content_filter',
    'content_filtered',
    'sensitive',
    'safety',
    'recitation',
    'refusal',
    'blocklist',
    'blocked',
    'prohibited_content',
    'spii',
  ],
  failed: [
    'error',
    'network_error',
    'internal_error',
    'failed',
    'failure',
    'abort',
    'aborted',
    'cancelled',
    'canceled',
    'insufficient_system_resource',
  ],
} as const satisfies Record<FinishReason | 'failed', readonly string[]>;

type Meaning = keyof typeof wordsByMeaning;

const meanings: ReadonlyMap<string, Meaning> = new Map(
  Object.entries(wordsByMeaning).flatMap(([meaning, words]) =>
    words.map((word): [string, Meaning] => [word, meaning as Meaning]),
  ),
);

/** In any case and with any joints: `MAX_TOKENS`, `content-filter`, `maxTokens`. Undefined for a word that nobody knows. */
export function finishMeaning(word: string): Meaning | undefined {
  const known = meanings.get(word);
  if (known !== undefined) return known;
  const joined = word
    .trim()
    .replaceAll(/([a-z])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .replaceAll(/[\s-]+/g, '_');
  return meanings.get(joined.replace(/^finish_reason_/, ''));
}
