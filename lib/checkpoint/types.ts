/** Element formats a weight may have in its file. Block formats are those of GGUF. */
export type DType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q4_K' | 'Q5_K' | 'Q6_K';

/** Weights per block and bytes per block of each format; a row is a whole number of blocks. */
export const DTYPE_BLOCK: Record<DType, { weights: number; bytes: number }> = {
  F32: { weights: 1, bytes: 4 },
  F16: { weights: 1, bytes: 2 },
  BF16: { weights: 1, bytes: 2 },
  Q8_0: { weights: 32, bytes: 34 },
  Q4_0: { weights: 32, bytes: 18 },
  Q4_K: { weights: 256, bytes: 144 },
  Q5_K: { weights: 256, bytes: 176 },
  Q6_K: { weights: 256, bytes: 210 },
};

/** Model families the engine computes; `architectures.ts` describes each. */
export type Architecture =
  | 'llama'
  | 'mistral'
  | 'ministral'
  | 'qwen2'
  | 'qwen3'
  | 'smollm3'
  | 'gemma'
  | 'gemma2'
  | 'gemma3'
  | 'phi3'
  | 'granite';

/**
 * Where a model's formula may differ from LLaMA's, which is `LLAMA_FORMULA` in `architectures.ts`. In the formula of
 * groups, a_j and m_j are what a layer's blocks add to the residual stream: after their post-norm and times
 * `residualScale`.
 */
export interface Formula {
  /** What the gate of an MLP goes through; `gelu_tanh`: g/2 · (1 + tanh(√(2/π) · (g + 0.044715·g³))). */
  activation: 'silu' | 'gelu_tanh';
  /** Added to the weights of every norm. */
  normOffset: number;
  /** Whether what a block computes is normalised before it is added. */
  postNorms: boolean;
  /** On rows of the token embedding. */
  embeddingScale: number;
  /** On what a block adds. */
  residualScale: number;
  /** On products of queries and keys; 0 means 1/√headDim. */
  attentionScale: number;
  /** A scaled product s becomes cap · tanh(s / cap); 0 means that it stays. */
  attentionCap: number;
  /** On logits. */
  logitScale: number;
  /** After the scale, as `attentionCap`. */
  logitCap: number;
}

/** What may differ from layer to layer besides weights. */
export interface LayerFormula {
  /** Positions a query may look back, itself included; 0 means all. */
  window: number;
  /** Which of `ModelConfig.ropeFrequencies` turn the heads; −1 means none. */
  rope: number;
}

/** The shape of a decoder-only LLaMA-family model, whatever file it came from. */
export interface ModelConfig {
  architecture: Architecture;
  /** Width of the residual stream. */
  dim: number;
  /** Width of the MLP between gate/up and down. */
  hiddenDim: number;
  /** Width of one attention head; even. Not always dim / nHeads. */
  headDim: number;
  nHeads: number;
  /** Key/value heads (GQA); divides nHeads. */
  nKvHeads: number;
  nLayers: number;
  vocabSize: number;
  /** Positions the model was made for. */
  contextLength: number;
  /** Epsilon of every RMSNorm. */
  normEps: number;
  /** The first values of a head, which are rotated; even, and headDim in most models. */
  ropeDim: number;
  /** Rotation per position, radians, one per rotated pair, all scaling applied: [ropes][ropeDim / 2]; one rope in most. */
  ropeFrequencies: Float64Array;
  /** Factor on cos and sin (YaRN's attention factor); 1 elsewhere. */
  ropeAttentionFactor: number;
  /** True when a head's rotated pairs are (2i, 2i+1), as in llama GGUF files; false when (i, i + ropeDim/2). */
  ropeInterleaved: boolean;
  formula: Formula;
  /** [nLayers] */
  layers: LayerFormula[];
  /** True when the output projection is the token embedding. */
  tiedEmbeddings: boolean;
}

