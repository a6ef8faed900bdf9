import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readRows } from '../lib/checkpoint/dequantize.js';
import { openLora } from '../lib/checkpoint/lora.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Checkpoint, DType } from '../lib/checkpoint/types.js';
import { writeLora } from '../lib/checkpoint/write_lora.js';
import { Pace } from '../lib/util/pace.js';
import { cholesky, dot, solveCholesky, topEigenvectors } from '../lib/analysis/recovery/linear_algebra.js';
import { foldMap } from '../lib/analysis/recovery/fold.js';
import type { Site } from '../lib/analysis/recovery/group_moments.js';
import { Moments } from '../lib/analysis/recovery/moments.js';
import { reducedRank } from '../lib/analysis/recovery/reduced_rank.js';
import { dequantize } from './reference/dequantize.js';
import { referenceModel } from './reference/forward.js';
import { randomNormal } from './support/random.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const SHAPE = { dim: 36, hiddenDim: 50, headDim: 6, nHeads: 6, nKvHeads: 3, nLayers: 5, vocabSize: 47 };

/** [rows][cols] of standard normal numbers. */
function normals(rows: number, cols: number, seed: number): Float64Array[] {
  const next = randomNormal(seed);
  return Array.from({ length: rows }, () => Float64Array.from({ length: cols }, next));
}

function flatten(rows: readonly Float64Array[]): Float64Array {
  return Float64Array.from(rows.flatMap((row) => Array.from(row)));
}

describe('linear algebra', () => {
  const n = 13;
  const rows = normals(n, n, 3);
  /** R·Rᵀ + I, positive definite. */
  const matrix = Float64Array.from(
    { length: n * n },
    (_, i) => dot(rows[Math.floor(i / n)]!, rows[i % n]!) + (i % (n + 1) === 0 ? 1 : 0),
  );

  it('solves with the Cholesky factor, reading the lower triangle alone', () => {
    const factor = matrix.map((value, i) => (i % n > Math.floor(i / n) ? Number.NaN : value));
    expect(cholesky(factor, n)).toBe(true);
    const truth = flatten(normals(n, 4, 5));
    const b = Float64Array.from({ length: n * 4 }, (_, i) => {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += matrix[Math.floor(i / 4) * n + k]! * truth[k * 4 + (i % 4)]!;
      return sum;
    });
    solveCholesky(factor, n, b, 4);
    b.forEach((value, i) => expect(value).toBeCloseTo(truth[i]!, 9));
  });

  it.each([
    ['an indefinite matrix', [1, 0, 2, 1]],
    ['a singular matrix', [1, 0, 1, 1]],
    ['a matrix that is not finite', [Number.NaN, 0, 0, 1]],
  ])('says so of %s', (_, values) => expect(cholesky(Float64Array.from(values), 2)).toBe(false));

  it('finds the leading eigenvectors', () => {
    // Reflections of the unit vectors are orthonormal: the eigenvectors of Σ λ_k q_k q_kᵀ.
    const mirror = rows[0]!;
    const scale = 2 / dot(mirror, mirror);
    const q = Array.from({ length: n }, (_, k) =>
      mirror.map((value, i) => (i === k ? 1 : 0) - scale * mirror[k]! * value),
    );
    const values = q.map((_, k) => (k < 4 ? 2 ** -k : 0));
    const a = Float64Array.from({ length: n * n }, (_, i) =>
      q.reduce((sum, vector, k) => sum + values[k]! * vector[Math.floor(i / n)]! * vector[i % n]!, 0),
    );
    const found = topEigenvectors(a, n, 3);
    expect(found).toHaveLength(3);
    found.forEach((vector, k) => expect(Math.abs(dot(vector, q[k]!))).toBeCloseTo(1, 6));
    expect(topEigenvectors(a, n, n)).toHaveLength(4);
    expect(topEigenvectors(new Float64Array(n * n), n, 3)).toEqual([]);
  });
});

