// What sampling from a shortlist saves of a token's time: node bench/shortlist.mjs [--dtype Q4_0] [--rounds 15]
// One generation runs with its default options, and with a bias that changes no logit but needs them all, in turn.
// Writes bench/results/shortlist-smollm2-135m.json and .md.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { quantile } from '../dist/analysis/eval/statistics.js';
import { loadSyntheticModel } from '../dist/model/load.js';
import { describeRun, runLine } from '../tools/run_info.mjs';
import { spread } from './spread.mjs';

const SHAPE = 'smollm2-135m';
const TOKENS = 40;
const OPTIONS = { 'from a shortlist': {}, 'from all logits': { logitBias: { 0: Number.MIN_VALUE } } };

const { values } = parseArgs({
  options: { dtype: { type: 'string', default: 'Q4_0' }, rounds: { type: 'string', default: '15' } },
});
const run = describeRun('node bench/shortlist.mjs', process.argv.slice(2));
const rows = [];
let vocabSize;
for (const threads of [1, 2]) {
  for (const temperature of [undefined, 0]) {
    const model = await loadSyntheticModel(SHAPE, { dtype: values.dtype, threads, activations: 'int8' });
    ({ vocabSize } = model.config);
    const prompt = Array.from({ length: 64 }, (_, i) => 10 + i);
    const ms = Object.fromEntries(Object.keys(OPTIONS).map((name) => [name, []]));
    for (let round = 0; round <= Number(values.rounds); round++) {
      for (const [name, options] of Object.entries(OPTIONS)) {
        const { timings, tokens } = await model.generate(prompt, {
          ...options,
          temperature,
          maxTokens: TOKENS,
          seed: 1,
        });
        if (round > 0) ms[name].push(timings.decodeMs / (tokens.length - 1));
      }
    }
    const [listed, whole] = Object.values(ms).map((each) => quantile(each, 0.5));
    rows.push({ threads, sampling: temperature === 0 ? 'greedy' : 'default', ms, ratio: listed / whole });
    await model.dispose();
  }
}

const lines = [
  runLine(run),
  '',
  `${SHAPE} at ${values.dtype} with int8 activations, ${vocabSize} tokens in the vocabulary: ms per token of ` +
    `\`generate\`, median (min–max) of ${values.rounds} generations of ${TOKENS} tokens, in turn.`,
  '',
  `| threads | sampling | ${Object.keys(OPTIONS).join(' | ')} | ratio |`,
  '|---:|---|---:|---:|---:|',
  ...rows.map(
    ({ threads, sampling, ms, ratio }) =>
      `| ${threads} | ${sampling} | ${Object.values(ms)
        .map((each) => spread(each, 2))
        .join(' | ')} | ${ratio.toFixed(3)} |`,
  ),
  '',
];
const file = path.join(path.dirname(fileURLToPath(import.meta.url)), 'results', `shortlist-${SHAPE}`);
writeFileSync(`${file}.json`, `${JSON.stringify({ run, shape: SHAPE, dtype: values.dtype, rows }, null, 1)}\n`);
writeFileSync(`${file}.md`, lines.join('\n'));
console.log(lines.join('\n'));
