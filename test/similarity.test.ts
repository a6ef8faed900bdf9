import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { drawHeatMap } from '../lib/cli/heat_map.js';
import { measureSimilarity } from '../lib/analysis/similarity/measure_similarity.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { SimilarityStatistics, type Similarity } from '../lib/analysis/similarity/similarity.js';
import { someIds } from './reference/engine.js';
import { referenceModel, referenceTrace } from './reference/forward.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { randomNormal } from './support/random.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

/** Vectors of one layer and token. */
interface Step {
  x: number[];
  a: number[];
  m: number[];
}

/** [nLayers][tokens]. */
type Steps = Step[][];

function randomSteps(nLayers: number, tokens: number, dim: number): Steps {
  const normal = randomNormal(3);
  const vector = (scale: number) => Array.from({ length: dim }, () => Math.fround(scale * normal()));
  return Array.from({ length: nLayers }, () =>
    Array.from({ length: tokens }, () => ({ x: vector(3), a: vector(0.5), m: vector(1) })),
  );
}

/** The layout of `Session.trace`, of tokens [from, to). */
function traceOf(steps: Steps, from: number, to: number): Float32Array {
  return Float32Array.from(
    steps.flatMap((tokens) =>
      (['x', 'a', 'm'] as const).flatMap((part) => tokens.slice(from, to).flatMap((step) => step[part])),
    ),
  );
}

const dot = (u: number[], v: number[]) => u.reduce((sum, value, i) => sum + value * v[i]!, 0);
const norm = (u: number[]) => Math.sqrt(dot(u, u));
const cosine = (u: number[], v: number[]) => dot(u, v) / norm(u) / norm(v);
const sum = (...vectors: number[][]) =>
  vectors[0]!.map((_, i) => vectors.reduce((total, vector) => total + vector[i]!, 0));
const mean = (values: number[]) => values.reduce((total, value) => total + value, 0) / values.length;

/** The definitions, over everything at once. */
function naive(steps: Steps, counted: number[]): Similarity {
  const overTokens = (of: (step: Step) => number) =>
    steps.map((tokens) => mean(counted.map((token) => of(tokens[token]!))));
  return {
    tokens: counted.length,
    inputCosine: steps.map((one) =>
      steps.map((other) => mean(counted.map((token) => cosine(one[token]!.x, other[token]!.x)))),
    ),
    inputNorm: overTokens(({ x }) => norm(x)),
    deltaRatio: overTokens(({ x, a, m }) => norm(sum(a, m)) / norm(x)),
    attentionRatio: overTokens(({ x, a }) => norm(a) / norm(x)),
    mlpRatio: overTokens(({ x, m }) => norm(m) / norm(x)),
    influence: overTokens(({ x, a, m }) => 1 - cosine(x, sum(x, a, m))),
  };
}

function expectClose(found: Similarity, expected: Similarity, digits: number): void {
  expect(found.tokens).toBe(expected.tokens);
  for (const key of ['inputCosine', 'inputNorm', 'deltaRatio', 'attentionRatio', 'mlpRatio', 'influence'] as const) {
    const [values, those] = [found[key].flat(), expected[key].flat()];
    expect(values, key).toHaveLength(those.length);
    values.forEach((value, i) => expect(value, `${key} ${i}`).toBeCloseTo(those[i]!, digits));
  }
}

describe('statistics', () => {
  const [nLayers, dim, tokens] = [5, 12, 23];
  const steps = randomSteps(nLayers, tokens, dim);
  const all = Array.from({ length: tokens }, (_, token) => token);

  it.each([1, 7, tokens])('in batches of %i: the definitions over everything at once', (batch) => {
    const statistics = new SimilarityStatistics(nLayers, dim);
    for (let from = 0; from < tokens; from += batch) {
      const to = Math.min(from + batch, tokens);
      statistics.add(traceOf(steps, from, to), to - from);
    }
    const result = statistics.result();
    expectClose(result, naive(steps, all), 12);
    result.inputCosine.forEach((row, i) =>
      row.forEach((value, j) => expect(value).toBe(i === j ? 1 : result.inputCosine[j]![i])),
    );
  });

  it('leaves out what comes before `first`, and tokens without a direction', () => {
    const holed = steps.map((row, layer) =>
      row.map((step, token) => (layer === 2 && token === 9 ? { ...step, x: step.x.map(() => 0) } : step)),
    );
    const statistics = new SimilarityStatistics(nLayers, dim);
    statistics.add(traceOf(holed, 0, tokens), tokens, 4);
    expectClose(
      statistics.result(),
      naive(
        steps,
        all.filter((token) => token >= 4 && token !== 9),
      ),
      12,
    );
  });

  it('counts a layer that cancels its input as turning all of it away', () => {
    const statistics = new SimilarityStatistics(1, 2);
    statistics.add(Float32Array.of(3, 4, -3, -4, 0, 0), 1);
    expect(statistics.result()).toEqual({
      tokens: 1,
      inputCosine: [[1]],
      inputNorm: [5],
      deltaRatio: [1],
      attentionRatio: [1],
      mlpRatio: [0],
      influence: [1],
    });
  });

  it.each([Infinity, NaN])('refuses %d in an input or an output', (value) => {
    for (const at of [0, 1, 2]) {
      const trace = new Float32Array(6).fill(1);
      trace[2 * at] = value;
      expectCode('NOT_FINITE', () => new SimilarityStatistics(1, 2).add(trace, 1), /^Layer 0 computes values/);
    }
  });

  it('has no result without tokens', () => {
    const statistics = new SimilarityStatistics(2, 3);
    statistics.add(new Float32Array(2 * 3 * 3), 1);
    expectCode('INVALID_ARGUMENT', () => statistics.result(), /at least one/);
  });
});

