import { describe, expect, it } from 'vitest';
import { parseConfigJson } from '../lib/checkpoint/config.js';
import { ggufConfig } from '../lib/checkpoint/gguf_config.js';
import type { ModelConfig } from '../lib/checkpoint/types.js';

// The published formulas, written again here, pair by pair, without looking at how the library arranges them.

const HEAD_DIM = 64;
const pairs = Array.from({ length: HEAD_DIM / 2 }, (_, i) => i);
const plain = (theta: number) => pairs.map((i) => 1 / theta ** ((2 * i) / HEAD_DIM));

/** Llama 3.1's reference code: by wavelength in positions. */
function llama3(theta: number, factor: number, low: number, high: number, trained: number): number[] {
  return plain(theta).map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < trained / high) return frequency;
    if (wavelength > trained / low) return frequency / factor;
    const smooth = (trained / wavelength - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
}

/**
 * The YaRN paper's authors' code: a ramp over dimensions between those with `fast` and `slow` rotations in the trained
 * context.
 */
function yarn(theta: number, factor: number, trained: number, { fast = 32, slow = 1, round = true } = {}): number[] {
  const dimensionWith = (rotations: number) =>
    (HEAD_DIM * Math.log(trained / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const low = Math.max(0, round ? Math.floor(dimensionWith(fast)) : dimensionWith(fast));
  const high = Math.min(HEAD_DIM - 1, round ? Math.ceil(dimensionWith(slow)) : dimensionWith(slow));
  return plain(theta).map((frequency, i) => {
    const interpolated = Math.min(1, Math.max(0, (i - low) / (high === low ? 0.001 : high - low)));
    return interpolated * (frequency / factor) + (1 - interpolated) * frequency;
  });
}

function expectRope(config: ModelConfig, frequencies: number[], attentionFactor = 1): void {
  expect(config.ropeFrequencies).toHaveLength(frequencies.length);
  config.ropeFrequencies.forEach((frequency, i) => expect(frequency / frequencies[i]!, `pair ${i}`).toBeCloseTo(1, 12));
  expect(config.ropeAttentionFactor).toBeCloseTo(attentionFactor, 12);
}

describe('rotary frequencies of config.json', () => {
  const base = {
    model_type: 'llama',
    hidden_size: 256,
    intermediate_size: 512,
    num_attention_heads: 4,
    num_hidden_layers: 2,
    vocab_size: 100,
    max_position_embeddings: 8192,
  };
  const shape = (extra: object) => parseConfigJson({ ...base, ...extra }, 'config.json').config;

  it('default', () => {
    expectRope(shape({}), plain(10000));
    expectRope(shape({ rope_theta: 500000, rope_scaling: null }), plain(500000));
    expectRope(shape({ rope_theta: 1e6, rope_scaling: { rope_type: 'default' } }), plain(1e6));
    expectRope(shape({ rope_parameters: { rope_type: 'default', rope_theta: 20000 } }), plain(20000));
  });

  it('linear', () => {
    const expected = plain(10000).map((frequency) => frequency / 4);
    expectRope(shape({ rope_scaling: { type: 'linear', factor: 4 } }), expected);
    expectRope(shape({ rope_parameters: { rope_type: 'linear', factor: 4, rope_theta: 10000 } }), expected);
  });

  it('llama3, all three bands', () => {
    const rope_scaling = {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    };
    const expected = llama3(500000, 8, 1, 4, 8192);
    const ratios = plain(500000).map((frequency, i) => frequency / expected[i]!);
    expect([ratios.includes(1), ratios.includes(8), ratios.some((ratio) => ratio > 1 && ratio < 8)]).toEqual([
      true,
      true,
      true,
    ]);
    expectRope(shape({ rope_theta: 500000, max_position_embeddings: 131072, rope_scaling }), expected);
  });

  it('yarn', () => {
    const scaled = (extra: object, top: object = {}) =>
      shape({
        max_position_embeddings: 32768,
        ...top,
        rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 8192, ...extra },
      });
    const usual = 0.1 * Math.log(4) + 1;
    expectRope(scaled({}), yarn(10000, 4, 8192), usual);
    expectRope(scaled({ beta_fast: 16, beta_slow: 2 }), yarn(10000, 4, 8192, { fast: 16, slow: 2 }), usual);
    expectRope(scaled({ truncate: false }), yarn(10000, 4, 8192, { round: false }), usual);
    expectRope(scaled({ attention_factor: 0.8 }), yarn(10000, 4, 8192), 0.8);
    expectRope(
      scaled({ mscale: 0.7, mscale_all_dim: 1.2 }),
      yarn(10000, 4, 8192),
      (0.07 * Math.log(4) + 1) / (0.12 * Math.log(4) + 1),
    );
    expectRope(scaled({ mscale: 0.7 }), yarn(10000, 4, 8192), usual);
    expectRope(scaled({ original_max_position_embeddings: null }), yarn(10000, 4, 32768), usual);
    // Without a factor it is the growth of the context.
    expectRope(
      scaled({ factor: null }, { max_position_embeddings: 65536 }),
      yarn(10000, 8, 8192),
      0.1 * Math.log(8) + 1,
    );
    expectRope(scaled({ factor: 0.5 }), yarn(10000, 0.5, 8192), 1);
  });

  it('refuses other kinds by name, and parameters that make no sense', () => {
    for (const type of ['dynamic', 'longrope', 'su', 'mrope', 'proportional']) {
      expect(() => shape({ rope_scaling: { type, factor: 2 } })).toThrow(
        expect.objectContaining({ code: 'UNSUPPORTED_MODEL', message: expect.stringContaining(`"${type}"`) }),
      );
    }
    expect(() => shape({ partial_rotary_factor: 0.5 })).toThrow(expect.objectContaining({ code: 'UNSUPPORTED_MODEL' }));
    const wrong = [
      { rope_theta: 0 },
      { rope_theta: 1 },
      { rope_theta: 'ten' },
      { rope_scaling: 'linear' },
      { rope_scaling: { type: 'linear' } },
      { rope_scaling: { type: 'linear', factor: 0 } },
      { rope_scaling: { type: 'linear', factor: -2 } },
      { rope_scaling: { rope_type: 7 } },
      { rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 4 } },
    ];
    for (const extra of wrong)
      expect(() => shape(extra), JSON.stringify(extra)).toThrow(
        expect.objectContaining({ code: 'INVALID_CHECKPOINT' }),
      );
  });
});

