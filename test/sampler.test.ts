import { describe, expect, it } from 'vitest';
import { Sampler } from '../lib/generate/sampler.js';
import type { SamplingOptions } from '../lib/generate/sampling_options.js';
import { expectCode } from './support/expect_code.js';
import { randomUniform } from './support/random.js';
import { shortlistOf } from './support/shortlist_of.js';

/** The candidates a sampler may draw from and their probabilities, written the slow and obvious way. */
function candidates(
  logits: ArrayLike<number>,
  options: SamplingOptions,
  prompt: number[] = [],
  generated: number[] = [],
): Map<number, number> {
  const {
    temperature = 0.8,
    topK = 40,
    topP = 0.95,
    minP = 0,
    repetitionPenalty = 1,
    repetitionWindow = 64,
    frequencyPenalty = 0,
    presencePenalty = 0,
  } = options;
  const recent = repetitionWindow === 0 ? [] : [...prompt, ...generated].slice(-repetitionWindow);
  const bias =
    options.logitBias instanceof Map
      ? options.logitBias
      : new Map(Object.entries(options.logitBias ?? {}).map(([id, value]) => [Number(id), value]));
  let sorted = Array.from(logits, (logit, id) => {
    let adjusted = logit + (bias.get(id) ?? 0);
    if (recent.includes(id)) adjusted = adjusted > 0 ? adjusted / repetitionPenalty : adjusted * repetitionPenalty;
    const count = generated.filter((other) => other === id).length;
    if (count > 0) adjusted -= frequencyPenalty * count + presencePenalty;
    return { id, logit: adjusted };
  }).sort((a, b) => b.logit - a.logit || a.id - b.id);
  if (temperature === 0) return new Map([[sorted[0]!.id, 1]]);
  if (topK > 0) sorted = sorted.slice(0, topK);
  let weighed = sorted.map(({ id, logit }) => ({ id, weight: Math.exp((logit - sorted[0]!.logit) / temperature) }));
  const total = weighed.reduce((sum, { weight }) => sum + weight, 0);
  if (topP < 1) {
    let sum = 0;
    const end = weighed.findIndex(({ weight }) => (sum += weight) >= topP * total * (1 - 1e-14));
    weighed = weighed.slice(0, end + 1);
  }
  weighed = weighed.filter(({ weight }) => weight > 0 && weight >= minP);
  const kept = weighed.reduce((sum, { weight }) => sum + weight, 0);
  return new Map(weighed.map(({ id, weight }) => [id, weight / kept]));
}

