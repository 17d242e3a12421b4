/** How LM Studio's v0 wire words its refusals. */
import { z } from 'zod';
import { type House, missingModelMessage, type Outcome, refuse } from './lmstudio-house.ts';

/** The server's own words for what it refuses most often; the rest says where the mistake is. */
export function wordsFor(error: z.ZodError, body: unknown): string {
  const issue = error.issues[0];
  const path = (issue?.path ?? []).join('.');
  if (path === 'response_format.type' || path === 'response_format') {
    return "'response_format.type' must be 'json_schema' or 'text'";
  }
  if (path === 'tool_choice') {
    const given = z.object({ tool_choice: z.unknown().optional() }).safeParse(body);
    return `Invalid tool_choice type: '${typeof given.data?.tool_choice}'. Supported string values: none, auto, required`;
  }
  if (path === '' || issue?.message.includes('received undefined')) {
    return `'${path === '' ? 'body' : path}' field is required`;
  }
  return `Invalid '${path}': ${issue?.message ?? 'invalid value'}`;
}

/** Also the answer of GET /api/v0/models/{id}. */
export const modelNotFound = (house: House, name: string): Outcome =>
  refuse(404, missingModelMessage(house, name), {
    type: 'invalid_request_error',
    param: 'model',
    code: 'model_not_found',
  });
