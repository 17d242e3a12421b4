/** The models of a simulated LM Studio: which there are, which are in memory, and how both wires list them. */

export interface SimulatedModel {
  readonly id: string;
  readonly type: 'llm' | 'vlm' | 'embeddings';
  readonly publisher?: string;
  readonly displayName?: string;
  readonly architecture?: string;
  readonly quantization?: string;
  readonly format?: 'gguf' | 'mlx';
  /** e.g. `7B` */
  readonly parameters?: string;
  readonly description?: string;
  readonly maxContextLength?: number;
  /** In memory from the start. */
  readonly loaded?: boolean;
  /** Of an instance that is loaded without telling. Tokens. */
  readonly contextLength?: number;
  /** Requests that an instance runs at once. */
  readonly parallel?: number;
  readonly toolUse?: boolean;
  /** Its reasoning setting; a model that has one thinks unless told not to. */
  readonly reasoning?: { readonly options: readonly string[]; readonly default: string };
  /** Milliseconds; the simulator's `loadMs` if unset. */
  readonly loadMs?: number;
}

/** One of each kind. */
export const defaultModels: readonly SimulatedModel[] = [
  {
    id: 'qwen2.5-7b-instruct',
    type: 'llm',
    publisher: 'lmstudio-community',
    displayName: 'Qwen2.5 7B Instruct',
    architecture: 'qwen2',
    parameters: '7B',
    loaded: true,
    toolUse: true,
  },
  {
    id: 'openai/gpt-oss-20b',
    type: 'llm',
    publisher: 'openai',
    displayName: 'GPT OSS 20B',
    architecture: 'gpt-oss',
    quantization: 'MXFP4',
    parameters: '20B',
    maxContextLength: 131_072,
    toolUse: true,
    reasoning: { options: ['off', 'low', 'medium', 'high'], default: 'low' },
  },
  {
    id: 'qwen2-vl-7b-instruct',
    type: 'vlm',
    publisher: 'mlx-community',
    displayName: 'Qwen2 VL 7B Instruct',
    architecture: 'qwen2_vl',
    quantization: '4bit',
    format: 'mlx',
    parameters: '7B',
    loaded: true,
  },
  {
    id: 'text-embedding-nomic-embed-text-v1.5',
    type: 'embeddings',
    publisher: 'nomic-ai',
    displayName: 'Nomic Embed Text v1.5',
    architecture: 'nomic-bert',
    quantization: 'Q4_0',
    maxContextLength: 2048,
    loaded: true,
  },
];

export interface InstanceConfig {
  readonly context_length: number;
  readonly parallel?: number;
  readonly [setting: string]: unknown;
}

export interface Instance {
  readonly id: string;
  readonly config: InstanceConfig;
  /** Loaded by a request for it, not by a person: the next such load takes its place. */
  readonly onDemand: boolean;
}

export interface ModelShelf {
  set(models: readonly SimulatedModel[]): void;
  /** One more, not loaded; nothing happens if it is there. */
  add(model: SimulatedModel): void;
  all(): readonly SimulatedModel[];
  /** By id, or by the id of a loaded copy. */
  find(name: string): SimulatedModel | undefined;
  /** The one model in memory, if it is exactly one. */
  onlyLoaded(): SimulatedModel | undefined;
  instances(model: SimulatedModel): readonly Instance[];
  load(model: SimulatedModel, config?: Readonly<Record<string, unknown>>, onDemand?: boolean): Instance;
  /** false: there is no such instance */
  unload(instanceId: string): boolean;
}

