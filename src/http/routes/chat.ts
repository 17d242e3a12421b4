/** POST /api/llm/chat and /api/llm/completions: the unified API's generations, plain and streamed. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { GenerationRequest } from '../../chat/request.ts';
import {
  chatBody,
  completionBody,
  encodeResult,
  envelope,
  readChatRequest,
  readCompletionRequest,
  UnifiedEncoder,
} from '../../facades/unified.ts';
import type { Call } from '../../gateway/call.ts';
import { answerGeneration, type GenerationDependencies, takeBody } from '../generation.ts';
import { callOf } from '../plugins/calls.ts';
import { chatDescription, completionDescription } from './descriptions.ts';

function answerUnified(
  request: GenerationRequest,
  call: Call,
  reply: FastifyReply,
  deps: GenerationDependencies,
): Promise<void> {
  const dialect = {
    encodeResult: (result: Parameters<typeof encodeResult>[0]) => envelope(encodeResult(result)),
    encoder: (stream: { readonly early: boolean }) =>
      new UnifiedEncoder(() =>
        stream.early && call.provider !== undefined
          ? { provider: call.provider, model: call.upstreamModel ?? '', attempts: call.attempts }
          : undefined,
      ),
  };
  return answerGeneration(request, call, reply, dialect, deps);
}

export function registerChat(app: FastifyInstance, deps: GenerationDependencies): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/llm/chat',
    { config: { endpoint: '/api/llm/chat' }, schema: { ...chatDescription, body: chatBody } },
    (request, reply) => answerUnified(readChatRequest(takeBody(request)), callOf(request), reply, deps),
  );
  routes.post(
    '/api/llm/completions',
    {
      config: { endpoint: '/api/llm/completions' },
      schema: { ...completionDescription, body: completionBody },
    },
    (request, reply) => answerUnified(readCompletionRequest(takeBody(request)), callOf(request), reply, deps),
  );
}
