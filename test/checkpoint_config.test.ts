import { describe, expect, it } from 'vitest';
import { LLAMA_FORMULA } from '../lib/checkpoint/architectures.js';
import { parseConfigJson } from '../lib/checkpoint/config.js';
import { ggufConfig } from '../lib/checkpoint/gguf_config.js';
import type { GgufValue } from '../lib/checkpoint/types.js';
import { ggufStrings } from './support/gguf_strings.js';

const base = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 128,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  num_hidden_layers: 2,
  vocab_size: 100,
  max_position_embeddings: 512,
};
const parse = (extra: object = {}) => parseConfigJson({ ...base, ...extra }, 'config.json');
const refusal = (code: string, says: string) =>
  expect.objectContaining({ name: 'CqilError', code, message: expect.stringContaining(says) });

describe('config.json', () => {
  it('is read with the defaults of transformers', () => {
    expect(parse().config).toMatchObject({
      architecture: 'llama',
      dim: 64,
      hiddenDim: 128,
      headDim: 16,
      nHeads: 4,
      nKvHeads: 2,
      nLayers: 2,
      vocabSize: 100,
      contextLength: 512,
      normEps: 1e-6,
      formula: LLAMA_FORMULA,
      layers: [
        { window: 0, rope: 0 },
        { window: 0, rope: 0 },
      ],
      tiedEmbeddings: false,
    });
    expect(parse({ num_key_value_heads: undefined }).config.nKvHeads).toBe(4);
    expect(
      parse({ model_type: 'mistral', num_attention_heads: 8, num_key_value_heads: undefined }).config.nKvHeads,
    ).toBe(8);
    expect(parse({ model_type: 'mistral', num_attention_heads: 2, num_key_value_heads: null }).config.nKvHeads).toBe(2);
    expect(parse({ model_type: 'qwen3' }).config.headDim).toBe(128);
    expect(parse({ model_type: 'qwen3', head_dim: 32 }).config.headDim).toBe(32);
    expect(parse({ head_dim: 10 }).config.headDim).toBe(10);
    expect(parse({ head_dim: null, tie_word_embeddings: true, rms_norm_eps: 1e-5 }).config).toMatchObject({
      headDim: 16,
      tiedEmbeddings: true,
      normEps: 1e-5,
    });
    expect(parseConfigJson({ ...base, max_position_embeddings: undefined }, 'config.json').config.contextLength).toBe(
      2048,
    );
  });

  it('says which biases and norms the layers have', () => {
    expect(parse().options).toEqual({ qkvBias: false, outputBias: false, qkNorm: false });
    expect(parse({ attention_bias: true }).options).toEqual({ qkvBias: true, outputBias: true, qkNorm: false });
    expect(parse({ model_type: 'qwen2' }).options).toEqual({ qkvBias: true, outputBias: false, qkNorm: false });
    expect(parse({ model_type: 'qwen3' }).options).toEqual({ qkvBias: false, outputBias: false, qkNorm: true });
    expect(parse({ model_type: 'qwen3', attention_bias: true }).options).toEqual({
      qkvBias: true,
      outputBias: true,
      qkNorm: true,
    });
    expect(parse({ model_type: 'mistral', attention_bias: true }).options.qkvBias).toBe(false);
  });

  it('gives mistral its sliding window and the others none', () => {
    expect(parse({ model_type: 'mistral', sliding_window: 7 }).config.layers.map(({ window }) => window)).toEqual([
      7, 7,
    ]);
    expect(parse({ model_type: 'mistral' }).config.layers.map(({ window }) => window)).toEqual([4096, 4096]);
    expect(parse({ model_type: 'mistral', sliding_window: null }).config.layers.map(({ window }) => window)).toEqual([
      0, 0,
    ]);
    expect(
      parse({ model_type: 'qwen2', sliding_window: 7, use_sliding_window: false }).config.layers.map(
        ({ window }) => window,
      ),
    ).toEqual([0, 0]);
    expect(parse({ sliding_window: 7 }).config.layers.map(({ window }) => window)).toEqual([0, 0]);
  });

  it('gives windows, rotations and scales by layer as transformers does', () => {
    const layersOf = (extra: object) => parse({ num_hidden_layers: 6, ...extra }).config.layers;
    const windowsOf = (extra: object) => layersOf(extra).map(({ window }) => window);
    expect(windowsOf({ model_type: 'gemma2' })).toEqual([4096, 0, 4096, 0, 4096, 0]);
    expect(windowsOf({ model_type: 'gemma2', sliding_window: null })).toEqual([0, 0, 0, 0, 0, 0]);
    expect(windowsOf({ model_type: 'gemma3_text', sliding_window: 5 })).toEqual([5, 5, 5, 5, 5, 0]);
    expect(layersOf({ model_type: 'gemma3_text' }).map(({ rope }) => rope)).toEqual([1, 1, 1, 1, 1, 0]);
    expect(windowsOf({ model_type: 'phi3' })).toEqual([0, 0, 0, 0, 0, 0]);
    expect(windowsOf({ model_type: 'phi3', sliding_window: 3 })).toEqual([3, 3, 3, 3, 3, 3]);
    expect(windowsOf({ model_type: 'qwen3', use_sliding_window: true, max_window_layers: 4 })).toEqual([
      0, 0, 0, 0, 4096, 4096,
    ]);
    expect(layersOf({ model_type: 'smollm3' }).map(({ rope }) => rope)).toEqual([0, 0, 0, -1, 0, 0]);
    expect(parse({ model_type: 'gemma2' }).config).toMatchObject({
      headDim: 256,
      tiedEmbeddings: true,
      formula: { attentionScale: 1 / 16, attentionCap: 50, logitCap: 30, embeddingScale: 8, normOffset: 1 },
    });
    expect(parse({ model_type: 'gemma2', attn_logit_softcapping: null }).config.formula.attentionCap).toBe(0);
    expect(parse({ model_type: 'gemma3_text' }).config.formula).toMatchObject({ attentionCap: 0, logitCap: 0 });
    expect(parse({ model_type: 'granite', logits_scaling: 8 }).config.formula).toMatchObject({
      attentionScale: 1,
      logitScale: 1 / 8,
    });
  });

  it('uses longrope up to the length the model was trained on', () => {
    const factors = Array.from({ length: 8 }, (_, i) => 1 + i / 10);
    const phi = (rope: object) =>
      parse({ model_type: 'phi3', original_max_position_embeddings: 128, rope_scaling: { type: 'su', ...rope } })
        .config;
    const { contextLength, ropeFrequencies, ropeAttentionFactor } = phi({
      short_factor: factors,
      long_factor: factors,
    });
    expect(contextLength).toBe(128);
    expect(ropeFrequencies[1]).toBeCloseTo(10000 ** (-1 / 8) / 1.1, 12);
    expect(ropeAttentionFactor).toBeCloseTo(Math.sqrt(1 + Math.log(4) / Math.log(128)), 12);
    expect(() => phi({ short_factor: [1] })).toThrow(refusal('INVALID_CHECKPOINT', 'a list of 8 numbers'));
    expect(() => phi({})).toThrow(refusal('INVALID_CHECKPOINT', 'no "short_factor"'));
  });

  it.each([
    [
      { model_type: 'gpt2' },
      'llama, mistral, ministral, qwen2, qwen3, smollm3, gemma, gemma2, gemma3_text, phi3, granite',
    ],
    [{ model_type: 'constructor' }, 'constructor'],
    [{ quantization_config: { quant_method: 'gptq' } }, 'gptq'],
    [{ hidden_act: 'gelu' }, 'gelu'],
    [{ mlp_bias: true }, 'mlp_bias'],
    [{ model_type: 'gemma2', layer_types: ['full_attention', 'linear_attention'] }, 'linear_attention'],
    [{ model_type: 'gemma3_text', use_bidirectional_attention: true }, 'use_bidirectional_attention'],
    [{ model_type: 'gemma2', hidden_activation: 'gelu' }, 'gelu_pytorch_tanh'],
    [{ model_type: 'mistral', layer_types: ['full_attention', 'sliding_attention'] }, 'layer_types'],
  ])('refuses %j as unsupported', (extra, says) => {
    expect(() => parse(extra)).toThrow(refusal('UNSUPPORTED_MODEL', says));
  });

  it.each([
    [{ model_type: undefined }, '"model_type"'],
    [{ model_type: 7 }, '"model_type": 7'],
    [{ hidden_size: undefined }, 'no "hidden_size"'],
    [{ hidden_size: '64' }, '"hidden_size": "64"'],
    [{ hidden_size: 1e12 }, '"hidden_size"'],
    [{ hidden_size: 63 }, 'no multiple'],
    [{ num_hidden_layers: 0 }, '"num_hidden_layers": 0'],
    [{ num_hidden_layers: 2.5 }, '2.5'],
    [{ num_hidden_layers: 1e9 }, '"num_hidden_layers"'],
    [{ num_attention_heads: -4 }, '-4'],
    [{ num_key_value_heads: 3 }, 'divisor'],
    [{ head_dim: 15 }, 'even'],
    [{ vocab_size: 2 ** 40 }, '"vocab_size"'],
    [{ vocab_size: [100] }, 'an array of 1'],
    [{ rms_norm_eps: 0 }, '"rms_norm_eps"'],
    [{ rms_norm_eps: 'small' }, '"rms_norm_eps"'],
    [{ tie_word_embeddings: 1 }, 'true or false'],
    [{ quantization_config: 4 }, 'quantization_config'],
    [{ model_type: 'gemma2', layer_types: ['full_attention'] }, 'a list of 2'],
    [
      {
        model_type: 'smollm3',
        sliding_window: 5,
        use_sliding_window: false,
        layer_types: ['full_attention', 'sliding_attention'],
      },
      '"use_sliding_window": false',
    ],
    [
      {
        model_type: 'qwen2',
        sliding_window: 5,
        use_sliding_window: false,
        layer_types: ['full_attention', 'sliding_attention'],
      },
      '"use_sliding_window": false',
    ],
    [{ model_type: 'qwen3', layer_types: ['full_attention', 'sliding_attention'] }, '"use_sliding_window": false'],
    [
      { model_type: 'gemma2', sliding_window: null, layer_types: ['full_attention', 'sliding_attention'] },
      '"sliding_window": null',
    ],
    [{ model_type: 'gemma2', final_logit_softcapping: 'no' }, '"final_logit_softcapping"'],
    [{ model_type: 'phi3', partial_rotary_factor: 0.1 }, 'rotates 1 of 16'],
  ])('refuses %j as invalid', (extra, says) => {
    expect(() => parse(extra)).toThrow(refusal('INVALID_CHECKPOINT', says));
  });

  it('refuses what is not an object', () => {
    for (const json of [null, [], 'llama', 3, undefined])
      expect(() => parseConfigJson(json, 'config.json').config).toThrow(refusal('INVALID_CHECKPOINT', 'JSON object'));
  });
});