/** What a tensor is to the model. Per-layer roles carry a layer index; the first three stand once (layer −1). */
export type TensorRole =
  | 'token_embedding' // [vocabSize, dim]
  | 'output_norm' //     [dim]
  | 'output' //          [vocabSize, dim]; absent when tied
  | 'attention_norm' //  [dim]
  | 'wq' //              [nHeads·headDim, dim]
  | 'wk' //              [nKvHeads·headDim, dim]
  | 'wv' //              [nKvHeads·headDim, dim]
  | 'wo' //              [dim, nHeads·headDim]
  | 'bq' //              [nHeads·headDim]
  | 'bk' //              [nKvHeads·headDim]
  | 'bv' //              [nKvHeads·headDim]
  | 'bo' //              [dim]
  | 'q_norm' //          [headDim]
  | 'k_norm' //          [headDim]
  | 'mlp_norm' //        [dim]
  | 'w_gate' //          [hiddenDim, dim]
  | 'w_up' //            [hiddenDim, dim]
  | 'w_down' //          [dim, hiddenDim]
  | 'attention_post_norm' // [dim]
  | 'mlp_post_norm'; //      [dim]

/** The seven matrices of a layer, in the order of the forward pass: what an adapter may update. */
export const PROJECTIONS = [
  'wq',
  'wk',
  'wv',
  'wo',
  'w_gate',
  'w_up',
  'w_down',
] as const satisfies readonly TensorRole[];
export type Projection = (typeof PROJECTIONS)[number];

/** Where one tensor lies. Rows × columns, row-major, columns contiguous; vectors have one row. */
export interface TensorInfo {
  /** Name in the file. */
  name: string;
  role: TensorRole;
  /** 0-based; −1 for tensors that stand once. */
  layer: number;
  dtype: DType;
  rows: number;
  cols: number;
  /** Index into `Checkpoint.files`. */
  file: number;
  /** Byte offset in that file. */
  offset: number;
  byteLength: number;
}

/** What a Hugging Face folder says about its tokenizer besides the vocabulary, parsed. */
export interface TokenizerSurroundings {
  /** tokenizer_config.json. */
  config: unknown;
  /** generation_config.json, with the ids of BOS and EOS of config.json where it has none. */
  generationConfig: unknown;
  /** chat_template.jinja, or what chat_template.json holds. */
  chatTemplate?: string;
  /** additional_chat_templates/NAME.jinja, by name. */
  furtherChatTemplates?: Record<string, string>;
  /** added_tokens.json. */
  addedTokens?: unknown;
  /** special_tokens_map.json. */
  specialTokensMap?: unknown;
}

/**
 * What the tokenizer is built from, by kind: tokenizer.json, parsed; vocab.json, parsed, and the text of merges.txt;
 * SentencePiece's tokenizer.model; a GGUF file's metadata.
 */
export type TokenizerSource =
  | ({ kind: 'huggingface'; json: unknown } & TokenizerSurroundings)
  | ({ kind: 'byte_level'; vocab: unknown; merges: string } & TokenizerSurroundings)
  | ({ kind: 'sentencepiece'; model: Uint8Array } & TokenizerSurroundings)
  | { kind: 'gguf'; metadata: ReadonlyMap<string, GgufValue> }
  | { kind: 'none'; reason: string };

/** The first four bytes of a GGUF file, little-endian. */
export const GGUF_MAGIC = 0x46554747;

export type GgufValue = number | bigint | boolean | string | GgufArray;
export type GgufArray =
  | GgufStrings
  | number[]
  | boolean[]
  | GgufArray[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/**
 * Strings of a GGUF file, decoded whenever they are asked for: a vocabulary takes longer to decode than the rest of a
 * header to read.
 */
export interface GgufStrings extends Iterable<string> {
  readonly length: number;
}

/** A model on disk: its shape and where each tensor lies. No weight is read. */
export interface Checkpoint {
  format: 'huggingface' | 'gguf';
  /** The path as given, made absolute. For a path of one of a folder's configuration files, the folder. */
  path: string;
  config: ModelConfig;
  /**
   * When config.json holds a plan: the path of that file, and the fields that describe the plan, as `resolvePlan` takes
   * them.
   */
  plan?: { file: string; fields: Record<string, unknown> };
  files: string[];
  /** Every tensor the engine needs, each once; checked against `config` and the files' sizes. */
  tensors: TensorInfo[];
  /**
   * Reads what the tokenizer is built from. Rejects with INVALID_TOKENIZER, INVALID_CHECKPOINT, FILE_NOT_FOUND or
   * ABORTED.
   */
  readTokenizer(signal?: AbortSignal): Promise<TokenizerSource>;
  /**
   * Reads every id that ends a text, as far as the files name such ids without a tokenizer. Needed for models whose
   * tokenizer cannot be used.
   */
  readEosTokenIds(): Promise<number[]>;
}
