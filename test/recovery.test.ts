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
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan, type Plan } from '../lib/plan/plan.js';
import { foldMap, readGains } from '../lib/analysis/recovery/fold.js';
import { collectMoments, SITES, type Site } from '../lib/analysis/recovery/group_moments.js';
import { Moments } from '../lib/analysis/recovery/moments.js';
import { recoverPlan } from '../lib/analysis/recovery/recover_plan.js';
import { reducedRank } from '../lib/analysis/recovery/reduced_rank.js';
import { dequantize } from './reference/dequantize.js';
import { someIds } from './reference/engine.js';
import {
  referenceModel,
  referenceTrace,
  SEQUENTIAL,
  type ReferenceLayer,
  type ReferenceModel,
} from './reference/forward.js';
import { expectRejection } from './support/expect_code.js';
import { randomNormal } from './support/random.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
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

describe('what a group lacks', () => {
  const folder = tempFolder();
  const ids = someIds(45, SHAPE.vocabSize);
  const group = [1, 2, 3];

  const add = (...terms: Float64Array[]): Float64Array =>
    terms[0]!.map((_, i) => terms.reduce((sum, term) => sum + term[i]!, 0));

  /** The same samples out of the float64 reference: z [dims] and r of a teacher, of member j at one token. */
  function expected(
    reference: ReferenceModel,
    site: Site,
    plan: Plan,
    token: number,
    teacher: readonly ReferenceLayer[],
    grouped: readonly ReferenceLayer[],
    j: number,
  ): { z: Float64Array; r: Float64Array } {
    const at = (trace: readonly ReferenceLayer[], layer: number, part: 'x' | 'a' | 'm'): Float64Array =>
      trace[layer]![part][token]!;
    const bypassed = (layer: number, member: number): Float64Array[] =>
      Array.from({ length: Math.min(plan.bypass, member) }, (_, k) => at(grouped, layer - k - 1, 'a'));
    if (site === 'output') {
      const last = group.at(-1)!;
      const y = add(
        at(grouped, group[0]!, 'x'),
        ...group.flatMap((layer, member) => [
          at(grouped, layer, 'a'),
          at(grouped, layer, 'm'),
          ...(plan.bypassMode === 'official' ? bypassed(layer, member) : []),
        ]),
      );
      const truth = add(at(teacher, last, 'x'), at(teacher, last, 'a'), at(teacher, last, 'm'));
      return {
        z: Float64Array.from(group.flatMap((layer) => Array.from(at(grouped, layer, 'm')))),
        r: truth.map((value, i) => value - y[i]!),
      };
    }
    const layer = group[j]!;
    const gain = reference.weights(site === 'attention input' ? 'attention_norm' : 'mlp_norm', layer)!.values;
    const normalize = (x: Float64Array): Float64Array =>
      x.map((value, i) => (gain[i]! * value) / Math.sqrt(dot(x, x) / x.length + reference.config.normEps));
    const mlp = site === 'MLP input';
    const z = normalize(add(at(grouped, layer, 'x'), ...(mlp ? [at(grouped, layer, 'a'), ...bypassed(layer, j)] : [])));
    const truth = normalize(add(at(teacher, layer, 'x'), ...(mlp ? [at(teacher, layer, 'a')] : [])));
    return { z, r: truth.map((value, i) => value - z[i]!) };
  }

  it.each(SITES.flatMap((site) => (['paper', 'official'] as const).map((bypassMode) => ({ site, bypassMode }))))(
    '$site, $bypassMode: has the moments of the float64 reference',
    async ({ site, bypassMode }) => {
      const file = writeRandomModel(path.join(folder, 'model'), { format: 'huggingface', shape: SHAPE });
      const checkpoint = await openCheckpoint(file);
      const reference = referenceModel(checkpoint);
      await using model = await loadModel(file);
      const grouped = resolvePlan({ groups: [group], bypass: 1, bypassMode }, SHAPE.nLayers);
      const sequential = resolvePlan('sequential', SHAPE.nLayers);
      // Two windows, the first longer than a trace.
      const windows = [ids.slice(0, 40), ids.slice(40)].map((part) => ({ ids: part, firstScored: 1 }));
      const gains = await readGains(checkpoint, group, site);
      const found = await collectMoments(
        model,
        { grouped, alone: sequential, sequential },
        { group, site, gains },
        windows,
        new Pace(),
      );
      expect(found).toHaveLength(site === 'output' ? 1 : 3);
      for (const [j, moments] of found.entries()) {
        const width = moments.inputs;
        const [gram, cross] = [new Float64Array(width * width), new Float64Array(width * SHAPE.dim)];
        let energy = 0;
        for (const { ids: part } of windows) {
          const [own, teacher] = [
            referenceTrace(reference, part, grouped),
            referenceTrace(reference, part, SEQUENTIAL),
          ];
          for (let token = 1; token < part.length; token++) {
            const { z, r } = expected(reference, site, grouped, token, teacher, own, j);
            z.forEach((value, i) => {
              for (let k = 0; k <= i; k++) gram[i * width + k]! += value * z[k]!;
              for (let c = 0; c < SHAPE.dim; c++) cross[i * SHAPE.dim + c]! += value * r[c]!;
            });
            energy += dot(r, r);
          }
        }
        expect(moments.tokens).toBe(43);
        const scale = Math.max(...gram.map(Math.abs));
        const off = (a: Float64Array, b: Float64Array): number =>
          Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) / scale;
        expect(off(moments.gram, gram)).toBeLessThan(1e-5);
        // With every other layer as in the sequential model, both teachers are the same.
        for (const k of [0, 1]) expect(off(moments.cross[k]!, cross)).toBeLessThan(1e-5);
        // The first member lacks nothing.
        expect(Math.abs(moments.energy[0]! - energy)).toBeLessThanOrEqual(1e-5 * energy);
      }
    },
  );

  it.each<[string, Partial<Plan>, number, 'INVALID_PLAN' | 'INVALID_ARGUMENT', RegExp]>([
    ['a plan without groups', { groups: [] }, 400, 'INVALID_PLAN', /no groups/],
    ['a plan with an adapter', { groups: [[1, 2]], adapter: 'some' }, 400, 'INVALID_PLAN', /adapter some already/],
    ['too few tokens', { groups: [[1, 2]] }, 319, 'INVALID_ARGUMENT', /319 tokens, expected at least 320/],
  ])('refuses %s', async (_, plan, tokens, code, message) => {
    const file = writeRandomModel(path.join(folder, 'refused'), { format: 'huggingface', shape: SHAPE });
    await using model = await loadModel(file);
    const resolved = resolvePlan({ groups: [], ...plan }, SHAPE.nLayers);
    await expectRejection(
      code,
      recoverPlan(model, await openCheckpoint(file), resolved, someIds(tokens, SHAPE.vocabSize), { rank: 2 }),
      message,
    );
  });

  it('refuses a group whose moments would be too large, and stops when it is told to', async () => {
    const file = writeRandomModel(path.join(folder, 'wide'), {
      format: 'huggingface',
      shape: { dim: 1368, hiddenDim: 2, headDim: 4, nHeads: 1, nKvHeads: 1, nLayers: 4, vocabSize: 7 },
    });
    await using model = await loadModel(file);
    const checkpoint = await openCheckpoint(file);
    await expectRejection(
      'INVALID_ARGUMENT',
      recoverPlan(model, checkpoint, resolvePlan('P3-S0-E3', 4), someIds(400, 7), { rank: 2 }),
      /3 layers of width 1368, 4104 together; expected at most 4096/,
    );
    await expectRejection(
      'ABORTED',
      recoverPlan(model, checkpoint, resolvePlan('P2-S0-E2', 4), someIds(400, 7), {
        rank: 2,
        signal: AbortSignal.abort(),
      }),
    );
  });
});

