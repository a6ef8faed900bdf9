import { Sampler } from '../../dist/generate/sampler.js';

const VOCABULARIES = [32_000, 128_256];
const OPTIONS = {
  greedy: { temperature: 0 },
  defaults: {},
  'top-p without top-k': { topK: 0 },
  'every penalty': { repetitionPenalty: 1.1, frequencyPenalty: 0.2, presencePenalty: 0.2 },
  'five logprobs': { logprobs: 5 },
};

/** One token out of logits with the spread of a language model's, several vectors in turn. */
export async function samplerTasks() {
  const tasks = VOCABULARIES.flatMap((vocabSize) => {
    const logits = Array.from({ length: 8 }, () => randomLogits(vocabSize));
    return Object.entries(OPTIONS).map(([name, options]) => {
      const sampler = new Sampler({ seed: 1, ...options }, vocabSize);
      let turn = 0;
      return {
        name: `${name}, ${Math.round(vocabSize / 1000)}k`,
        per: 'token',
        run: () => sampler.sample(logits[turn++ % logits.length]),
      };
    });
  });
  return { tasks };
}

/** About normal with deviation 3 (a sum of uniform numbers), and a few tokens that stand out. */
function randomLogits(vocabSize) {
  const logits = Float32Array.from(
    { length: vocabSize },
    () => 6 * (Math.random() + Math.random() + Math.random() - 1.5),
  );
  for (let i = 0; i < 20; i++) logits[Math.floor(Math.random() * vocabSize)] += 8;
  return logits;
}