describe('GGUF metadata', () => {
  const gguf: Record<string, GgufValue> = {
    'general.architecture': 'llama',
    'llama.embedding_length': 64,
    'llama.feed_forward_length': 128,
    'llama.block_count': 2,
    'llama.attention.head_count': 4,
    'llama.context_length': 512,
    'llama.attention.layer_norm_rms_epsilon': 1e-5,
  };
  const embedding = { name: 'token_embd.weight', type: 0, shape: [100, 64], offset: 0 };
  const shape = (extra: Record<string, GgufValue> = {}) =>
    ggufConfig({ metadata: new Map(Object.entries({ ...gguf, ...extra })), tensors: [embedding] }, undefined, 'a.gguf')
      .config;

  it('is read with the defaults of llama.cpp', () => {
    expect(shape()).toMatchObject({
      headDim: 16,
      nKvHeads: 4,
      vocabSize: 100,
      formula: LLAMA_FORMULA,
      tiedEmbeddings: true,
    });
    expect(
      shape({ 'llama.attention.key_length': 32, 'llama.attention.value_length': 32, 'llama.rope.dimension_count': 32 })
        .headDim,
    ).toBe(32);
    expect(shape({ 'llama.attention.sliding_window': 7 }).layers[1]).toEqual({ window: 7, rope: 0 });
    expect(
      shape({ 'llama.attention.head_count_kv': Int32Array.of(2, 2), 'llama.feed_forward_length': [96, 96] }),
    ).toMatchObject({ nKvHeads: 2, hiddenDim: 96 });
    expect(shape({ 'llama.vocab_size': 99 }).vocabSize).toBe(100);
  });

  it.each<[Record<string, GgufValue>, string, string]>([
    [
      { 'general.architecture': 'gpt2' },
      'UNSUPPORTED_MODEL',
      'llama, qwen2, qwen3, smollm3, gemma, gemma2, gemma3, phi3',
    ],
    [{ 'llama.expert_count': 8 }, 'UNSUPPORTED_MODEL', 'expert_count'],
    [{ 'llama.attention.head_count_kv': Int32Array.of(2, 4) }, 'UNSUPPORTED_MODEL', 'layer to layer'],
    [{ 'llama.attention.head_count_kv': Int32Array.of(2) }, 'INVALID_CHECKPOINT', '1 values'],
    [{ 'llama.attention.key_length': 32, 'llama.attention.value_length': 16 }, 'UNSUPPORTED_MODEL', 'value_length'],
    [{ 'llama.logit_scale': 2 }, 'UNSUPPORTED_MODEL', 'logit_scale'],
    [{ 'llama.embedding_length': 2n ** 60n }, 'INVALID_CHECKPOINT', 'embedding_length'],
    [{ 'llama.block_count': 'two' }, 'INVALID_CHECKPOINT', '"two"'],
    [{ 'tokenizer.ggml.tokens': ggufStrings(['a', 'b']) }, 'INVALID_CHECKPOINT', '2 tokens'],
  ])('refuses %o as %s', (extra, code, says) => {
    expect(() => shape(extra)).toThrow(refusal(code, says));
  });
});
