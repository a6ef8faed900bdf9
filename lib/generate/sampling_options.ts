import { types } from 'node:util';
import { expectOption } from '../util/options.js';

/** How the next token is chosen from the logits. Every field has a default; see each. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the likeliest token and ignores the seed. Default 0.8. */
  temperature?: number;
  /** Keeps this many of the likeliest tokens; 0 keeps all. Default 40. */
  topK?: number;
  /** Keeps the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all. Default 0.95. */
  topP?: number;
  /** Keeps tokens at least this many times as likely as the likeliest; 0 keeps all. Default 0. */
  minP?: number;
  /**
   * Makes tokens of the last `repetitionWindow` less likely (CTRL, arXiv 1909.05858): positive logits are divided by
   * it, others multiplied. Default 1, none.
   */
  repetitionPenalty?: number;
  /** How many of the last tokens, prompt included, `repetitionPenalty` looks at. Default 64. */
  repetitionWindow?: number;
  /** Subtracted from a token's logit for each time it was generated. Default 0. */
  frequencyPenalty?: number;
  /** Subtracted from a token's logit once it was generated. Default 0. */
  presencePenalty?: number;
  /** Added to the logits of these token ids; −Infinity forbids a token. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** Integer from 0 to 2^53 − 1; the same seed and logits give the same tokens. Default: a random one. */
  seed?: number;
  /**
   * Reports the chosen token's log-probability, and those of this many of the likeliest tokens. Default: not reported.
   */
  logprobs?: number;
}

const DEFAULTS = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0,
  repetitionPenalty: 1,
  repetitionWindow: 64,
  frequencyPenalty: 0,
  presencePenalty: 0,
};
/** Sampling options with their defaults; the bias as a list. */
export type CheckedSampling = typeof DEFAULTS & {
  seed: number | undefined;
  logprobs: number | undefined;
  bias: Array<[id: number, bias: number]>;
};

/** Throws INVALID_ARGUMENT for an option out of its range. */
export function readSamplingOptions(options: SamplingOptions, vocabSize: number): CheckedSampling {
  const given = Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as SamplingOptions;
  const { seed, logprobs, logitBias } = given;
  const checked = { ...DEFAULTS, ...given, seed, logprobs };
  const { temperature, topK, topP, minP, repetitionPenalty, repetitionWindow, frequencyPenalty, presencePenalty } =
    checked;
  expectOption(
    'temperature',
    temperature,
    Number.isFinite(temperature) && temperature >= 0,
    'a finite number, 0 or more',
  );
  expectOption('topK', topK, Number.isSafeInteger(topK) && topK >= 0, 'an integer, 0 (all) or more');
  expectOption('topP', topP, Number.isFinite(topP) && topP > 0 && topP <= 1, 'a number above 0 and up to 1');
  expectOption('minP', minP, Number.isFinite(minP) && minP >= 0 && minP <= 1, 'a number from 0 to 1');
  expectOption(
    'repetitionPenalty',
    repetitionPenalty,
    Number.isFinite(repetitionPenalty) && repetitionPenalty >= 0.01 && repetitionPenalty <= 100,
    'a number from 0.01 to 100',
  );
  expectOption(
    'repetitionWindow',
    repetitionWindow,
    Number.isSafeInteger(repetitionWindow) && repetitionWindow >= 0,
    'an integer, 0 or more',
  );
  for (const [name, penalty] of Object.entries({ frequencyPenalty, presencePenalty }))
    expectOption(name, penalty, Number.isFinite(penalty) && Math.abs(penalty) <= 100, 'a number from -100 to 100');
  if (seed !== undefined)
    expectOption('seed', seed, Number.isSafeInteger(seed) && seed >= 0, 'an integer from 0 to 2^53 - 1');
  if (logprobs !== undefined)
    expectOption(
      'logprobs',
      logprobs,
      Number.isSafeInteger(logprobs) && logprobs >= 0 && logprobs <= vocabSize,
      `an integer from 0 to the vocabulary's ${vocabSize}`,
    );
  return { ...checked, bias: readBias(logitBias, vocabSize) };
}

function readBias(bias: SamplingOptions['logitBias'], vocabSize: number): Array<[number, number]> {
  if (bias === undefined) return [];
  expectOption(
    'logitBias',
    bias,
    typeof bias === 'object' && bias !== null && !Array.isArray(bias),
    'an object or Map from token ids to numbers',
  );
  const entries: Array<[unknown, number]> = types.isMap(bias)
    ? [...(bias as ReadonlyMap<number, number>)]
    : Object.entries(bias);
  return entries.map(([key, value]) => {
    const id = Number(key);
    expectOption(
      'A token id in logitBias',
      key,
      String(id) === String(key) && Number.isInteger(id) && id >= 0 && id < vocabSize,
      `an integer from 0 to ${vocabSize - 1}`,
    );
    expectOption(
      `The logitBias of token ${id}`,
      value,
      typeof value === 'number' && value < Infinity,
      'a finite number or -Infinity',
    );
    return [id, value];
  });
}
