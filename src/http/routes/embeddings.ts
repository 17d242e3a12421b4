/** POST /api/llm/embeddings and POST /v1/embeddings: vectors of texts in both dialects. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { EmbeddingResult } from '../../chat/adapter.ts';
import type { EmbeddingRequest } from '../../chat/request.ts';
import { encodeEmbeddings } from '../../facades/openai.ts';
import { embeddingBody as openaiBody, readEmbeddings as readOpenAI } from '../../facades/openai-request.ts';
import { embeddingBody, encodeEmbeddingResult, envelope, readEmbeddings } from '../../facades/unified.ts';
import type { Call } from '../../gateway/call.ts';
import type { Engine } from '../../gateway/engine.ts';
import { sendJson } from '../generation.ts';
import { callOf } from '../plugins/calls.ts';
import { embeddingDescription } from './descriptions.ts';
import { openaiEmbeddingDescription } from './openai-descriptions.ts';

export function registerEmbeddings(app: FastifyInstance, { engine }: { readonly engine: Engine }): void {
  const answer = async (
    request: EmbeddingRequest,
    call: Call,
    reply: FastifyReply,
    encode: (result: EmbeddingResult) => unknown,
  ): Promise<FastifyReply> => {
    call.model = request.model;
    call.user = request.user;
    const result = await engine.embed(request, call);
    sendJson(reply, call, JSON.stringify(encode(result)));
    return reply;
  };
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/llm/embeddings',
    { config: { endpoint: '/api/llm/embeddings' }, schema: { ...embeddingDescription, body: embeddingBody } },
    async (request, reply) =>
      answer(readEmbeddings(request.body), callOf(request), reply, (result) =>
        envelope(encodeEmbeddingResult(result)),
      ),
  );
  routes.post(
    '/v1/embeddings',
    { config: { endpoint: '/v1/embeddings' }, schema: { ...openaiEmbeddingDescription, body: openaiBody } },
    async (request, reply) => {
      const call = callOf(request);
      return answer(readOpenAI(request.body), call, reply, (result) =>
        encodeEmbeddings(result, call.upstreamModel ?? '', request.body.encoding_format ?? 'float'),
      );
    },
  );
}