/** Recovers a plan twice, and expects that it helps, and the same both times. */
async function expectRecovered(file: string, idsOf: (model: Model) => number[], spec: string): Promise<void> {
  await using model = await loadModel(file, { threads: 1 });
  const [checkpoint, ids] = [await openCheckpoint(file), idsOf(model)];
  const plan = resolvePlan(spec, model.config.nLayers);
  const shares: number[] = [];
  const first = await recoverPlan(model, checkpoint, plan, ids, {
    rank: 16,
    onProgress: (share) => shares.push(share),
  });
  const { sequential, before, after } = first.heldOut;
  expect(sequential.kl.mean).toBe(0);
  expect(after.kl.mean).toBeLessThan(0.9 * before.kl.mean);
  expect(first.sites).toHaveLength(plan.groups.length * SITES.length);
  for (const { kept, klBefore, klAfter } of first.sites) expect(kept !== undefined).toBe(klAfter < klBefore);
  expect(shares.at(-1)).toBeCloseTo(1, 9);
  expect(await recoverPlan(model, checkpoint, plan, ids, { rank: 16 })).toEqual(first);
}

describe('recovery on a whole model', () => {
  it('lowers the KL divergence on tokens it was not fitted on, the same way every time', async () => {
    const file = writeRandomModel(path.join(tempFolder(), 'whole.gguf'), {
      format: 'gguf',
      shape: { nLayers: 6, vocabSize: 300, contextLength: 512 },
      seed: 3,
    });
    // Some tokens are frequent and most are rare, as in a text.
    await expectRecovered(file, () => someIds(2400, 300, 7).map((id) => Math.floor(300 * (id / 300) ** 3)), 'P2-S2-E4');
  });
});

describeShared('recovery on a trained model', () => {
  it('lowers the KL divergence on held-out text, the same way every time', { timeout: 300_000 }, async () => {
    const text = readFileSync(sharedData('corpora', 'tinystories', 'tinystories-2MB.txt'), 'utf8').slice(0, 8000);
    const idsOf = (model: Model): number[] => model.tokenizer.encode(text, { addSpecialTokens: false }).slice(0, 2400);
    await expectRecovered(sharedData('models', 'stories260K', 'hf'), idsOf, 'P2-S1-E5');
  });
});
