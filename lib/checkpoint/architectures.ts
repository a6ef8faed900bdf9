import type { Fields } from './fields.js';
import {
  GGUF_FUSED_NAMES,
  GGUF_NAMES,
  GGUF_POST_NORM_NAMES,
  HUGGINGFACE_FUSED_NAMES,
  HUGGINGFACE_NAMES,
  HUGGINGFACE_POST_NORM_NAMES,
  type NameScheme,
} from './names.js';
import type { Architecture, Formula } from './types.js';

/** LLaMA's formula: every other is this one with some entries changed. */
export const LLAMA_FORMULA: Readonly<Formula> = {
  activation: 'silu',
  normOffset: 0,
  postNorms: false,
  embeddingScale: 1,
  residualScale: 1,
  attentionScale: 0,
  attentionCap: 0,
  logitScale: 1,
  logitCap: 0,
};

/** Which layers attend to a window only, and how far it reaches. */
export interface Windows {
  /** Positions where the file names none; 0: no window. */
  size: number;
  /** The key of config.json that must be true for there to be windows. */
  switch?: 'use_sliding_window';
  /** Whether "layer_types" of config.json, where it is given, says which layers have one. */
  byLayerTypes: boolean;
  /** Whether a layer has one where "layer_types" does not say. */
  has(layer: number, fields: Fields): boolean;
}

/** What the name of an architecture says and its files do not. */
export interface ArchitectureRow {
  /** "model_type" of config.json where that is not the architecture's name. */
  modelType?: string;
  /** "model_type" of models that also take images and hold one of these in "text_config". */
  multimodalType?: string;
  /** What transformers assumes where "text_config" is silent and a config.json of its own never is. */
  textDefaults?: Record<string, number>;
  names: { huggingFace: NameScheme; gguf: NameScheme };
  /**
   * What transformers assumes where config.json is silent. Without `nKvHeads` there are as many as heads, without
   * `headDim` heads are dim / nHeads wide.
   */
  defaults: {
    contextLength: number;
    nKvHeads?: number;
    headDim?: number;
    normEps: number;
    ropeTheta: number;
    tied: boolean;
  };
  /** Biases of q, k and v, or of o too where "attention_bias" says so. */
  biases: 'attention_bias' | 'qkv' | 'none';
  /** Whether "mlp_bias" means something. */
  mlpBias: boolean;
  /** Whether heads of queries and keys are normalised. */
  qkNorm: boolean;
  activation: Formula['activation'];
  /** In Hugging Face files; GGUF files hold the sums. */
  normOffset: 0 | 1;
  postNorms: boolean;
  /** Whether embeddings are multiplied by √dim. */
  scaledEmbedding: boolean;
  /** "query_pre_attn_scalar" where config.json is silent: 1/√ of it is the scale of attention. */
  attentionScalar?: number;
  /** Default caps, where the architecture knows such keys; 0: none. */
  caps?: { attention?: number; logits: number };
  /** Whether the four multipliers of Granite are read. */
  multipliers: boolean;
  windows: Windows;
  /** Base of the rotation in layers with a window, where it has one of its own. */
  windowTheta?: number;
  /** Whether heads may be rotated in part, and "longrope" may divide their frequencies. */
  phiRope: boolean;
  /** Layers that are not rotated: every one of this number. */
  noRopeInterval?: number;
  /**
   * How GGUF files of this name differ, absent where there are none. `interleaved`: pairs (2i, 2i+1) are rotated.
   * `windows`: whether a window in them counts. `wideLayers`: with this many layers, heads count as dim / nHeads wide in
   * the scale of attention. `ropeSwitch`: the key that says whether layers are rotated, where llama.cpp takes it so.
   */
  gguf?: { interleaved: boolean; windows: boolean; wideLayers?: number; ropeSwitch?: 'rope.scaling.finetuned' };
}

const none: Windows = { size: 0, byLayerTypes: false, has: () => false };
const qwenWindows: Windows = {
  size: 4096,
  switch: 'use_sliding_window',
  byLayerTypes: true,
  has: (layer, fields) => layer >= fields.integer('max_window_layers', { min: 0, max: 2 ** 30 }, 28),
};

