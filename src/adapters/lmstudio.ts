/** LM Studio as a provider: its two chat wires and the choice between them, its model lists, its embeddings. */
import { z } from 'zod';
import type {
  EmbeddingAdapter,
  Listing,
  LoadedInstance,
  ModelInfo,
  ProviderAdapter,
  ProviderKind,
  Target,
} from '../chat/adapter.ts';
import { invalidParameter } from '../chat/errors.ts';
import type { GenerationRequest } from '../chat/request.ts';
import { lmstudioControl } from './lmstudio-control.ts';
import { lmstudioV0 } from './lmstudio-v0.ts';
import { lmstudioV1 } from './lmstudio-v1.ts';
import { missingV1, needsV1 } from './lmstudio-v1-request.ts';
import { getCall, jsonCall, unsupported } from './openai-request.ts';
import { decodeEmbeddingList } from './openai-wire.ts';
import { answerFailure } from './wire-errors.ts';

const text = z.string().nullish().catch(undefined);
const count = z.number().nullish().catch(undefined);

const modelV1 = z.object({
  type: z.enum(['llm', 'embedding']).nullish(),
  key: z.string().min(1),
  display_name: text,
  description: text,
  publisher: text,
  architecture: text,
  format: text,
  params_string: text,
  quantization: z.object({ name: text }).nullish().catch(undefined),
  max_context_length: count,
  loaded_instances: z
    .array(
      z.object({
        id: z.string(),
        config: z.object({ context_length: count, parallel: count }).nullish().catch(undefined),
      }),
    )
    .nullish()
    .catch(undefined),
  capabilities: z
    .object({
      vision: z.boolean().nullish().catch(undefined),
      trained_for_tool_use: z.boolean().nullish().catch(undefined),
      reasoning: z
        .object({ allowed_options: z.array(z.string()).nullish().catch(undefined) })
        .nullish()
        .catch(undefined),
    })
    .nullish()
    .catch(undefined),
});

const modelV0 = z.object({
  id: z.string().min(1),
  type: z.enum(['llm', 'vlm', 'embeddings']).nullish(),
  publisher: text,
  arch: text,
  compatibility_type: text,
  quantization: text,
  state: text,
  max_context_length: count,
  loaded_context_length: count,
  capabilities: z.array(z.string()).nullish().catch(undefined),
});

type ModelV1 = z.output<typeof modelV1>;
type ModelV0 = z.output<typeof modelV0>;

/** What a model is whose list does not tell: LM Studio names its embedding models so, and serves nothing but the two. */
const usualType = (id: string): 'llm' | 'embedding' =>
  /(?:^|\/)text-embedding-/.test(id) ? 'embedding' : 'llm';

/** The members that the list told; the rest stays absent. */
function told<T extends object>(members: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== null && value !== undefined && value !== ''),
  ) as { [K in keyof T]?: NonNullable<T[K]> };
}

function readModels<T>(list: readonly unknown[], schema: z.ZodType<T>): T[] {
  return list.flatMap((item) => {
    const model = schema.safeParse(item);
    return model.success ? [model.data] : [];
  });
}

function instancesV1(model: ModelV1): LoadedInstance[] | undefined {
  return model.loaded_instances?.map((instance) => ({
    id: instance.id,
    ...told({ contextLength: instance.config?.context_length, parallel: instance.config?.parallel }),
  }));
}

/**
 * @param tellsReasoning whether this server's list names reasoning settings at all: only then does their absence mean
 *   that a model has none
 */
function infoV1(model: ModelV1, tellsReasoning: boolean): ModelInfo {
  const instances = instancesV1(model);
  const options = model.capabilities?.reasoning?.allowed_options;
  const type = model.type ?? usualType(model.key);
  const loaded = instances !== undefined && instances.length > 0 ? 'loaded' : 'not-loaded';
  return {
    id: model.key,
    type,
    state: instances === undefined ? 'unknown' : loaded,
    ...told({
      displayName: model.display_name,
      description: model.description,
      publisher: model.publisher,
      architecture: model.architecture,
      quantization: model.quantization?.name,
      format: model.format,
      parameterCount: model.params_string,
      maxContextLength: model.max_context_length,
      instances,
      vision: model.capabilities?.vision,
      toolUse: model.capabilities?.trained_for_tool_use,
      reasoningOptions: options ?? (tellsReasoning && type === 'llm' ? [] : undefined),
    }),
  };
}

