import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { LoadOptions } from '../lib/engine/load_options.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { engineLogProbs, someIds } from './reference/engine.js';
import { klDivergence, maxDifference } from './reference/measure.js';
import { askPeer, peerMissing, type PeerAnswer } from './reference/peer.js';
import { rewriteAsGguf } from './reference/rewrite_gguf.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData, sharedMissing } from './support/shared_data.js';
import { describeUnless } from './support/unless.js';

const missing = peerMissing();
const folder = mkdtempSync(path.join(tmpdir(), 'cqil-peer-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Both engines compute in float32 on F32 weights and an F32 KV cache; either is within 3e-5 of float64. */
const TOLERANCE = 1e-4;

async function ourLogProbs(model: string, ids: readonly number[], options: LoadOptions = {}): Promise<Float64Array[]> {
  const loaded = await loadModel(model, { threads: 1, ...options });
  const rows = await engineLogProbs(loaded.createSession(), ids);
  await loaded.dispose();
  return rows;
}

async function ourGreedy(model: string, ids: readonly number[], count: number): Promise<number[]> {
  const loaded = await loadModel(model, { threads: 1 });
  const { tokens } = await loaded.generate(ids, { maxTokens: count, temperature: 0 });
  await loaded.dispose();
  return tokens;
}

async function ourTokens(model: string, text: string): Promise<number[]> {
  const loaded = await loadModel(model, { threads: 1 });
  const ids = loaded.tokenizer.encode(text);
  await loaded.dispose();
  return ids;
}

async function expectSameLogProbs(
  model: string,
  ids: readonly number[],
  theirs: number[][],
  tolerance = TOLERANCE,
): Promise<void> {
  const ours = await ourLogProbs(model, ids, { activations: 'float32' });
  ours.forEach((row, i) => expect(maxDifference(row, theirs[i]!), `position ${i}`).toBeLessThan(tolerance));
}

describeShared('against node-llama-cpp on a trained model', () => {
  describeUnless(missing, 'stories260K.gguf', () => {
    const model = sharedData('models/stories260K/stories260Ktok512.gguf');
    const prompts = ['Once upon a time', 'The cat said: "Where is my 3rd ball?"', ' two  spaces\nand a line'];

    it('the same prompt ids, greedy continuations, and log-probabilities at every position of a story', async () => {
      const prompted = await Promise.all(prompts.map((text) => ourTokens(model, text)));
      const story = [...prompted[0]!, ...(await ourGreedy(model, prompted[0]!, 120))];
      const [logProbs, ...answers] = await askPeer([
        { model, contextLength: 512, ids: story },
        ...prompts.map((text) => ({ model, contextLength: 512, text })),
        ...prompted.map((ids) => ({ model, contextLength: 512, ids, greedy: 100 })),
      ]);
      await expectSameLogProbs(model, story, logProbs!.logProbs);
      for (const [i, ids] of prompted.entries()) {
        expect(ids).toEqual([1, ...answers[i]!.tokens]);
        expect(await ourGreedy(model, ids, 100), prompts[i]).toEqual(answers[prompts.length + i]!.tokens);
      }
    });
  });
});

describeUnless(missing ?? sharedMissing, 'against node-llama-cpp on a trained model, written as GGUF', () => {
  it('the Hugging Face folder gives the log-probabilities that the peer computes from the GGUF file', async () => {
    const source = sharedData('models', 'stories-16l');
    const model = path.join(folder, 'stories-16l.gguf');
    await rewriteAsGguf(await openCheckpoint(source), model);
    const prompt = await ourTokens(source, 'One day, a little dog went to the park.');
    const story = [...prompt, ...(await ourGreedy(source, prompt, 100))];
    const [answer] = await askPeer([{ model, contextLength: 256, ids: story }]);
    await expectSameLogProbs(source, story, answer!.logProbs);
  });
});

describeUnless(missing, 'against node-llama-cpp on the model that ships', () => {
  it('reads the same distributions from the file', async () => {
    const model = shippedModelPath();
    const ids = await ourGreedy(model, await ourTokens(model, 'One day, a little dog went to the park.'), 100);
    const [answer] = await askPeer([{ model, contextLength: 256, ids }]);
    const ours = await ourLogProbs(model, ids);
    // Its activations are rounded to 8 bits, ours are not.
    const mean = ours.reduce((total, row, i) => total + klDivergence(row, answer!.logProbs[i]!), 0) / ids.length;
    expect(mean).toBeLessThan(5e-3);
  });
});

describeUnless(missing, 'against node-llama-cpp on random weights', () => {
  const shape = {
    dim: 256,
    hiddenDim: 256,
    headDim: 64,
    nHeads: 4,
    nKvHeads: 2,
    nLayers: 2,
    vocabSize: 300,
    contextLength: 256,
  };
  const ids = someIds(40, shape.vocabSize);
  // Layers enough that those of every kind are there: with windows and without, rotated and not.
  const nLayers = { gemma: 2, gemma2: 3, gemma3: 6, phi3: 2, granite: 2, smollm3: 4 };
  const others = Object.keys(nLayers) as Array<keyof typeof nLayers>;
  const architectures = ['llama', 'qwen2', 'qwen3', ...others] as const;

  /**
   * Largest mean divergence in nats. The peer rounds activations to the precision of the weights (8 bits for quantized
   * ones) before it multiplies, and cqil does not, so with these only whole distributions can be compared.
   */
  const divergences = { F16: 1e-5, BF16: 5e-4, Q8_0: 5e-3, Q4_0: 5e-3, Q4_K: 5e-3, Q5_K: 5e-3, Q6_K: 5e-3 } as const;
  const dtypes = Object.keys(divergences) as Array<keyof typeof divergences>;
  const answers = new Map<string, PeerAnswer>();
  const fileOf = (name: string): string => path.join(folder, `${name}.gguf`);

  beforeAll(async () => {
    for (const architecture of architectures)
      writeRandomModel(fileOf(architecture), {
        format: 'gguf',
        architecture,
        shape: {
          ...shape,
          nLayers: { ...nLayers, llama: 2, qwen2: 2, qwen3: 2 }[architecture],
          tied: architecture.startsWith('gemma'),
        },
        seed: 21,
        vocabulary: true,
        ropeTheta: architecture === 'gemma3' ? 1e6 : 10000,
      });
    for (const dtype of dtypes)
      writeRandomModel(fileOf(dtype), { format: 'gguf', dtype, shape, seed: 22, vocabulary: true });
    const names = [...architectures, ...dtypes];
    const all = await askPeer(names.map((name) => ({ model: fileOf(name), contextLength: 256, ids })));
    names.forEach((name, i) => answers.set(name, all[i]!));
  });

  it.each(architectures)('%s, F32: the same log-probabilities at every position', async (architecture) => {
    // The peer reads GELU from a table of f16.
    const tolerance = architecture.startsWith('gemma') ? 5e-3 : TOLERANCE;
    await expectSameLogProbs(fileOf(architecture), ids, answers.get(architecture)!.logProbs, tolerance);
  });

  it.each(dtypes)('%s: nearly the same distributions', async (dtype) => {
    const theirs = answers.get(dtype)!.logProbs;
    const ours = await ourLogProbs(fileOf(dtype), ids);
    const mean = (other: (i: number) => ArrayLike<number>): number =>
      ours.reduce((total, row, i) => total + klDivergence(row, other(i)), 0) / ids.length;
    expect(mean((i) => theirs[i]!)).toBeLessThan(divergences[dtype]);
    // Guards the bound: distributions that have nothing to do with each other are far further apart.
    expect(mean((i) => theirs[(i + 1) % ids.length]!)).toBeGreaterThan(0.5);
  });
});