const llama: ArchitectureRow = {
  names: { huggingFace: HUGGINGFACE_NAMES, gguf: GGUF_NAMES },
  defaults: { contextLength: 2048, normEps: 1e-6, ropeTheta: 10000, tied: false },
  biases: 'attention_bias',
  mlpBias: true,
  qkNorm: false,
  activation: 'silu',
  normOffset: 0,
  postNorms: false,
  scaledEmbedding: false,
  multipliers: false,
  windows: none,
  phiRope: false,
  gguf: { interleaved: true, windows: true },
};
const mistral: ArchitectureRow = {
  ...llama,
  defaults: { ...llama.defaults, contextLength: 131072, nKvHeads: 8 },
  biases: 'none',
  mlpBias: false,
  windows: { size: 4096, byLayerTypes: false, has: () => true },
  gguf: undefined,
};
const qwen2: ArchitectureRow = {
  ...llama,
  defaults: { ...llama.defaults, contextLength: 32768, nKvHeads: 32 },
  biases: 'qkv',
  mlpBias: false,
  windows: qwenWindows,
  gguf: { interleaved: false, windows: false },
};
const gemma: ArchitectureRow = {
  ...llama,
  defaults: { contextLength: 8192, nKvHeads: 16, headDim: 256, normEps: 1e-6, ropeTheta: 10000, tied: true },
  mlpBias: false,
  activation: 'gelu_tanh',
  normOffset: 1,
  scaledEmbedding: true,
  gguf: { interleaved: false, windows: false },
};
const gemma2: ArchitectureRow = {
  ...gemma,
  names: { huggingFace: HUGGINGFACE_POST_NORM_NAMES, gguf: GGUF_POST_NORM_NAMES },
  defaults: { ...gemma.defaults, nKvHeads: 4 },
  postNorms: true,
  attentionScalar: 256,
  caps: { attention: 50, logits: 30 },
  windows: { size: 4096, byLayerTypes: true, has: (layer) => layer % 2 === 0 },
  gguf: { interleaved: false, windows: true, wideLayers: 46 },
};

/** Every architecture that is computed. A GGUF file names it so, a config.json too unless the row says otherwise. */
export const ARCHITECTURES: Readonly<Record<Architecture, ArchitectureRow>> = {
  llama,
  mistral,
  ministral: { ...mistral, windows: { ...mistral.windows, byLayerTypes: true } },
  qwen2,
  qwen3: {
    ...qwen2,
    defaults: { ...qwen2.defaults, headDim: 128 },
    biases: 'attention_bias',
    qkNorm: true,
  },
  smollm3: {
    ...llama,
    defaults: { contextLength: 32768, nKvHeads: 4, normEps: 1e-6, ropeTheta: 2e6, tied: true },
    windows: {
      size: 0,
      switch: 'use_sliding_window',
      byLayerTypes: true,
      has: (layer, fields) => !isRotated(layer, fields, 4),
    },
    noRopeInterval: 4,
    gguf: { interleaved: true, windows: false },
  },
  gemma,
  gemma2,
  gemma3: {
    ...gemma2,
    modelType: 'gemma3_text',
    multimodalType: 'gemma3',
    textDefaults: {
      hidden_size: 2304,
      intermediate_size: 9216,
      num_hidden_layers: 26,
      num_attention_heads: 8,
      vocab_size: 262208,
    },
    names: {
      ...gemma2.names,
      huggingFace: { ...HUGGINGFACE_POST_NORM_NAMES, wholePrefixes: ['model.language_model.', 'language_model.'] },
    },
    defaults: { ...gemma2.defaults, contextLength: 131072, ropeTheta: 1e6 },
    qkNorm: true,
    caps: { logits: 0 },
    windows: {
      size: 4096,
      byLayerTypes: true,
      has: (layer, fields) => (layer + 1) % fields.integer('sliding_window_pattern', { min: 1, max: 2 ** 12 }, 6) !== 0,
    },
    windowTheta: 10000,
    gguf: { interleaved: false, windows: true, wideLayers: 62 },
  },
  phi3: {
    ...llama,
    names: { huggingFace: HUGGINGFACE_FUSED_NAMES, gguf: GGUF_FUSED_NAMES },
    defaults: { ...llama.defaults, contextLength: 4096, normEps: 1e-5 },
    biases: 'none',
    mlpBias: false,
    windows: { size: 0, byLayerTypes: false, has: () => true },
    phiRope: true,
    // As in transformers; llama.cpp ignores the window of such files.
    gguf: { interleaved: false, windows: true },
  },
  granite: {
    ...llama,
    multipliers: true,
    gguf: { interleaved: true, windows: false, ropeSwitch: 'rope.scaling.finetuned' },
  },
};

const rows = Object.entries(ARCHITECTURES) as Array<[Architecture, ArchitectureRow]>;

/** By "model_type" of a config.json whose "text_config" describes the model of text in it. */
export const MULTIMODAL_ARCHITECTURES: ReadonlyMap<string, Architecture> = new Map(
  rows.flatMap(([name, { multimodalType }]) => (multimodalType ? [[multimodalType, name]] : [])),
);

/** By "model_type" of config.json. */
export const HUGGINGFACE_ARCHITECTURES: ReadonlyMap<string, Architecture> = new Map(
  rows.map(([name, { modelType = name }]) => [modelType, name]),
);

/** By "general.architecture" of GGUF; mistral files are llama there. */
export const GGUF_ARCHITECTURES: ReadonlyMap<string, Architecture> = new Map(
  rows.flatMap(([name, { gguf }]) => (gguf ? [[name, name]] : [])),
);

/** Whether a layer's heads are rotated, where every one of `interval` layers is not. */
export function isRotated(layer: number, fields: Fields, interval: number): boolean {
  const listed = fields.raw('no_rope_layers');
  if (Array.isArray(listed) && layer < listed.length) return Boolean(listed[layer]);
  return (layer + 1) % fields.integer('no_rope_layer_interval', { min: 1, max: 2 ** 12 }, interval) !== 0;
}
