import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { Pace } from '../lib/util/pace.js';
import { dot } from '../lib/analysis/recovery/linear_algebra.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan, type Plan } from '../lib/plan/plan.js';
import { readGains } from '../lib/analysis/recovery/fold.js';
import { collectMoments, SITES, type Site } from '../lib/analysis/recovery/group_moments.js';
import { recoverPlan } from '../lib/analysis/recovery/recover_plan.js';
import { someIds } from './reference/engine.js';
import {
  referenceModel,
  referenceTrace,
  SEQUENTIAL,
  type ReferenceLayer,
  type ReferenceModel,
} from './reference/forward.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';

const SHAPE = { dim: 36, hiddenDim: 50, headDim: 6, nHeads: 6, nKvHeads: 3, nLayers: 5, vocabSize: 47 };

describe('what a group lacks', () => {
  const folder = tempFolder();
  const ids = someIds(45, SHAPE.vocabSize);
  const group = [1, 2, 3];

  const add = (...terms: Float64Array[]): Float64Array =>
    terms[0]!.map((_, i) => terms.reduce((sum, term) => sum + term[i]!, 0));

  /** Samples out of the float64 reference: z [dims] and r of a teacher, of member j at one token. */
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

  it('says which folder for temporary files it cannot write to', async () => {
    const file = writeRandomModel(path.join(folder, 'temporary'), { format: 'huggingface', shape: SHAPE });
    await using model = await loadModel(file);
    vi.stubEnv('TMPDIR', path.join(folder, 'absent'));
    const plan = resolvePlan({ groups: [[1, 2]] }, SHAPE.nLayers);
    try {
      await expectRejection(
        'FILE_NOT_FOUND',
        recoverPlan(model, await openCheckpoint(file), plan, someIds(400, SHAPE.vocabSize), { rank: 2 }),
        /No folder can be made in .*absent/,
      );
    } finally {
      vi.unstubAllEnvs();
    }
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
