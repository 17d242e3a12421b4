/** What model servers mean by the words of their errors, whatever the HTTP status beside them. Knows no provider by name. */
import type { ErrorCause } from '../chat/errors.ts';

/** What a complaint says, in the upstream's own words and codes. */
interface Complaint {
  readonly words: string;
  readonly code: string | undefined;
  readonly type: string | undefined;
}

/** The server speaks of itself: its memory, its process, its files. Another host may do better with the same request. */
const aboutTheHost =
  /(?:failed|unable) to load (?:the )?model|(?:error loading|could not load|cannot load) (?:the )?model|model load(?:ing)? (?:failed|was cancell?ed)|(?:out of|insufficient|not enough|requires more) (?:\w+ ){0,2}(?:memory|vram|ram|resources)|unable to allocate|failed to allocate|cuda error|^\s*operation cancell?ed|model is unloaded|model (?:was )?unloaded|model has crashed|model runner has unexpectedly|(?:process|server) (?:has )?(?:crashed|exited|terminated)/i;

/** The words for a load that is under way, at the beginning or with the model as their subject. */
const isLoading =
  /^\s*loading model|\bmodel (?:\S+ )?is (?:still |currently |now )*(?:being )?load(?:ing|ed)\b(?!\s+with)|server is (?:still )?(?:loading|starting)/i;

/** The catalog and the server disagree. LM Studio, llama.cpp's router and others have a 400 for it. */
const modelIsMissing =
  /model_not_found|invalid model identifier|^\s*no models? (?:is |are )?(?:currently )?loaded|model .{1,200} (?:not found|does not exist)/i;

/** A prompt beyond the context, in the order: codes, LM Studio, llama.cpp and MLX, vLLM and SGLang, Gemini, Ollama, hosted services. */
const doesNotFit = new RegExp(
  [
    'context_length_exceeded|exceed_context_size',
    'tokens to keep from the initial prompt|trying to keep the first|context(?: length| window| size)?(?: the)? overflow',
    "context size has been exceeded|exceed(?:s|ed)? (?:the )?(?:available|maximum|max|model'?s?)?\\s*(?:model )?context",
    'input .{0,40}is too large to process',
    "maximum context length|(?:longer than|too long to fit into) the (?:maximum )?model(?:'s)?(?: context| maximum)?(?: length)?",
    'input token count .{0,20}(?:exceeds|but model only supports)',
    'input length exceeds|prompt too long|(?:prompt|input) is too long',
    'exceed(?:s|ed)? (?:the )?(?:model token limit|context limit|max(?:imum)? (?:input |prompt )?length)',
    'range of input length|tokens in the prompt cannot exceed',
  ].join('|'),
  'i',
);

const says = (pattern: RegExp, { words, code, type }: Complaint): boolean =>
  pattern.test(words) ||
  (code !== undefined && pattern.test(code)) ||
  (type !== undefined && pattern.test(type));

/** Whether the upstream's complaint is that the prompt does not fit into the model's context. */
export const isContextOverflow = (complaint: Complaint): boolean =>
  says(doesNotFit, complaint) && !says(aboutTheHost, complaint);

/** A status that says by itself what is the matter. */
const plainStatuses: ReadonlySet<number | undefined> = new Set([401, 402, 403, 404, 408, 429]);

/** What lies behind a complaint, where its words tell. @param status undefined for an error inside a 200 */
export function reasonOf(complaint: Complaint, status: number | undefined): ErrorCause | undefined {
  if (says(aboutTheHost, complaint)) return plainStatuses.has(status) ? undefined : 'host';
  if (says(doesNotFit, complaint)) return 'context_length';
  if (status === 503 && says(isLoading, complaint)) return 'loading';
  return undefined;
}

/** Whether it says that it does not have the model, with a status that would blame the request. */
export const blamesTheModel = (complaint: Complaint, status: number | undefined): boolean =>
  (status === 400 || status === 422) && says(modelIsMissing, complaint);
