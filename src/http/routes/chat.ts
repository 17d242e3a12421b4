/** POST /api/llm/chat and /api/llm/completions: the unified API's generations, plain and streamed. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import {
  chatBody,
  completionBody,
  encodeResult,
  envelope,
  readChatRequest,
  readCompletionRequest,
  UnifiedEncoder,
} from '../../facades/unified.ts';
import {
  type AnswerDialect,
  answerGeneration,
  type GenerationDependencies,
  takeBody,
} from '../generation.ts';
import { callOf } from '../plugins/calls.ts';
import { chatDescription, completionDescription } from './descriptions.ts';

const unified: AnswerDialect = {
  encodeResult: (result) => envelope(encodeResult(result)),
  encoder: (call, stream) =>
    new UnifiedEncoder(() =>
      stream.early && call.provider !== undefined
        ? {
            provider: call.provider,
            model: call.upstreamModel ?? '',
            attempts: call.attempts,
            ignored: call.ignored,
          }
        : undefined,
    ),
  explain: (error) => error,
};

export function registerChat(app: FastifyInstance, deps: GenerationDependencies): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/llm/chat',
    { config: { endpoint: '/api/llm/chat' }, schema: { ...chatDescription, body: chatBody } },
    (request, reply) =>
      answerGeneration(readChatRequest(takeBody(request)), callOf(request), reply, unified, deps),
  );
  routes.post(
    '/api/llm/completions',
    {
      config: { endpoint: '/api/llm/completions' },
      schema: { ...completionDescription, body: completionBody },
    },
    (request, reply) =>
      answerGeneration(readCompletionRequest(takeBody(request)), callOf(request), reply, unified, deps),
  );
}
