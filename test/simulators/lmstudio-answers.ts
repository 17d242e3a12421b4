/** What a simulated model says, the same on every wire, so that a test can tell beforehand what must come out. */
import { z } from 'zod';
import type { Script, ScriptedToolCall } from './script.ts';

/** What the model knows of the chat, oldest first. */
export interface Turn {
  readonly role: 'user' | 'assistant' | 'tool';
  readonly text: string;
  readonly images?: number;
}

export interface Limits {
  readonly maxTokens?: number | undefined;
  readonly stop?: readonly string[] | undefined;
}

/** One finished generation, before any wire shapes it. A piece is a token. */
export interface Generation {
  readonly reasoning: readonly string[];
  readonly text: readonly string[];
  readonly toolCalls: readonly ScriptedToolCall[];
  readonly finish: string | null;
  readonly stopReason: string;
  /** undefined: the upstream reports none */
  readonly usage: { readonly input: number; readonly output: number; readonly reasoning: number } | undefined;
}

/** The text cut into tokens: two code points each. */
export function tokenize(text: string): readonly string[] {
  const points = [...text];
  const tokens: string[] = [];
  for (let index = 0; index < points.length; index += 2) tokens.push(points.slice(index, index + 2).join(''));
  return tokens;
}

export const countTokens = (text: string): number => Math.ceil([...text].length / 2);

/** A chat template costs about four tokens for each message. */
export const countPromptTokens = (texts: readonly string[]): number =>
  texts.reduce((sum, text) => sum + countTokens(text) + 4, 0);

/** The answer to a chat, if nothing is scripted. It names the last thing said, the round, and the round before. */
export function replyTo(turns: readonly Turn[]): string {
  const last = turns.at(-1);
  if (last?.role === 'tool') return `工具的结果是「${last.text}」。✅`;
  const said = turns.filter((turn) => turn.role === 'user');
  const now = said.at(-1);
  const before = said.at(-2);
  const images = now?.images === undefined || now.images === 0 ? '' : `我看到${now.images}张图片。`;
  const memory = before === undefined ? '' : `这是第${said.length}轮,上一轮你说的是「${before.text}」。`;
  return `你好!你说的是「${now?.text ?? ''}」。${memory}${images}👋`;
}

/** What a model that thinks thinks first. */
export const thoughtsOn = (turns: readonly Turn[]): string =>
  `用户说「${turns.at(-1)?.text ?? ''}」,先想一想🤔。`;

/** What follows a prompt that is no chat. */
export const continuationOf = (prompt: string): string => `,这是「${prompt}」的后续。📝`;

const schemaNode = z.object({
  type: z.string().optional(),
  enum: z.array(z.unknown()).optional(),
  const: z.unknown().optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
  items: z.unknown().optional(),
});

/** The plainest value that fits a JSON schema of the common kind. */
export function sampleOf(schema: unknown): unknown {
  const parsed = schemaNode.safeParse(schema);
  if (!parsed.success) return {};
  const node = parsed.data;
  if (node.const !== undefined) return node.const;
  if (node.enum !== undefined) return node.enum[0];
  if (node.type === 'string') return '示例';
  if (node.type === 'number' || node.type === 'integer') return 1;
  if (node.type === 'boolean') return true;
  if (node.type === 'array') return [sampleOf(node.items)];
  const properties = Object.entries(node.properties ?? {});
  return Object.fromEntries(properties.map(([name, child]) => [name, sampleOf(child)]));
}

export interface Draft {
  readonly reasoning?: string;
  readonly text: string;
  readonly toolCalls?: readonly ScriptedToolCall[];
  readonly inputTokens: number;
}

const piecesOf = (given: string | readonly string[]): readonly string[] =>
  typeof given === 'string' ? tokenize(given) : given;

/** A draft under the limits of the request and the wishes of the script. */
export function generate(draft: Draft, limits: Limits, script: Script): Generation {
  const empty = script.empty !== undefined;
  const thoughts = empty ? [] : piecesOf(script.reasoning ?? draft.reasoning ?? '');
  const words = empty ? [] : piecesOf(script.text ?? draft.text);
  const toolCalls = empty ? [] : (script.toolCalls ?? draft.toolCalls ?? []);
  const stopped = cutAtStop(words, limits.stop ?? []);
  const maxTokens = limits.maxTokens ?? Number.POSITIVE_INFINITY;
  const reasoning = thoughts.slice(0, maxTokens);
  const text = stopped.pieces.slice(0, maxTokens - reasoning.length);
  const calls = reasoning.length + text.length < maxTokens ? toolCalls : [];
  const written = calls.flatMap((call) => piecesOf(call.arguments));
  const output = reasoning.length + text.length + written.length;
  const ending = endingOf(output >= maxTokens && calls.length === 0, calls.length > 0, stopped.hit);
  return {
    reasoning,
    text,
    toolCalls: calls,
    finish: script.finishReason === undefined ? ending.finish : script.finishReason,
    stopReason: script.stopReason ?? ending.stopReason,
    usage: usageOf(script, draft.inputTokens, output, reasoning.length),
  };
}

function usageOf(script: Script, input: number, output: number, reasoning: number): Generation['usage'] {
  if (script.usage === false) return undefined;
  if (script.usage === undefined) return { input, output, reasoning };
  return { ...script.usage, reasoning: script.usage.reasoning ?? reasoning };
}

function endingOf(full: boolean, calls: boolean, stopHit: boolean): { finish: string; stopReason: string } {
  if (calls) return { finish: 'tool_calls', stopReason: 'toolCalls' };
  if (full) return { finish: 'length', stopReason: 'maxPredictedTokensReached' };
  return { finish: 'stop', stopReason: stopHit ? 'stopStringFound' : 'eosFound' };
}

function cutAtStop(
  pieces: readonly string[],
  stops: readonly string[],
): { pieces: readonly string[]; hit: boolean } {
  const text = pieces.join('');
  const found = stops.map((stop) => text.indexOf(stop)).filter((index) => index >= 0);
  if (found.length === 0) return { pieces, hit: false };
  let left = Math.min(...found);
  const kept: string[] = [];
  for (const piece of pieces) {
    if (left <= 0) break;
    kept.push(piece.slice(0, left));
    left -= piece.length;
  }
  return { pieces: kept, hit: true };
}