describe('measureSimilarity', () => {
  const folder = tempFolder();
  let model: Model;
  beforeAll(async () => {
    model = await loadModel(writeRandomModel(folder, { format: 'huggingface', shape: { contextLength: 50 } }));
  });
  afterAll(() => model.dispose());

  it('is the statistics of whole windows without their first tokens', async () => {
    const { nLayers, dim, contextLength, vocabSize } = model.config;
    const ids = someIds(2 * contextLength + 13, vocabSize);
    const expected = new SimilarityStatistics(nLayers, dim);
    for (let from = 0; from < ids.length; from += contextLength) {
      using session = model.createSession();
      for (const [i, id] of ids.slice(from, from + contextLength).entries())
        expected.add(await session.trace([id]), 1, i === 0 ? 1 : 0);
    }
    const done: number[] = [];
    expect(await measureSimilarity(model, ids, { onProgress: (tokens, total) => done.push(tokens / total) })).toEqual(
      expected.result(),
    );
    expect(done.at(-1)).toBe(1);
    expect(done).toEqual([...done].sort((a, b) => a - b));
  });

  it('is what the float64 reference gives for the model that ships', async () => {
    await using shipped = await loadModel(shippedModelPath(), { activations: 'float32' });
    const ids = someIds(40, shipped.config.vocabSize);
    const layers = referenceTrace(referenceModel(await openCheckpoint(shippedModelPath())), ids);
    const steps = layers.map(({ x, a, m }) =>
      ids.map((_, token) => ({ x: [...x[token]!], a: [...a[token]!], m: [...m[token]!] })),
    );
    expectClose(await measureSimilarity(shipped, ids), naive(steps, ids.map((_, token) => token).slice(1)), 4);
  });

  it('does not hold on to a long text', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const ids = someIds(20_000, model.config.vocabSize);
    const used: number[] = [];
    await measureSimilarity(model, ids, {
      onProgress: (done, total) => {
        if (used.length >= Math.floor((10 * done) / total)) return;
        collect();
        const { heapUsed, arrayBuffers } = process.memoryUsage();
        used.push(heapUsed + arrayBuffers);
      },
    });
    // All vectors of the text would be 23 MB. What is not garbage moves by about 2 MB on its own, compiled code among
    // it.
    expect(used).toHaveLength(10);
    expect(Math.max(...used) - used[0]!).toBeLessThan(5 << 20);
  });

  it('refuses a text that is too short, and hears its signal', async () => {
    await expectRejection('INVALID_ARGUMENT', measureSimilarity(model, []), /has 0 tokens, expected at least 2/);
    await expectRejection('INVALID_ARGUMENT', measureSimilarity(model, [1]), /has 1 token, expected at least 2/);
    const abort = new AbortController();
    await expectRejection(
      'ABORTED',
      measureSimilarity(model, someIds(500, 64), { signal: abort.signal, onProgress: () => abort.abort() }),
    );
    expect((await measureSimilarity(model, [1, 2])).tokens).toBe(1);
  });
});

describe('heat map', () => {
  const banded = (layers: number) =>
    Array.from({ length: layers }, (_, i) => Array.from({ length: layers }, (_, j) => Math.exp(-Math.abs(i - j) / 8)));

  it.each([1, 2, 16, 32, 38, 39, 60, 77, 78, 80, 126, 152, 1000])(
    '%i layers fit 80 columns, a row for each row of cells',
    (layers) => {
      const lines = drawHeatMap(banded(layers)).trimEnd().split('\n');
      expect(Math.max(...lines.map((line) => [...line].length))).toBeLessThanOrEqual(80);
      const rows = lines.slice(1 + lines.findIndex((line) => /^ +0( |$)/.test(line)));
      const cells = layers <= 77 ? layers : Math.ceil(layers / Math.ceil(layers / (layers > 100 ? 76 : 77)));
      expect(rows).toHaveLength(cells);
      rows.forEach((row) =>
        expect([...row].length).toBeLessThanOrEqual(String(layers - 1).length + 1 + cells * (layers <= 38 ? 2 : 1)),
      );
    },
  );

  it('is darkest where inputs are most alike', () => {
    expect(
      drawHeatMap([
        [1, 0.96, -0.2],
        [0.96, 1, 0.76],
        [-0.2, 0.76, 1],
      ]),
    ).toBe(`\
cosine of the inputs of two layers: at least █ 0.98  ▓ 0.95  ▒ 0.90  ░ 0.75

  0
0 ██▓▓
1 ▓▓██░░
2   ░░██
`);
  });

  it('says when layers share a cell', () => {
    const map = drawHeatMap(banded(100));
    expect(map).toContain('each cell is the mean of 2 x 2 pairs');
    expect(map).toMatch(/^ {3}0 {4}10 {3}20 {3}30 {3}40 {3}50 {3}60 {3}70 {3}80 {3}90$/m);
  });
});