/** Which tokens come up, by how often, over fresh samplers with seeds 0, 1, 2 … */
function drawMany(
  logits: Float32Array,
  options: SamplingOptions,
  times: number,
  prompt: number[] = [],
): Map<number, number> {
  const counts = new Map<number, number>();
  for (let seed = 0; seed < times; seed++) {
    const sampler = new Sampler({ ...options, seed }, logits.length);
    sampler.prime(prompt);
    const { token } = sampler.sample(logits);
    counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  return counts;
}

/**
 * A draw is the inverse CDF in order of id: the token must be the one the reference's probabilities give for the same
 * number.
 */
function expectDrawsMatch(logits: Float32Array, options: SamplingOptions, prompt: number[], steps: number): void {
  const sampler = new Sampler(options, logits.length);
  const uniforms = new Sampler({ temperature: 1, topK: 0, topP: 1, seed: options.seed }, 2 ** 12);
  sampler.prime(prompt);
  const generated: number[] = [];
  for (let step = 0; step < steps; step++) {
    const expected = candidates(logits, options, prompt, generated);
    const { token } = sampler.sample(logits);
    expect(expected.has(token)).toBe(true);
    if (options.temperature !== 0) {
      // Equal logits over 4096 tokens: the drawn id is the random number's first 12 bits.
      const low = uniforms.sample(new Float32Array(2 ** 12)).token / 2 ** 12;
      const before = [...expected].reduce((sum, [id, probability]) => (id < token ? sum + probability : sum), 0);
      expect(before).toBeLessThanOrEqual(low + 2 ** -12 + 1e-9);
      expect(before + expected.get(token)!).toBeGreaterThanOrEqual(low - 1e-9);
    }
    generated.push(token);
  }
}

describe('sampler', () => {
  it('draws what a slow reference draws, for random logits with ties and -Infinity and random options', () => {
    const random = randomUniform(1);
    const pick = <T>(...values: T[]): T => values[Math.floor(random() * values.length)]!;
    for (let round = 0; round < 400; round++) {
      const size = pick(1, 2, 3, 17, 64, 300);
      const coarse = pick(false, true);
      const logits = Float32Array.from({ length: size }, () =>
        random() < 0.1 ? -Infinity : coarse ? Math.round(random() * 4) : (random() - 0.5) * 20,
      );
      logits[Math.floor(random() * size)] = 1;
      const options: SamplingOptions = {
        seed: round,
        temperature: pick(0, 0.1, 0.8, 1, 3),
        topK: pick(0, 1, 2, 5, 40, 1000),
        topP: pick(1e-9, 0.1, 0.5, 0.9, 0.999, 1),
        minP: pick(0, 0, 0.05, 0.5, 1),
        repetitionPenalty: pick(1, 1.3, 0.7),
        repetitionWindow: pick(0, 1, 4, 64),
        frequencyPenalty: pick(0, 0.5, -0.5),
        presencePenalty: pick(0, 1),
        logitBias: pick<SamplingOptions['logitBias']>(undefined, { 0: 2.5 }, new Map([[size - 1, -3]])),
      };
      const prompt = Array.from({ length: 6 }, () => Math.floor(random() * size));
      expectDrawsMatch(logits, options, prompt, 8);
    }
  });

  it.each([
    { topK: 0, topP: 1 },
    { topK: 5, topP: 1 },
    { topK: 0, topP: 0.7 },
    { topK: 0, topP: 1, minP: 0.2 },
    { temperature: 2 },
  ])('draws in proportion to the probabilities (%o)', (options) => {
    const logits = Float32Array.from({ length: 12 }, (_, id) => Math.sin(id * 7) * 2);
    const expected = candidates(logits, options);
    const times = 4000;
    const counts = drawMany(logits, options, times);
    let chiSquare = 0;
    for (const [id, probability] of expected)
      chiSquare += ((counts.get(id) ?? 0) - times * probability) ** 2 / (times * probability);
    for (const id of counts.keys()) expect(expected.has(id)).toBe(true);
    // Mean df and variance 2·df: five standard deviations is far above the 99.99th percentile, and the seeds are fixed.
    const freedom = expected.size - 1;
    expect(chiSquare).toBeLessThan(freedom + 5 * Math.sqrt(2 * freedom));
  });

  it('gives the same tokens for the same seed, others for another, for seeds of any size', () => {
    const logits = new Float32Array(1000);
    const run = (seed: number): string => {
      const sampler = new Sampler({ seed, topK: 0, topP: 1 }, logits.length);
      expect(sampler.seed).toBe(seed);
      return Array.from({ length: 20 }, () => sampler.sample(logits).token).join();
    };
    const seeds = [0, 1, 2, 2 ** 31, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];
    expect(new Set(seeds.map(run)).size).toBe(seeds.length);
    for (const seed of seeds) expect(run(seed)).toBe(run(seed));
  });

  it('makes up a seed and reports it', () => {
    const logits = new Float32Array(1000);
    const first = new Sampler({ topK: 0, topP: 1 }, 1000);
    const second = new Sampler({ topK: 0, topP: 1, seed: first.seed }, 1000);
    for (let i = 0; i < 10; i++) expect(second.sample(logits)).toEqual(first.sample(logits));
  });

  it('draws the same although the last bits of near-equal logits differ, as between backends', () => {
    const random = randomUniform(3);
    let differing = 0;
    for (let seed = 0; seed < 500; seed++) {
      const logits = Float32Array.from({ length: 200 }, () => Math.round(random() * 6));
      const nudged = logits.map((logit) => logit * (1 + (random() - 0.5) * 1e-6));
      const options = { seed, topK: 0, topP: 1 };
      if (new Sampler(options, 200).sample(logits).token !== new Sampler(options, 200).sample(nudged).token)
        differing++;
    }
    expect(differing).toBe(0);
  });

  it('takes the lowest id among equals at temperature 0', () => {
    expect(new Sampler({ temperature: 0 }, 5).sample(Float32Array.of(1, 3, 2, 3, 3)).token).toBe(1);
    expect(new Sampler({ temperature: 0 }, 3).sample(Float32Array.of(-Infinity, -Infinity, -5)).token).toBe(2);
  });

  it('keeps the lowest ids among equals at the edge of top-k', () => {
    const logits = Float32Array.of(1, 2, 1, 1, 2);
    expect([...drawMany(logits, { topK: 3, topP: 1 }, 300).keys()].sort()).toEqual([0, 1, 4]);
  });

  it('applies the repetition penalty to the last tokens only, and frequency and presence to generated ones only', () => {
    const logits = Float32Array.of(2, 1.9, 0, 0);
    const first = (options: SamplingOptions, prompt: number[]): number => {
      const sampler = new Sampler({ temperature: 0, ...options }, 4);
      sampler.prime(prompt);
      return sampler.sample(logits).token;
    };
    expect(first({ repetitionPenalty: 2 }, [0])).toBe(1);
    expect(first({ repetitionPenalty: 2, repetitionWindow: 1 }, [0, 2])).toBe(0);
    expect(first({ presencePenalty: 1, frequencyPenalty: 1 }, [0])).toBe(0);
  });

  it('reports log-probabilities of the model itself, whatever changes the choice', () => {
    const logits = Float32Array.of(1, 4, 2, 4, -Infinity);
    const normalizer = Math.log(Array.from(logits).reduce((sum, logit) => sum + Math.exp(logit), 0));
    const sampler = new Sampler({ temperature: 0, logprobs: 3, logitBias: { 2: 50, 1: -Infinity } }, 5);
    const { token, logprob, alternatives } = sampler.sample(logits);
    expect(token).toBe(2);
    expect(logprob).toBeCloseTo(2 - normalizer, 12);
    expect(alternatives!.map((each) => each.token)).toEqual([1, 3, 2]);
    expect(alternatives!.map((each) => each.logprob)).toEqual(
      [4, 4, 2].map((logit) => expect.closeTo(logit - normalizer, 12)),
    );
    expect(new Sampler({ logprobs: 0 }, 5).sample(logits).alternatives).toEqual([]);
    expect(new Sampler({}, 5).sample(logits)).toEqual({ token: expect.any(Number) });
    expect(new Sampler({ logprobs: 5 }, 5).sample(logits).alternatives).toHaveLength(5);
  });

  it('chooses the same from a shortlist as from all logits', () => {
    const random = randomUniform(17);
    for (let round = 0; round < 300; round++) {
      const vocabSize = round % 3 === 0 ? 30 : 2000;
      const options: SamplingOptions = {
        seed: round,
        temperature: round % 5 === 0 ? 0 : 0.2 + random(),
        topK: round % 3 === 0 ? 0 : 1 + Math.floor(random() * 56),
        topP: round % 2 === 0 ? 1 : 0.5 + random() / 2,
        minP: round % 7 === 0 ? 0.1 : 0,
        logprobs: round % 4 === 0 ? Math.floor(random() * 30) : undefined,
        logitBias: new Map(
          Array.from({ length: round % 8 }, () => [
            Math.floor(random() * vocabSize),
            random() < 0.5 ? -Infinity : -random(),
          ]),
        ),
      };
      const whole = new Sampler(options, vocabSize);
      const listed = new Sampler(options, vocabSize);
      for (let step = 0; step < 5; step++) {
        // Every other round has many ties.
        const logits = Float32Array.from({ length: vocabSize }, () =>
          round % 2 === 0 ? Math.round(random() * 9) : random() * 12 - 6,
        );
        // So that a bias meets the likeliest.
        for (const id of (options.logitBias as Map<number, number>).keys()) logits[id] = 8;
        const { logprob, alternatives, ...expected } = whole.sample(logits);
        const found = listed.sample(shortlistOf(logits, listed.shortlist!));
        expect(found).toMatchObject(expected);
        expect(found.logprob).toEqual(logprob === undefined ? undefined : expect.closeTo(logprob, 10));
        expect(found.alternatives).toEqual(
          alternatives?.map((one) => ({ token: one.token, logprob: expect.closeTo(one.logprob, 10) })),
        );
      }
    }
  });

  it.each<[SamplingOptions, number | undefined]>([
    [{}, 40],
    [{ temperature: 0 }, 1],
    [{ temperature: 0, logprobs: 5 }, 5],
    [{ topK: 3, logprobs: 7 }, 7],
    [{ topK: 64 }, 64],
    [{ topK: 65 }, undefined],
    [{ topK: 0 }, undefined],
    [{ logprobs: 65 }, undefined],
    [{ logitBias: { 1: -Infinity, 2: -1 } }, 42],
    [{ temperature: 0, logitBias: { 1: -Infinity } }, 2],
    [{ logitBias: { 1: 0.1 } }, undefined],
    [{ repetitionPenalty: 1.1 }, undefined],
    [{ frequencyPenalty: -1 }, undefined],
    [{ presencePenalty: 1 }, undefined],
  ])('with %o needs a shortlist of %s', (options, expected) => {
    expect(new Sampler(options, 1000).shortlist).toBe(expected);
  });

  it('takes the first of every shortlist where it is greedy and nothing changes the order', () => {
    for (const options of [{ temperature: 0 }, { temperature: 0, logprobs: 5 }, { temperature: 0, topK: 0, seed: 1 }])
      expect(new Sampler(options, 1000).takesFirst).toBe(true);
    const others = [
      {},
      { temperature: 0.01 },
      { temperature: 0, logitBias: { 1: -1 } },
      { temperature: 0, repetitionPenalty: 1.1 },
      { temperature: 0, logprobs: 65 },
    ];
    for (const options of others) expect(new Sampler(options, 1000).takesFirst).toBe(false);
  });

  it('needs no more entries than the vocabulary has', () => {
    expect(new Sampler({ topK: 0 }, 50).shortlist).toBe(50);
  });

  it('refuses a shortlist of forbidden tokens, or of logits that are no numbers', () => {
    expectCode(
      'INVALID_ARGUMENT',
      () => new Sampler({ logitBias: { 0: -Infinity } }, 1).sample(shortlistOf(Float32Array.of(1), 1)),
      /^Every token is forbidden/,
    );
    const list = { ...shortlistOf(Float32Array.of(1, 2, 3), 3), logSumExp: NaN };
    expectCode('NOT_FINITE', () => new Sampler({}, 3).sample(list), /NaN or Infinity/);
  });

  it('leaves the logits as they were', () => {
    const logits = Float32Array.of(1, 2, 3);
    new Sampler({ repetitionPenalty: 2, logitBias: { 1: 5 }, logprobs: 2 }, 3).sample(logits);
    expect(logits).toEqual(Float32Array.of(1, 2, 3));
  });

  it('keeps to the top of a large vocabulary', () => {
    const random = randomUniform(5);
    const logits = Float32Array.from({ length: 128_256 }, () => Math.fround(random() * 30 - 15));
    for (const options of [
      { topK: 40 },
      { topK: 0, topP: 0.9 },
      { topK: 0, topP: 1, minP: 0.3 },
      { topK: 100_000, topP: 1 },
    ]) {
      const sampler = new Sampler({ ...options, seed: 7 }, logits.length);
      const expected = candidates(logits, options);
      for (let i = 0; i < 20; i++) expect(expected.has(sampler.sample(logits).token)).toBe(true);
    }
  });

  it.each<[SamplingOptions, RegExp]>([
    [{ temperature: -1 }, /^temperature is -1; expected a finite number, 0 or more\.$/],
    [{ temperature: NaN }, /^temperature is NaN/],
    [{ temperature: '1' as never }, /^temperature is '1'/],
    [{ topK: 1.5 }, /^topK is 1.5/],
    [{ topK: -1 }, /^topK/],
    [{ topP: 0 }, /^topP/],
    [{ topP: 1.1 }, /^topP/],
    [{ minP: 2 }, /^minP/],
    [{ repetitionPenalty: 0 }, /^repetitionPenalty/],
    [{ repetitionWindow: Infinity }, /^repetitionWindow/],
    [{ frequencyPenalty: Infinity }, /^frequencyPenalty/],
    [{ presencePenalty: NaN }, /^presencePenalty/],
    [{ seed: -1 }, /^seed/],
    [{ seed: 2 ** 53 }, /^seed/],
    [{ logprobs: 11 }, /^logprobs is 11; expected an integer from 0 to the vocabulary's 10/],
    [{ logitBias: { 10: 1 } }, /^A token id in logitBias is '10'; expected an integer from 0 to 9/],
    [{ logitBias: { '': 1 } as never }, /^A token id in logitBias/],
    [{ logitBias: { 1: Infinity } }, /^The logitBias of token 1 is Infinity/],
    [{ logitBias: 3 as never }, /^logitBias is 3/],
  ])('refuses %o', (options, message) => {
    expectCode('INVALID_ARGUMENT', () => new Sampler(options, 10), message);
  });

  it('refuses logits that are no numbers, and a bias that forbids every token', () => {
    expectCode('NOT_FINITE', () => new Sampler({}, 2).sample(Float32Array.of(1, NaN)), /NaN or Infinity/);
    expectCode('NOT_FINITE', () => new Sampler({}, 2).sample(Float32Array.of(Infinity, 0)), /NaN or Infinity/);
    expectCode(
      'INVALID_ARGUMENT',
      () => new Sampler({ logitBias: { 0: -Infinity, 1: -Infinity } }, 2).sample(Float32Array.of(1, 2)),
      /forbidden/,
    );
  });
});
