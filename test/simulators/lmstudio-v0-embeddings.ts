/** LM Studio's v0 embeddings. */
import { z } from 'zod';
import { countTokens } from './lmstudio-answers.ts';
import {
  type House,
  type Outcome,
  occupy,
  refuse,
  refuseInWords,
  type TakeScript,
} from './lmstudio-house.ts';
import { modelNotFound, wordsFor } from './lmstudio-v0-refusals.ts';

const embeddingBody = z.object({
  model: z.string().default(''),
  input: z.union([z.string(), z.array(z.string()).min(1)]),
});

const dimensions = 8;

/** The same text has the same vector; lengths are one. */
function vectorOf(text: string): readonly number[] {
  const sums = Array.from({ length: dimensions }, (_, index) => 1 + (index % 3));
  for (const [index, point] of [...text].entries()) {
    const slot = index % dimensions;
    sums[slot] = (sums[slot] ?? 0) + ((point.codePointAt(0) ?? 0) % 97) / 97;
  }
  const length = Math.hypot(...sums);
  return sums.map((sum) => sum / length);
}

export function embeddingsOnV0(body: unknown, house: House, take: TakeScript): Outcome {
  const parsed = embeddingBody.safeParse(body);
  if (!parsed.success) return refuseInWords(400, wordsFor(parsed.error, body));
  const model = house.shelf.find(parsed.data.model);
  if (model === undefined) return modelNotFound(house, parsed.data.model);
  if (model.type !== 'embeddings') return refuse(400, `Model "${model.id}" is not an embedding model.`);
  const script = take();
  const { loadMs } = occupy(house, model, script);
  const inputs = typeof parsed.data.input === 'string' ? [parsed.data.input] : parsed.data.input;
  const tokens = inputs.reduce((sum, input) => sum + countTokens(input), 0);
  return {
    script,
    answer: {
      kind: 'json',
      status: 200,
      ...(loadMs === undefined ? {} : { waitMs: loadMs }),
      body: {
        object: 'list',
        data: inputs.map((input, index) => ({ object: 'embedding', embedding: vectorOf(input), index })),
        model: script.model ?? `${model.id}@${(model.quantization ?? 'q4_k_m').toLowerCase()}`,
        ...(script.usage === false ? {} : { usage: { prompt_tokens: tokens, total_tokens: tokens } }),
      },
    },
  };
}