describe('reduced-rank regression', () => {
  const [inputs, outputs] = [9, 6];

  /** r = Σ u ⟨v, z⟩ + noise of a planted map of rank 2. */
  function sample(tokens: number, noise: number, seed: number): Moments {
    const [u, v] = [normals(2, outputs, 1), normals(2, inputs, 2)];
    const z = normals(tokens, inputs, seed);
    const rest = normals(tokens, outputs, seed + 1);
    const r = z.map((row, t) =>
      Float64Array.from(
        { length: outputs },
        (_, c) => u[0]![c]! * dot(v[0]!, row) + 0.3 * u[1]![c]! * dot(v[1]!, row) + noise * rest[t]![c]!,
      ),
    );
    const moments = new Moments(inputs, outputs, 2);
    // In two pieces; the second target is the first, negated.
    for (const [from, to] of [
      [0, 5],
      [5, tokens],
    ] as const) {
      const target = flatten(r.slice(from, to));
      moments.add(to - from, flatten(z.slice(from, to)), [target, target.map((value) => -value)]);
    }
    return moments;
  }

  it('finds a planted map, and its rank on a part it was not fitted on', () => {
    const map = reducedRank(sample(400, 1e-3, 10), sample(200, 1e-3, 20), 0, 5)!;
    expect(map.explained).toBeGreaterThan(0.9999);
    const one = reducedRank(sample(400, 1e-3, 10), sample(200, 1e-3, 20), 0, 1)!;
    expect(one.u).toHaveLength(1);
    expect(one.explained).toBeLessThan(0.99);
    const noisy = reducedRank(sample(60, 3, 10), sample(4000, 3, 20), 0, 5)!;
    expect(noisy.u.length).toBeLessThan(5);
    expect(noisy.explained).toBeGreaterThan(0.2);
    // The map itself: applied to fresh inputs it gives the planted target.
    const z = normals(1, inputs, 30)[0]!;
    const [u, v] = [normals(2, outputs, 1), normals(2, inputs, 2)];
    for (let c = 0; c < outputs; c++) {
      const expected = u[0]![c]! * dot(v[0]!, z) + 0.3 * u[1]![c]! * dot(v[1]!, z);
      expect(map.u.reduce((sum, vector, k) => sum + vector[c]! * dot(map.v[k]!, z), 0)).toBeCloseTo(expected, 2);
    }
    const negated = reducedRank(sample(400, 1e-3, 10), sample(200, 1e-3, 20), 1, 5)!;
    expect(negated.explained).toBeCloseTo(map.explained, 9);
  });

  it('gives nothing where nothing is explained, or nothing is lacking', () => {
    const opposite = sample(200, 0, 20);
    opposite.cross[0] = opposite.cross[1]!;
    expect(reducedRank(sample(400, 0, 10), opposite, 0, 5)).toBeUndefined();
    expect(reducedRank(sample(400, 0, 10), new Moments(inputs, outputs, 2), 0, 5)).toBeUndefined();
  });
});

describe('reading weights for a correction', () => {
  const folder = tempFolder();

  it.each<DType>(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K', 'Q5_K', 'Q6_K'])(
    'unpacks %s as it is defined',
    async (dtype) => {
      const file = writeRandomModel(path.join(folder, `${dtype}.gguf`), {
        format: 'gguf',
        dtype,
        shape: { dim: 256, hiddenDim: 512, nLayers: 1, vocabSize: 33 },
      });
      const checkpoint = await openCheckpoint(file);
      const tensor = checkpoint.tensors.find(({ role }) => role === 'w_down')!;
      const truth = dequantize(
        dtype,
        readFileSync(file).subarray(tensor.offset, tensor.offset + tensor.byteLength),
        tensor.rows * tensor.cols,
      );
      let row = 0;
      for await (const weights of readRows(checkpoint, tensor)) {
        const expected = truth.subarray(row * tensor.cols, ++row * tensor.cols);
        expect(weights.every((value, i) => value === Math.fround(expected[i]!))).toBe(true);
      }
      expect(row).toBe(tensor.rows);
    },
  );
});

