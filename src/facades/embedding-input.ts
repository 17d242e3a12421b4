/** What both dialects take as the input of embeddings, and the request that it comes to. Knows no provider and no socket. */
import { z } from 'zod';
import type { EmbeddingRequest } from '../chat/request.ts';

/**
 * A list whose members must all be strings, refused as one: what a caller sends otherwise is token numbers, and naming
 * the first of thousands would not help.
 */
export const listOfTexts = (error: string) =>
  z
    .array(z.unknown())
    .min(1)
    .meta({ items: { type: 'string' } })
    .transform((list, context): readonly string[] => {
      const texts = list.filter((item) => typeof item === 'string');
      if (texts.length === list.length) return texts;
      context.addIssue({ code: 'custom', message: error, input: list });
      return z.NEVER;
    });

const inputError = '必须是字符串或非空的字符串列表, 不支持 token 数组';

/** The fields that both dialects share. */
export const embeddingFields = {
  model: z.string().min(1).meta({ description: 'The `title` of a model with type 1.' }),
  input: z
    .union([z.string(), listOfTexts(inputError)], { error: inputError })
    .meta({ description: 'One text or a list of texts. Token arrays are refused.' }),
  dimensions: z
    .int()
    .min(1)
    .nullish()
    .meta({ description: 'Length of the vectors, where the model can choose.' }),
  user: z.string().nullish().meta({ description: 'Opaque; for the usage log only.' }),
};

const fields = z.object(embeddingFields);

export function readEmbeddingRequest(body: z.output<typeof fields>): EmbeddingRequest {
  const { model, input, dimensions, user } = body;
  return {
    kind: 'embedding',
    model,
    input: typeof input === 'string' ? [input] : input,
    ...(typeof dimensions === 'number' ? { dimensions } : {}),
    ...(typeof user === 'string' ? { user } : {}),
  };
}
