import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expectedTensors } from '../../lib/checkpoint/layout.js';
import { HUGGINGFACE_NAMES, tensorName } from '../../lib/checkpoint/names.js';
import { PROJECTIONS, type DType, type ModelConfig, type Projection } from '../../lib/checkpoint/types.js';
import { dequantize } from '../reference/dequantize.js';
import type { Matrix, Weights } from '../reference/weights.js';
import { encode, toHalf } from './encode.js';
import { randomNormal, seedOf } from './random.js';
import { safetensorsFile, type SafetensorsEntry } from './safetensors_writer.js';

export interface RandomLoraOptions {
  rank?: number;
  alpha?: number;
  dtype?: 'F32' | 'F16' | 'BF16';
  roles?: readonly Projection[];
  layers?: readonly number[];
  seed?: number;
  /** More entries of adapter_config.json; an undefined one takes the entry away. */
  config?: Record<string, unknown>;
  /** Changes the tensors before they are written. */
  tensors?: (entries: SafetensorsEntry[]) => SafetensorsEntry[];
}

/** What a random adapter adds to the weights of one projection, in the order of a Hugging Face checkpoint. */
export interface LoraUpdate {
  role: Projection;
  layer: number;
  values: Float64Array;
}

/** Writes a random adapter as PEFT does, of all seven projections unless told, and gives what it adds, in float64. */
export function writeRandomLora(folder: string, model: ModelConfig, options: RandomLoraOptions = {}): LoraUpdate[] {
  const {
    rank = 3,
    alpha = 6,
    dtype = 'F32',
    roles = PROJECTIONS,
    seed = 1,
    config,
    tensors = (entries) => entries,
  } = options;
  const scale = alpha / (config?.use_rslora ? Math.sqrt(rank) : rank);
  const layers = options.layers ?? Array.from({ length: model.nLayers }, (_, i) => i);
  const entries: SafetensorsEntry[] = [];
  const updates: LoraUpdate[] = [];
  for (const { role, layer, shape } of expectedTensors(model, { qkvBias: false, outputBias: false, qkNorm: false })) {
    const projection = roles.find((known) => known === role);
    if (!projection || !layers.includes(layer)) continue;
    const [rows, cols] = shape as [number, number];
    const module = `base_model.model.${tensorName(HUGGINGFACE_NAMES, role, layer).replace(/\.weight$/, '')}`;
    const write = (name: string, dims: [number, number], deviation: number): Float64Array => {
      const normal = randomNormal(seedOf(seed, `${role} ${layer} ${name}`));
      const data = encode(
        dtype,
        Float64Array.from({ length: dims[0] * dims[1] }, () => deviation * normal()),
      );
      entries.push({ name: `${module}.lora_${name}.weight`, dtype, shape: dims, data });
      return dequantize(dtype, data, dims[0] * dims[1]);
    };
    const a = write('A', [rank, cols], 1 / Math.sqrt(cols));
    const b = write('B', [rows, rank], 0.2);
    const values = new Float64Array(rows * cols);
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < rank; k++) {
        for (let col = 0; col < cols; col++)
          values[row * cols + col]! += scale * b[row * rank + k]! * a[k * cols + col]!;
      }
    }
    updates.push({ role: projection, layer, values });
  }
  mkdirSync(folder, { recursive: true });
  const names = roles.map((role) => HUGGINGFACE_NAMES.roles[role].replace(/^.*\.(\w+)\.weight$/, '$1'));
  // As PEFT writes it, with what it leaves at its defaults.
  const json = {
    alpha_pattern: {},
    auto_mapping: null,
    base_model_name_or_path: 'some/model',
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: options.layers ?? null,
    loftq_config: {},
    lora_alpha: alpha,
    lora_dropout: 0.05,
    megatron_config: null,
    megatron_core: 'megatron.core',
    modules_to_save: null,
    peft_type: 'LORA',
    r: rank,
    rank_pattern: {},
    revision: null,
    target_modules: names,
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: false,
    ...config,
  };
  writeFileSync(path.join(folder, 'adapter_config.json'), JSON.stringify(json));
  writeFileSync(path.join(folder, 'adapter_model.safetensors'), safetensorsFile(tensors(entries)));
  return updates;
}

/**
 * Weights with updates added in float64 and rounded to what a matrix of `dtype` has after merging. Rows of q and k are
 * interleaved first where the model keeps rotated pairs side by side.
 */
export function addUpdates(
  weights: Weights,
  updates: readonly LoraUpdate[],
  config: ModelConfig,
  dtype: DType,
): Weights {
  const byKey = new Map(updates.map((update) => [`${update.role} ${update.layer}`, update]));
  return (role, layer = -1): Matrix | undefined => {
    const matrix = weights(role, layer);
    const update = byKey.get(`${role} ${layer}`);
    if (!matrix || !update) return matrix;
    const { rows, cols } = matrix;
    const values = Float64Array.from(matrix.values);
    const turned = config.ropeInterleaved && (role === 'wq' || role === 'wk');
    for (let row = 0; row < rows; row++) {
      const to = turned ? interleavedRow(row, config.headDim) : row;
      for (let col = 0; col < cols; col++) values[to * cols + col]! += update.values[row * cols + col]!;
    }
    return { rows, cols, values: roundMerged(dtype, values) };
  };
}

/** Where a row goes when dimensions i and i + headDim/2 of a head become 2i and 2i + 1. */
function interleavedRow(row: number, headDim: number): number {
  const i = row % headDim;
  return row - i + (i < headDim / 2 ? 2 * i : 2 * (i - headDim / 2) + 1);
}

function roundMerged(dtype: DType, values: Float64Array): Float64Array {
  if (dtype === 'F32' || dtype === 'F16' || dtype === 'BF16')
    return dequantize(dtype, encode(dtype, values), values.length);
  // Q8_0, with scales rounded up so that nothing is clamped.
  const out = new Float64Array(values.length);
  for (let at = 0; at < values.length; at += 32) {
    const block = values.subarray(at, at + 32);
    const largest = Math.max(...block.map(Math.abs));
    const nearest = toHalf(largest / 127);
    const scale = [nearest, nearest + 1].map(fromHalf).find((candidate) => candidate * 127 >= largest)!;
    for (let i = 0; i < 32; i++) out[at + i] = Math.round(block[i]! / scale) * scale;
  }
  return out;
}

function fromHalf(bits: number): number {
  return dequantize('F16', Buffer.from(Uint16Array.of(bits).buffer), 1)[0]!;
}
