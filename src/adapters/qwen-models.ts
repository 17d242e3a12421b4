/** What the models on Bailian can do, as one table matched by model id. Data only: it knows no wire and no request. */

/**
 * `none`: never thinks, and refuses `enable_thinking`. `hybrid-off` and `hybrid-on`: switchable, with the platform's
 * default. `only`: always thinks. `unknown`: not in this table, the platform itself decides.
 */
type Thinking = 'none' | 'hybrid-off' | 'hybrid-on' | 'only' | 'unknown';

/** How low, medium and high reach the model: as a budget of thinking tokens, or as the platform's own words. */
type EffortScale =
  | {
      readonly parameter: 'thinking_budget';
      readonly low: number;
      readonly medium: number;
      readonly high: number;
    }
  | {
      readonly parameter: 'reasoning_effort';
      readonly low: string;
      readonly medium: string;
      readonly high: string;
    };

export interface QwenFamily {
  readonly thinking: Thinking;
  /** Absent where the depth of thinking cannot be set. */
  readonly effort?: EffortScale;
  /** When a plain call is refused: never, while the model thinks, or always. */
  readonly streamOnly: 'never' | 'thinking' | 'always';
  readonly vision: boolean;
  /** Whether the length limit is `max_completion_tokens` (thinking included) instead of the ageing `max_tokens`. */
  readonly maxCompletionTokens: boolean;
  readonly logprobs: boolean;
  /** Whether the model reads the reasoning of earlier turns; the others want it left out. */
  readonly preserveThinking: boolean;
}

interface FamilyRow extends QwenFamily {
  readonly pattern: RegExp;
}

// One ladder for all: the smallest ceiling among the models that take a budget is 30,720 tokens, and a budget above
// the model's ceiling is a 400.
const budget: EffortScale = { parameter: 'thinking_budget', low: 2048, medium: 8192, high: 24_576 };

// Qwen3.8 knows low, medium and xhigh; its documentation maps OpenAI's high to xhigh.
const effortWords: EffortScale = {
  parameter: 'reasoning_effort',
  low: 'low',
  medium: 'medium',
  high: 'xhigh',
};

const plain = {
  thinking: 'none',
  streamOnly: 'never',
  vision: false,
  maxCompletionTokens: false,
  logprobs: false,
  preserveThinking: false,
} as const;

const modern = { ...plain, thinking: 'hybrid-on', effort: budget, maxCompletionTokens: true } as const;

/** What is not in the table is sent as asked, and the platform's own refusal is the answer. */
const unknownFamily: QwenFamily = {
  ...plain,
  thinking: 'unknown',
  effort: budget,
  vision: true,
  logprobs: true,
};

/** The first match counts, so narrower patterns stand before wider ones. */
const families: readonly FamilyRow[] = [
  { pattern: /omni/, ...plain, thinking: 'unknown', effort: budget, streamOnly: 'always', vision: true },

  {
    pattern: /^qwen3\.8-(?:max|flash)/,
    ...modern,
    effort: effortWords,
    vision: true,
    preserveThinking: true,
  },
  { pattern: /^qwen3\.8-/, ...modern, effort: effortWords, vision: true },
  { pattern: /^qwen3\.7-max-preview/, ...modern, thinking: 'only' },
  { pattern: /^qwen3\.7-max/, ...modern },
  { pattern: /^qwen3\.[56]-max/, ...modern, maxCompletionTokens: false },
  { pattern: /^qwen3\.[5-7]-(?:plus|flash)/, ...modern, vision: true },
  { pattern: /^qwen3\.[5-7]-/, ...modern, maxCompletionTokens: false, vision: true },

  { pattern: /^qwen3-max/, ...plain, thinking: 'hybrid-off', effort: budget },
  { pattern: /^qwen3-coder/, ...plain },
  {
    pattern: /^qwen3-vl-(?:plus|flash)/,
    ...plain,
    thinking: 'hybrid-off',
    effort: budget,
    vision: true,
    logprobs: true,
  },
  {
    pattern: /^qwen3-vl-.*-thinking/,
    ...plain,
    thinking: 'only',
    effort: budget,
    streamOnly: 'always',
    vision: true,
    logprobs: true,
  },
  { pattern: /^qwen3-vl-/, ...plain, vision: true, logprobs: true },
  {
    // Documented as stream-only although plain calls were seen to work: a streamed call works either way.
    pattern: /^qwen3-.*-thinking/,
    ...plain,
    thinking: 'only',
    effort: budget,
    streamOnly: 'always',
    logprobs: true,
  },
  { pattern: /^qwen3-.*-instruct/, ...plain, logprobs: true },
  {
    pattern: /^qwen3-\d/,
    ...plain,
    thinking: 'hybrid-on',
    effort: budget,
    streamOnly: 'thinking',
    logprobs: true,
  },

  { pattern: /^qwq/, ...plain, thinking: 'only', streamOnly: 'always' },
  { pattern: /^qvq/, ...plain, thinking: 'only', streamOnly: 'always', vision: true },

  { pattern: /^qwen-(?:plus|flash)-character/, ...plain },
  // Snapshots from before thinking came to these models, named by date (2024-09-19) or by month and day (0919).
  {
    pattern: /^qwen-(?:plus|turbo)-(?:2024-|2025-0[12]-|(?:0\d|1[0-2])\d\d$)/,
    ...plain,
    logprobs: true,
  },
  {
    pattern: /^qwen-(?:plus|turbo)-20\d\d-/,
    ...plain,
    thinking: 'hybrid-off',
    effort: budget,
    streamOnly: 'thinking',
    logprobs: true,
  },
  {
    pattern: /^qwen-(?:plus|turbo|flash)/,
    ...plain,
    thinking: 'hybrid-off',
    effort: budget,
    streamOnly: 'thinking',
  },
  { pattern: /^qwen-vl-/, ...plain, vision: true },
  { pattern: /^qwen(?:2|2\.5)-vl-/, ...plain, vision: true },
  { pattern: /^qwen-(?:max|long|coder|math|mt)/, ...plain },
  { pattern: /^qwen(?:1\.5|2|2\.5)-/, ...plain },
];

/** What the model behind an id can do. Ids are Bailian's own, in lower case, with or without a snapshot's date. */
export function qwenFamily(model: string): QwenFamily {
  return families.find((row) => row.pattern.test(model)) ?? unknownFamily;
}

export interface EmbeddingFamily {
  /** Most inputs per call; one more is a 400. */
  readonly batchLimit: number;
  /** The sizes a vector can have; `fixed`: the parameter is refused; `unchecked`: the platform decides. */
  readonly dimensions: readonly number[] | 'fixed' | 'unchecked';
}

const embeddingFamilies: readonly (EmbeddingFamily & { readonly pattern: RegExp })[] = [
  { pattern: /^text-embedding-v4/, batchLimit: 10, dimensions: [2048, 1536, 1024, 768, 512, 256, 128, 64] },
  { pattern: /^text-embedding-v3/, batchLimit: 10, dimensions: [1024, 768, 512, 256, 128, 64] },
  { pattern: /^text-embedding-v[12]/, batchLimit: 25, dimensions: 'fixed' },
  { pattern: /^qwen3\.7-text-embedding/, batchLimit: 20, dimensions: 'unchecked' },
];

/** The limits of an embedding model; an unknown one gets the smallest batch that any has. */
export function embeddingFamily(model: string): EmbeddingFamily {
  return (
    embeddingFamilies.find((row) => row.pattern.test(model)) ?? { batchLimit: 10, dimensions: 'unchecked' }
  );
}