export function createModelShelf(initial: readonly SimulatedModel[]): ModelShelf {
  let models: readonly SimulatedModel[] = [];
  let loaded = new Map<string, Instance[]>();
  const instances = (model: SimulatedModel): Instance[] => loaded.get(model.id) ?? [];

  const shelf: ModelShelf = {
    set(next) {
      models = next;
      loaded = new Map();
      for (const model of next) if (model.loaded === true) shelf.load(model);
    },
    add(model) {
      if (models.every((known) => known.id !== model.id)) models = [...models, model];
    },
    all: () => models,
    find: (name) =>
      models.find((model) => model.id === name) ??
      models.find((model) => instances(model).some((instance) => instance.id === name)),
    onlyLoaded() {
      const inMemory = models.filter((model) => instances(model).length > 0);
      return inMemory.length === 1 ? inMemory[0] : undefined;
    },
    instances,
    load(model, config = {}, onDemand = false) {
      if (onDemand) {
        for (const [id, list] of loaded) {
          loaded.set(
            id,
            list.filter((instance) => !instance.onDemand),
          );
        }
      }
      const others = instances(model);
      const given = config.context_length;
      const instance: Instance = {
        id: others.length === 0 ? model.id : `${model.id}:${others.length + 1}`,
        config: {
          ...(model.type === 'embeddings' ? {} : { parallel: model.parallel ?? 4 }),
          ...config,
          context_length: typeof given === 'number' ? given : contextLength(model),
        },
        onDemand,
      };
      loaded.set(model.id, [...others, instance]);
      return instance;
    },
    unload(instanceId) {
      for (const [id, list] of loaded) {
        const left = list.filter((instance) => instance.id !== instanceId);
        loaded.set(id, left);
        if (left.length < list.length) return true;
      }
      return false;
    },
  };
  shelf.set(initial);
  return shelf;
}

const maxContextLength = (model: SimulatedModel): number => model.maxContextLength ?? 32_768;
const contextLength = (model: SimulatedModel): number =>
  model.contextLength ?? Math.min(4096, maxContextLength(model));
const format = (model: SimulatedModel): string => model.format ?? 'gguf';
const quantization = (model: SimulatedModel): string => model.quantization ?? 'Q4_K_M';

/** As GET /api/v0/models lists it. */
export function modelOnV0(model: SimulatedModel, shelf: ModelShelf): Readonly<Record<string, unknown>> {
  const instance = shelf.instances(model)[0];
  return {
    id: model.id,
    object: 'model',
    type: model.type,
    publisher: model.publisher ?? 'lmstudio-community',
    arch: model.architecture ?? 'llama',
    compatibility_type: format(model),
    quantization: quantization(model),
    state: instance === undefined ? 'not-loaded' : 'loaded',
    max_context_length: maxContextLength(model),
    ...(instance === undefined ? {} : { loaded_context_length: instance.config.context_length }),
    ...(model.toolUse === true ? { capabilities: ['tool_use'] } : {}),
  };
}

/** As GET /api/v1/models lists it. */
export function modelOnV1(model: SimulatedModel, shelf: ModelShelf): Readonly<Record<string, unknown>> {
  const embedding = model.type === 'embeddings';
  const { reasoning } = model;
  return {
    type: embedding ? 'embedding' : 'llm',
    publisher: model.publisher ?? 'lmstudio-community',
    key: model.id,
    display_name: model.displayName ?? model.id,
    ...(embedding ? {} : { architecture: model.architecture ?? 'llama' }),
    quantization: { name: quantization(model), bits_per_weight: 4 },
    size_bytes: 4_683_073_952,
    params_string: model.parameters ?? null,
    loaded_instances: shelf.instances(model).map(({ id, config }) => ({ id, config })),
    max_context_length: maxContextLength(model),
    format: format(model),
    ...(embedding
      ? {}
      : {
          capabilities: {
            vision: model.type === 'vlm',
            trained_for_tool_use: model.toolUse ?? false,
            ...(reasoning === undefined
              ? {}
              : { reasoning: { allowed_options: reasoning.options, default: reasoning.default } }),
          },
          description: model.description ?? null,
        }),
  };
}

/** What v0 tells of the model in every answer. */
export function modelInfoOnV0(model: SimulatedModel, instance: Instance): Readonly<Record<string, unknown>> {
  return {
    arch: model.architecture ?? 'llama',
    quant: quantization(model),
    format: format(model),
    context_length: instance.config.context_length,
  };
}
