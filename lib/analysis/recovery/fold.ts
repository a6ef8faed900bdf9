import { readRows } from '../../checkpoint/dequantize.js';
import type { Checkpoint, Projection, TensorInfo, TensorRole } from '../../checkpoint/types.js';
import type { LoraUpdate } from '../../checkpoint/write_lora.js';
import type { Pace } from '../../util/pace.js';
import type { Site } from './group_moments.js';
import type { LowRankMap } from './reduced_rank.js';

const INPUTS: Record<Exclude<Site, 'output'>, { norm: TensorRole; projections: readonly Projection[] }> = {
  'attention input': { norm: 'attention_norm', projections: ['wq', 'wk', 'wv'] },
  'MLP input': { norm: 'mlp_norm', projections: ['w_gate', 'w_up'] },
};

/** Gains [dim] of the norm before a site, of each layer of a group; none at the output. */
export async function readGains(checkpoint: Checkpoint, group: readonly number[], site: Site): Promise<Float32Array[]> {
  const gains: Float32Array[] = [];
  if (site === 'output') return gains;
  for (const layer of group) {
    for await (const row of readRows(checkpoint, tensorOf(checkpoint, INPUTS[site].norm, layer)))
      gains.push(row.slice());
  }
  return gains;
}

/**
 * A member's correction U Vᵀ as updates of its weights. Of its input n: W (I + U Vᵀ) n for every projection W that
 * reads n, so B = W U and A = Vᵀ. Of its output m = W h: (I + U Vᵀ) W h, so B = U and A = Vᵀ W.
 *
 * @param u [rank] of [dim].
 * @param v [rank] of [dim].
 */
export async function foldMap(
  checkpoint: Checkpoint,
  layer: number,
  site: Site,
  { u, v }: Pick<LowRankMap, 'u' | 'v'>,
  pace: Pace,
): Promise<LoraUpdate[]> {
  if (site === 'output') return [await foldOutput(checkpoint, layer, u, v, pace)];
  const updates: LoraUpdate[] = [];
  for (const role of INPUTS[site].projections) updates.push(await foldInput(checkpoint, role, layer, u, v, pace));
  return updates;
}

async function foldOutput(
  checkpoint: Checkpoint,
  layer: number,
  u: readonly Float64Array[],
  v: readonly Float64Array[],
  pace: Pace,
): Promise<LoraUpdate> {
  const tensor = tensorOf(checkpoint, 'w_down', layer);
  const { rows, cols } = tensor;
  const a = new Float64Array(u.length * cols);
  let row = 0;
  for await (const weights of readRows(checkpoint, tensor)) {
    for (const [k, vector] of v.entries()) {
      const factor = vector[row]!;
      for (let c = 0; c < cols; c++) a[k * cols + c]! += factor * weights[c]!;
    }
    row++;
    await pace.pause();
  }
  const b = Float32Array.from({ length: rows * u.length }, (_, i) => u[i % u.length]![Math.floor(i / u.length)]!);
  return { role: 'w_down', layer, rank: u.length, a: Float32Array.from(a), b };
}

async function foldInput(
  checkpoint: Checkpoint,
  role: Projection,
  layer: number,
  u: readonly Float64Array[],
  v: readonly Float64Array[],
  pace: Pace,
): Promise<LoraUpdate> {
  const tensor = tensorOf(checkpoint, role, layer);
  const { headDim, ropeInterleaved } = checkpoint.config;
  const a = new Float32Array(v.length * tensor.cols);
  for (const [k, vector] of v.entries()) a.set(vector, k * tensor.cols);
  const b = new Float32Array(tensor.rows * u.length);
  const interleaved = ropeInterleaved && (role === 'wq' || role === 'wk');
  let row = 0;
  for await (const weights of readRows(checkpoint, tensor)) {
    // Adapters have their rows as Hugging Face checkpoints have them: pairs that are rotated together half a head
    // apart.
    const i = row % headDim;
    const to = interleaved ? row - i + (i % 2) * (headDim / 2) + (i >> 1) : row;
    for (const [k, vector] of u.entries()) {
      let sum = 0;
      for (let c = 0; c < weights.length; c++) sum += weights[c]! * vector[c]!;
      b[to * u.length + k] = sum;
    }
    row++;
    await pace.pause();
  }
  return { role, layer, rank: u.length, a, b };
}

function tensorOf({ tensors }: Checkpoint, role: TensorRole, layer: number): TensorInfo {
  return tensors.find((tensor) => tensor.role === role && tensor.layer === layer)!;
}
