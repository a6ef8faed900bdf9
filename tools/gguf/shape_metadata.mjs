import { f32, u32 } from './gguf_writer.mjs';

/** The keys of a GGUF file that say a model's shape. */
export function shapeMetadata(architecture, config) {
  const own = {
    block_count: u32(config.nLayers),
    context_length: u32(config.contextLength),
    embedding_length: u32(config.dim),
    feed_forward_length: u32(config.hiddenDim),
    vocab_size: u32(config.vocabSize),
    'attention.head_count': u32(config.nHeads),
    'attention.head_count_kv': u32(config.nKvHeads),
    'attention.key_length': u32(config.headDim),
    'attention.value_length': u32(config.headDim),
    'attention.layer_norm_rms_epsilon': f32(config.normEps),
    'rope.dimension_count': u32(config.headDim),
  };
  return Object.fromEntries(Object.entries(own).map(([key, entry]) => [`${architecture}.${key}`, entry]));
}
