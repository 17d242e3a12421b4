import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { embeddingFamily, qwenFamily } from '../../src/adapters/qwen-models.ts';

describe('what a model can do, by its id', () => {
  it.each([
    ['qwen-turbo', 'hybrid-off'],
    ['qwen-plus', 'hybrid-off'],
    ['qwen-plus-latest', 'hybrid-off'],
    ['qwen-plus-2025-07-28', 'hybrid-off'],
    ['qwen-flash', 'hybrid-off'],
    ['qwen3-max', 'hybrid-off'],
    ['qwen3-max-2026-01-23', 'hybrid-off'],
    ['qwen3-vl-plus', 'hybrid-off'],
    ['qwen3.5-plus', 'hybrid-on'],
    ['qwen3.6-flash', 'hybrid-on'],
    ['qwen3.7-max', 'hybrid-on'],
    ['qwen3.8-max', 'hybrid-on'],
    ['qwen3-235b-a22b', 'hybrid-on'],
    ['qwen3-8b', 'hybrid-on'],
    ['qwq-plus', 'only'],
    ['qvq-max', 'only'],
    ['qwen3-235b-a22b-thinking-2507', 'only'],
    ['qwen3-next-80b-a3b-thinking', 'only'],
    ['qwen3.7-max-preview', 'only'],
    ['qwen-max', 'none'],
    ['qwen-long', 'none'],
    ['qwen-plus-0919', 'none'],
    ['qwen-plus-2025-01-25', 'none'],
    ['qwen3-coder-plus', 'none'],
    ['qwen3-235b-a22b-instruct-2507', 'none'],
    ['qwen-vl-max', 'none'],
    ['qwen2.5-vl-72b-instruct', 'none'],
    ['deepseek-v3.2', 'unknown'],
  ])('%s thinks: %s', (model, thinking) => {
    expect(qwenFamily(model).thinking).toBe(thinking);
  });

  it.each([
    ['qwq-plus', 'always'],
    ['qvq-max', 'always'],
    ['qwen-omni-turbo', 'always'],
    ['qwen3-omni-flash', 'always'],
    ['qwen3-32b', 'thinking'],
    ['qwen-turbo', 'thinking'],
    ['qwen3-max', 'never'],
    ['qwen3.5-plus', 'never'],
    ['qwen-max', 'never'],
  ])('%s is stream-only: %s', (model, streamOnly) => {
    expect(qwenFamily(model).streamOnly).toBe(streamOnly);
  });

  it.each([
    ['qwen-vl-plus', true],
    ['qwen3-vl-flash', true],
    ['qvq-max', true],
    ['qwen3.5-plus', true],
    ['qwen3.7-plus', true],
    ['qwen3.8-max', true],
    ['qwen3.7-max', false],
    ['qwen3-max', false],
    ['qwen-turbo', false],
    ['qwen-flash', false],
  ])('%s sees: %s', (model, vision) => {
    expect(qwenFamily(model).vision).toBe(vision);
  });

  it.each([
    ['qwen3.7-max', true],
    ['qwen3.5-plus', true],
    ['qwen3.6-flash', true],
    ['qwen3.8-flash', true],
    ['qwen3.6-max-preview', false],
    ['qwen3-max', false],
    ['qwen-plus', false],
  ])('%s takes max_completion_tokens: %s', (model, takes) => {
    expect(qwenFamily(model).maxCompletionTokens).toBe(takes);
  });

  it('keeps earlier reasoning for Qwen3.8 max and flash alone', () => {
    const models = ['qwen3.8-max', 'qwen3.8-flash', 'qwen3.7-max', 'qwq-plus', 'qwen-plus'];
    expect(models.filter((model) => qwenFamily(model).preserveThinking)).toEqual([
      'qwen3.8-max',
      'qwen3.8-flash',
    ]);
  });

  it('has log probabilities for dated snapshots of qwen-plus, not for qwen-plus itself', () => {
    expect(qwenFamily('qwen-plus-2025-07-28').logprobs).toBe(true);
    expect(qwenFamily('qwen-plus').logprobs).toBe(false);
  });

  it('never asks for a larger thinking budget than the smallest ceiling', () => {
    const { effort } = qwenFamily('qwen3-8b');
    expect(effort?.parameter).toBe('thinking_budget');
    expect(Number(effort?.high)).toBeLessThanOrEqual(30_720);
  });

  it('knows every seeded model', () => {
    const seed = readFileSync(new URL('../../migrations/0002_bailian_seed.sql', import.meta.url), 'utf8');
    const titles = [...seed.matchAll(/^ {2}\(\d+, '([^']+)'/gm)].map((match) => match[1] ?? '');
    expect(titles).toContain('qwen3.8-flash');
    const chatModels = titles.filter((title) => !title.startsWith('text-embedding'));
    expect(chatModels.filter((title) => qwenFamily(title).thinking === 'unknown')).toEqual([]);
  });
});

describe('embedding models', () => {
  it.each([
    ['text-embedding-v4', 10],
    ['text-embedding-v3', 10],
    ['text-embedding-v2', 25],
    ['qwen3.7-text-embedding', 20],
    ['an-embedding-of-tomorrow', 10],
  ])('%s takes %i inputs at once', (model, limit) => {
    expect(embeddingFamily(model).batchLimit).toBe(limit);
  });

  it('lets the platform judge the dimensions of a model it does not know', () => {
    expect(embeddingFamily('an-embedding-of-tomorrow').dimensions).toBe('unchecked');
  });
});
