/** The events of LM Studio's v1 chat stream, and the answer that they add up to. */
import { type Generation, tokenize } from './lmstudio-answers.ts';
import type { House, OutputItem } from './lmstudio-house.ts';
import type { Frame, ScriptedError } from './script.ts';

/** A text as the pieces in which it is streamed. */
export const piecesOf = (content: string | readonly string[]): readonly string[] =>
  typeof content === 'string' ? tokenize(content) : content;

/** The body of an answer that is not streamed, and of `chat.end`. */
export interface Result {
  readonly model_instance_id: string;
  readonly output: readonly unknown[];
  readonly stats?: Readonly<Record<string, number>>;
  readonly response_id?: string;
}

export interface Event {
  readonly type: string;
  readonly waitMs?: number;
  readonly [field: string]: unknown;
}

export const statsOf = (
  usage: NonNullable<Generation['usage']>,
  loadMs: number | undefined,
): Readonly<Record<string, number>> => ({
  input_tokens: usage.input,
  total_output_tokens: usage.output,
  reasoning_output_tokens: usage.reasoning,
  tokens_per_second: 50,
  time_to_first_token_seconds: 0.1,
  ...(loadMs === undefined ? {} : { model_load_time_seconds: loadMs / 1000 }),
});

export const wholeItem = (item: OutputItem): unknown =>
  'content' in item ? { ...item, content: piecesOf(item.content).join('') } : item;

export function openingEvents(
  instanceId: string,
  loadMs: number | undefined,
  house: House,
): readonly Event[] {
  const id = { model_instance_id: instanceId };
  const steps = [0.25, 0.5, 0.75, 1];
  const loading: readonly Event[] =
    loadMs === undefined
      ? []
      : [
          { type: 'model_load.start', ...id },
          ...steps.map((progress) => ({
            type: 'model_load.progress',
            ...id,
            progress,
            waitMs: loadMs / steps.length,
          })),
          { type: 'model_load.end', ...id, load_time_seconds: loadMs / 1000 },
        ];
  return [
    { type: 'chat.start', ...id },
    ...loading,
    { type: 'prompt_processing.start' },
    { type: 'prompt_processing.progress', progress: 0.5, waitMs: house.promptMs / 2 },
    { type: 'prompt_processing.progress', progress: 1, waitMs: house.promptMs / 2 },
    { type: 'prompt_processing.end' },
  ];
}

export function itemEvents(item: OutputItem, tokenMs: number): readonly Event[] {
  switch (item.type) {
    case 'message':
    case 'reasoning':
      return [
        { type: `${item.type}.start` },
        ...piecesOf(item.content).map((content) => ({
          type: `${item.type}.delta`,
          content,
          waitMs: tokenMs,
        })),
        { type: `${item.type}.end` },
      ];
    case 'tool_call': {
      const { tool, provider_info, arguments: given, output } = item;
      return [
        { type: 'tool_call.start', tool, provider_info },
        { type: 'tool_call.arguments', tool, arguments: given, provider_info, waitMs: tokenMs },
        { type: 'tool_call.success', tool, arguments: given, output, provider_info, waitMs: tokenMs },
      ];
    }
    case 'invalid_tool_call': {
      const { reason, metadata } = item;
      return [{ type: 'tool_call.failure', reason, metadata }];
    }
    default:
      throw new Error(`no such item: ${JSON.stringify(item satisfies never)}`);
  }
}

export function toFrame({ waitMs, ...event }: Event): Frame {
  const wait = waitMs === undefined ? {} : { waitMs };
  return { kind: kindOf(event.type), event: event.type, data: JSON.stringify(event), ...wait };
}

function kindOf(type: string): Frame['kind'] {
  if (type === 'chat.end') return 'finish';
  return type.endsWith('.delta') || type.startsWith('tool_call.') ? 'content' : 'lifecycle';
}

/** After an error, `chat.end` still tells what there was until then. */
export function failOnV1(error: ScriptedError, sent: readonly Event[], result: Result): readonly Frame[] {
  const message = error.message ?? 'The model has crashed without additional information.';
  const failure: Event = {
    type: 'error',
    error: error.shape === 'string' ? message : { type: error.type ?? 'internal_error', message },
  };
  if (error.closing === false) return [toFrame(failure)];
  const { response_id: _, ...rest } = result;
  return [toFrame(failure), toFrame({ type: 'chat.end', result: { ...rest, output: outputOf(sent) } })];
}

/** The output items that the events so far amount to. */
function outputOf(events: readonly Event[]): readonly unknown[] {
  const output: unknown[] = [];
  let open: { type: string; content: string } | undefined;
  for (const { type, waitMs: _, ...fields } of events) {
    if (type === 'message.start' || type === 'reasoning.start') {
      open = { type: type.slice(0, -'.start'.length), content: '' };
      output.push(open);
    } else if (type.endsWith('.delta') && open !== undefined) {
      open.content += String(fields.content);
    } else if (type === 'tool_call.success') {
      output.push({ type: 'tool_call', ...fields });
    } else if (type === 'tool_call.failure') {
      output.push({ type: 'invalid_tool_call', ...fields });
    }
  }
  return output;
}