describe('rotary frequencies of GGUF metadata', () => {
  const base = {
    'general.architecture': 'llama',
    'llama.embedding_length': 256,
    'llama.feed_forward_length': 512,
    'llama.block_count': 2,
    'llama.attention.head_count': 4,
    'llama.context_length': 16384,
    'llama.attention.layer_norm_rms_epsilon': 1e-5,
  };
  const tensors = [{ name: 'token_embd.weight', type: 0, shape: [100, 256], offset: 0 }];
  const shape = (extra: Record<string, string | number> = {}, divisors?: Float32Array) => {
    const own = Object.entries(extra).map(([key, value]) => [`llama.rope.${key}`, value] as const);
    return ggufConfig({ metadata: new Map([...Object.entries(base), ...own]), tensors }, divisors, 'a.gguf').config;
  };

  it('granite rotates nothing where its file says that rope is off, as llama.cpp reads it', () => {
    const rotationsOf = (architecture: string, finetuned?: boolean) => {
      const entries = Object.entries({ ...base, 'llama.rope.scaling.finetuned': finetuned })
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => [
          key.replace('llama', architecture),
          key === 'general.architecture' ? architecture : value!,
        ]);
      const metadata = new Map(entries as Array<[string, string | number | boolean]>);
      const file = { metadata, tensors };
      return ggufConfig(file, undefined, 'a.gguf').config.layers.map(({ rope }) => rope);
    };
    expect(rotationsOf('granite', false)).toEqual([-1, -1]);
    for (const [architecture, finetuned] of [['granite', true], ['granite'], ['llama', false]] as const)
      expect(rotationsOf(architecture, finetuned)).toEqual([0, 0]);
  });

  it('default, linear and the older name of its factor', () => {
    expectRope(shape(), plain(10000));
    expectRope(shape({ freq_base: 500000 }), plain(500000));
    const expected = plain(10000).map((frequency) => frequency / 2);
    expectRope(shape({ 'scaling.factor': 2 }), expected);
    expectRope(shape({ 'scaling.type': 'linear', 'scaling.factor': 2 }), expected);
    expectRope(shape({ scale_linear: 2 }), expected);
    expectRope(shape({ 'scaling.type': 'none', 'scaling.factor': 2 }), plain(10000));
  });

  it('llama3, kept as divisors in a tensor', () => {
    const expected = llama3(500000, 8, 1, 4, 8192);
    const divisors = plain(500000).map((frequency, i) => frequency / expected[i]!);
    const { ropeFrequencies } = shape({ freq_base: 500000 }, Float32Array.from(divisors));
    ropeFrequencies.forEach((frequency, i) => expect(frequency / expected[i]!).toBeCloseTo(1, 6));
    for (const wrong of [Float32Array.of(1, 2), new Float32Array(32), new Float32Array(32).fill(NaN)]) {
      expect(() => shape({}, wrong)).toThrow(expect.objectContaining({ code: 'INVALID_CHECKPOINT' }));
    }
  });

  it('yarn', () => {
    const keys = { 'scaling.type': 'yarn', 'scaling.factor': 4, 'scaling.original_context_length': 4096 };
    expectRope(shape(keys), yarn(10000, 4, 4096), 0.1 * Math.log(4) + 1);
    expectRope(shape({ ...keys, 'scaling.attn_factor': 0.5 }), yarn(10000, 4, 4096), 0.5 * (0.1 * Math.log(4) + 1));
    expectRope(
      shape({ ...keys, 'scaling.yarn_beta_fast': 16 }),
      yarn(10000, 4, 4096, { fast: 16 }),
      0.1 * Math.log(4) + 1,
    );
  });

  it('refuses what it does not compute', () => {
    for (const extra of [
      { 'scaling.type': 'longrope' },
      { 'scaling.yarn_log_multiplier': 0.1 },
      { 'scaling.yarn_ext_factor': 0.5 },
      { dimension_count: 32 },
    ]) {
      expect(() => shape(extra as unknown as Record<string, number>)).toThrow(
        expect.objectContaining({ code: 'UNSUPPORTED_MODEL' }),
      );
    }
  });
});