describe('folding a correction into weights', () => {
  const folder = tempFolder();

  /** B·A [rows][cols] of the updates of one site, by role. */
  async function folded(checkpoint: Checkpoint, site: Site): Promise<Map<string, Float64Array[]>> {
    const [u, v] = [normals(2, SHAPE.dim, 7), normals(2, SHAPE.dim, 8)];
    const updates = await foldMap(checkpoint, 1, site, { u, v }, new Pace());
    return new Map(
      updates.map(({ role, rank, a, b }) => {
        const [rows, cols] = [b.length / rank, a.length / rank];
        return [
          role,
          Array.from({ length: rows }, (_, r) =>
            Float64Array.from({ length: cols }, (__, c) => {
              let sum = 0;
              for (let k = 0; k < rank; k++) sum += b[r * rank + k]! * a[k * cols + c]!;
              return sum;
            }),
          ),
        ];
      }),
    );
  }

  it.each<[Site, string[]]>([
    ['attention input', ['wq', 'wk', 'wv']],
    ['MLP input', ['w_gate', 'w_up']],
    ['output', ['w_down']],
  ])('%s: B·A is W·U·Vᵀ or U·Vᵀ·W, in a GGUF file with interleaved rows too', async (site, roles) => {
    const shape = { ...SHAPE };
    const huggingFace = await openCheckpoint(
      writeRandomModel(path.join(folder, 'hf'), { format: 'huggingface', shape }),
    );
    const gguf = await openCheckpoint(writeRandomModel(path.join(folder, 'model.gguf'), { format: 'gguf', shape }));
    expect(gguf.config.ropeInterleaved).toBe(true);
    const { weights } = referenceModel(huggingFace);
    const [u, v] = [normals(2, SHAPE.dim, 7), normals(2, SHAPE.dim, 8)];
    const map = (i: number, j: number): number => u[0]![i]! * v[0]![j]! + u[1]![i]! * v[1]![j]!;
    const found = await folded(huggingFace, site);
    expect([...found.keys()]).toEqual(roles);
    for (const [role, update] of found) {
      const w = weights(role as 'wq', 1)!;
      update.forEach((row, r) =>
        row.forEach((value, c) => {
          let expected = 0;
          for (let k = 0; k < SHAPE.dim; k++)
            expected +=
              site === 'output' ? map(r, k) * w.values[k * w.cols + c]! : w.values[r * w.cols + k]! * map(k, c);
          expect(value).toBeCloseTo(expected, 4);
        }),
      );
    }
    expect(await folded(gguf, site)).toEqual(found);
  });

  it('is written as an adapter that opens, padded to one rank', async () => {
    const checkpoint = await openCheckpoint(path.join(folder, 'hf'));
    const [u, v] = [normals(3, SHAPE.dim, 7), normals(3, SHAPE.dim, 8)];
    const updates = [
      ...(await foldMap(checkpoint, 2, 'output', { u, v }, new Pace())),
      ...(await foldMap(checkpoint, 3, 'attention input', { u: u.slice(0, 1), v: v.slice(0, 1) }, new Pace())),
    ];
    await writeLora(path.join(folder, 'lora'), updates, 'here');
    const adapter = await openLora(path.join(folder, 'lora'), checkpoint.config);
    expect(adapter).toMatchObject({ rank: 3, alpha: 3 });
    expect(adapter.pairs.map(({ role, layer, rank, scale }) => [role, layer, rank, scale])).toEqual([
      ['w_down', 2, 3, 1],
      ['wq', 3, 3, 1],
      ['wk', 3, 3, 1],
      ['wv', 3, 3, 1],
    ]);
    const bytes = readFileSync(adapter.file);
    const floats = (offset: number, count: number): number[] =>
      Array.from({ length: count }, (_, i) => bytes.readFloatLE(offset + 4 * i));
    const [, wq] = adapter.pairs;
    expect(floats(wq!.a.offset, 3 * SHAPE.dim)).toEqual([...updates[1]!.a, ...new Float32Array(2 * SHAPE.dim)]);
    expect(floats(wq!.b.offset, 6)).toEqual([updates[1]!.b[0], 0, 0, updates[1]!.b[1], 0, 0]);
  });
});
