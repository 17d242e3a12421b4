/** POST /v1/chat/completions and /v1/completions, GET /v1/models: the OpenAI-compatible dialect over the same engine. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { GatewayError } from '../../chat/errors.ts';
import type { ChatResult } from '../../chat/events.ts';
import type { GenerationRequest } from '../../chat/request.ts';
import {
  type AnswerIdentity,
  encodeChatCompletion,
  encodeModel,
  encodeTextCompletion,
} from '../../facades/openai.ts';
import {
  chatCompletionBody,
  completionBody,
  type FieldNames,
  type Incoming,
  inCallersWords,
  readChatCompletion,
  readCompletion,
} from '../../facades/openai-request.ts';
import { type ChoiceWriter, chatChoices, OpenAIEncoder, textChoices } from '../../facades/openai-stream.ts';
import type { Call } from '../../gateway/call.ts';
import type { Catalog, CatalogModel } from '../../gateway/catalog.ts';
import type { Discovery } from '../../gateway/discovery.ts';
import { mayUse } from '../../gateway/keys.ts';
import {
  type AnswerDialect,
  answerGeneration,
  type GenerationDependencies,
  takeBody,
} from '../generation.ts';
import { callOf } from '../plugins/calls.ts';
import { newRequestId } from '../request-id.ts';
import { describeModel } from './models.ts';
import {
  chatCompletionDescription,
  openaiCompletionDescription,
  openaiModelDescription,
  openaiModelsDescription,
} from './openai-descriptions.ts';

export interface OpenAIDependencies extends GenerationDependencies {
  readonly catalog: Catalog;
  readonly discovery: Discovery;
}

/** How one of the two kinds of completions is written. */
interface Kind {
  readonly idPrefix: string;
  encode(result: ChatResult, identity: AnswerIdentity, model: string): unknown;
  choices(): ChoiceWriter;
}

const chatKind: Kind = { idPrefix: 'chatcmpl-', encode: encodeChatCompletion, choices: chatChoices };
const textKind: Kind = { idPrefix: 'cmpl-', encode: encodeTextCompletion, choices: () => textChoices };

const modelOf = (call: Call): string => call.upstreamModel ?? call.model;

/** How one request is answered. Knows of it what the answer needs, and does not keep it. */
class OpenAIDialect implements AnswerDialect {
  readonly #kind: Kind;
  readonly #includeUsage: boolean;
  readonly #fieldNames: FieldNames;

  constructor(kind: Kind, includeUsage: boolean, fieldNames: FieldNames) {
    this.#kind = kind;
    this.#includeUsage = includeUsage;
    this.#fieldNames = fieldNames;
  }

  encodeResult(result: ChatResult, call: Call): unknown {
    return this.#kind.encode(result, this.#identity(call), modelOf(call));
  }

  encoder(call: Call): OpenAIEncoder {
    return new OpenAIEncoder(this.#kind.choices(), {
      identity: this.#identity(call),
      model: () => modelOf(call),
      includeUsage: this.#includeUsage,
      explain: (error) => this.explain(error),
    });
  }

  explain(error: GatewayError): GatewayError {
    return inCallersWords(error, this.#fieldNames);
  }

  #identity({ startedAt }: Call): AnswerIdentity {
    return {
      id: this.#kind.idPrefix + newRequestId(),
      created: Math.floor(startedAt / 1000),
    };
  }
}

function answerOpenAI(
  { request, includeUsage, fieldNames }: Incoming<GenerationRequest>,
  kind: Kind,
  call: Call,
  reply: FastifyReply,
  deps: GenerationDependencies,
): Promise<void> {
  return answerGeneration(request, call, reply, new OpenAIDialect(kind, includeUsage, fieldNames), deps);
}

/** A model as it stands now: loaded where one of its routes has it loaded, with the length that it was loaded with. */
function describe(model: CatalogModel, discovery: Discovery) {
  const { routes } = describeModel(model, discovery);
  const best =
    routes.find(({ state }) => state === 'loaded') ??
    routes.find(({ state }) => state === 'not-loaded') ??
    routes[0];
  return encodeModel({
    id: model.card.title,
    created: Math.floor(Date.parse(`${model.card.created_at}Z`) / 1000),
    owner: best?.provider ?? '',
    contextLength: best?.context_length ?? best?.max_context_length ?? null,
    maxOutputTokens: model.maxOutputTokens ?? null,
    capabilities: [...new Set(routes.flatMap(({ capabilities }) => capabilities))],
    state: best?.state ?? 'unknown',
  });
}

const isCallable = ({ card }: CatalogModel): boolean => card.type === 0 || card.type === 1;

function registerModels(app: FastifyInstance, { catalog, discovery }: OpenAIDependencies): void {
  app.get('/v1/models', { schema: openaiModelsDescription }, async ({ caller }) => ({
    object: 'list',
    data: catalog
      .list()
      .filter((model) => isCallable(model) && mayUse(caller, model.card.title))
      .map((model) => describe(model, discovery)),
  }));
  app
    .withTypeProvider<ZodTypeProvider>()
    .get(
      '/v1/models/*',
      { schema: { ...openaiModelDescription, params: z.object({ '*': z.string() }) } },
      async (request) => {
        const model = catalog.find(request.params['*']);
        if (model?.available !== true || !isCallable(model) || !mayUse(request.caller, model.card.title)) {
          throw new GatewayError('NOT_FOUND', { param: 'model' });
        }
        return describe(model, discovery);
      },
    );
}

export function registerOpenAI(app: FastifyInstance, deps: OpenAIDependencies): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/v1/chat/completions',
    {
      config: { endpoint: '/v1/chat/completions' },
      schema: { ...chatCompletionDescription, body: chatCompletionBody },
    },
    (request, reply) =>
      answerOpenAI(readChatCompletion(takeBody(request)), chatKind, callOf(request), reply, deps),
  );
  routes.post(
    '/v1/completions',
    {
      config: { endpoint: '/v1/completions' },
      schema: { ...openaiCompletionDescription, body: completionBody },
    },
    (request, reply) =>
      answerOpenAI(readCompletion(takeBody(request)), textKind, callOf(request), reply, deps),
  );
  registerModels(app, deps);
}