function infoV0(model: ModelV0): ModelInfo {
  const loaded = model.state === 'loaded';
  const notLoaded = model.state === 'not-loaded' || model.state === 'loading' ? 'not-loaded' : 'unknown';
  const type = model.type ?? usualType(model.id);
  return {
    id: model.id,
    type: type === 'llm' || type === 'vlm' ? 'llm' : 'embedding',
    state: loaded ? 'loaded' : notLoaded,
    ...told({
      publisher: model.publisher,
      architecture: model.arch,
      quantization: model.quantization,
      format: model.compatibility_type,
      maxContextLength: model.max_context_length,
      instances: loaded
        ? [{ id: model.id, ...told({ contextLength: model.loaded_context_length }) }]
        : undefined,
      vision: model.type === 'vlm' ? true : model.type === 'llm' ? false : undefined,
      toolUse: model.capabilities?.includes('tool_use'),
    }),
  };
}

const listV1: Listing = {
  apis: ['v0', 'v1'],
  call: (apiKey) => getCall('/api/v1/models', apiKey),
  decode(body) {
    const list = z.object({ models: z.array(z.unknown()) }).safeParse(body);
    if (!list.success) return undefined;
    const models = readModels(list.data.models, modelV1);
    const tellsReasoning = models.some((model) => model.capabilities?.reasoning);
    return models.map((model) => infoV1(model, tellsReasoning));
  },
};

const listV0: Listing = {
  apis: ['v0'],
  call: (apiKey) => getCall('/api/v0/models', apiKey),
  decode(body) {
    const list = z.object({ data: z.array(z.unknown()) }).safeParse(body);
    return list.success ? readModels(list.data.data, modelV0).map(infoV0) : undefined;
  },
};

const embeddings: EmbeddingAdapter = {
  name: 'lmstudio-v0',
  refuse: (request, target) =>
    request.dimensions === undefined ? undefined : unsupported(target, 'dimensions'),
  batchLimit: () => Number.POSITIVE_INFINITY,
  embed: (request, target) =>
    jsonCall(
      '/api/v0/embeddings',
      { ...request.extra, model: target.model, input: request.input },
      target.apiKey,
      false,
    ),
  decodeEmbeddings: (body, target) => decodeEmbeddingList(body, { target }),
  decodeError: (answer, target) => answerFailure(answer, { target }),
};

/**
 * v0 serves all that it can; v1 what only it can, and those who want to see progress where it can serve all they ask.
 * @throws GatewayError where the request needs both wires, or v1 from a server without it
 */
function chooseWire(request: GenerationRequest, target: Target): ProviderAdapter {
  const hasV1 = target.apis?.includes('v1');
  if (target.api === 'v0') return lmstudioV0;
  if (target.api === 'v1') {
    if (hasV1 === false) throw missingV1(request.parameters, target);
    return lmstudioV1;
  }
  const needs = needsV1(request.parameters);
  if (needs.length === 0) {
    const showsProgress = request.includeProgress && request.stream && hasV1 === true;
    return showsProgress && lmstudioV1.refuse(request, target) === undefined ? lmstudioV1 : lmstudioV0;
  }
  if (hasV1 === false) throw missingV1(request.parameters, target);
  const obstacle = lmstudioV1.refuse(request, target);
  if (obstacle === undefined) return lmstudioV1;
  if (obstacle.code !== 'INVALID_PARAMS' || obstacle.param === undefined) throw obstacle;
  if (needs.includes(obstacle.param)) throw obstacle;
  const who = `${target.displayName}(${target.provider})`;
  throw invalidParameter(
    obstacle.param,
    `不能与 ${needs.join(', ')} 同时使用: 后者只有 ${who} 的 v1 接口支持, 而 v1 不支持前者`,
  );
}

const suffix = /\/(?:v1|api\/v[01])?$/;

/** Trims slashes and the paths of LM Studio's APIs, however often they stand there. */
function normalizeBaseUrl(url: string): string {
  let trimmed = url;
  while (suffix.test(trimmed)) trimmed = trimmed.replace(suffix, '');
  return trimmed;
}

/** What LM Studio runs at once where the list does not tell: its default for a loaded model. */
const usualParallel = 4;

/** LM Studio of any version from 0.3.6 on. */
export const lmstudio: ProviderKind = {
  kind: 'lmstudio',
  displayName: 'LM Studio',
  credential: 'optional',
  normalizeBaseUrl,
  listings: [listV1, listV0],
  discovers: true,
  apis: ['v0', 'v1'],
  adapterFor: chooseWire,
  embeddings,
  control: lmstudioControl,
  advice: {
    start: 'start LM Studio and its server (Developer page, or: lms server start)',
    update:
      'update LM Studio to 0.4.0 or later for progress, MCP tools, stored chats and the reasoning setting',
    key: 'make a token in LM Studio (Developer page, Server Settings, Manage Tokens)',
  },
  slots: (info) =>
    info?.instances?.reduce((sum, { parallel }) => sum + (parallel ?? usualParallel), 0) || usualParallel,
  // It notices a closed connection only between prompt batches (bug tracker 1203).
  abortGraceMs: 500,
};
