// The tables of the model's card, from the files beside it: node tools/train/measure_model.mjs [--write] [FOLDER]
// (after `npm run build`). With --write they replace what stands between the markers in the card, instead of being
// printed. FOLDER may hold more plan files with adapters, to be measured with those beside the model.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describeRun, runLine } from '../run_info.mjs';
import { comparePlans } from '../../dist/analysis/eval/compare_plans.js';
import { modelWindows } from '../../dist/analysis/eval/perplexity.js';
import { measureSimilarity } from '../../dist/analysis/similarity/measure_similarity.js';
import { loadModel, shippedModelPath } from '../../dist/model/load.js';
import { planShorthand, resolvePlan } from '../../dist/plan/plan.js';
import { writeUntrained } from './untrained.mjs';

const MARKERS = ['<!-- measured -->', '<!-- /measured -->'];
const CONTROL_SEED = 7;
const folder = path.dirname(shippedModelPath());
const card = path.join(folder, 'README.md');
const planFolders = [
  path.join(folder, 'plans'),
  ...process.argv.slice(2).filter((argument) => !argument.startsWith('-')),
];
const text = readFileSync(path.join(folder, 'heldout.txt'), 'utf8');

const activations = 'float32'; // so that differences are the plan's alone
const model = await loadModel(shippedModelPath(), { activations });
const { nLayers } = model.config;
const ranges = [
  [2, nLayers - 2],
  [nLayers / 4, nLayers - nLayers / 4],
  [nLayers / 2, nLayers],
];
const plansOf = (bypass) =>
  [2, 4].flatMap((size) => ranges.map(([start, end]) => `P${size}-D${bypass}-S${start}-E${end}`));

const trained = await measured(model);
const similarity = await measureSimilarity(model, model.tokenizer.encode(text));
const temporary = mkdtempSync(path.join(os.tmpdir(), 'cqil-'));
const control = path.join(temporary, 'untrained.gguf');
await writeUntrained(shippedModelPath(), control, CONTROL_SEED);
const untrainedModel = await loadModel(control, { activations });
const untrained = await measured(untrainedModel);
const untrainedSimilarity = await measureSimilarity(untrainedModel, untrainedModel.tokenizer.encode(text));
const distilled = await adapted();
await Promise.all([model.dispose(), untrainedModel.dispose()]);
rmSync(temporary, { recursive: true });

const report = [
  'Perplexity and KL from the sequential plan (mean and 99th percentile, nats per token) over the ' +
    `${trained[0].tokens} scored tokens of \`heldout.txt\`, in windows of ${model.config.contextLength} without ` +
    'overlap (the GPTQ protocol), with float32 activations; "same top" is the share of tokens with the same most ' +
    'likely next token.',
  '### Plans',
  qualityTable(trained.filter(({ group }) => group === 'plans')),
  '### Bypass: paper against official',
  qualityTable(trained.filter(({ group }) => group === 'modes')),
  '### Distilled adapters',
  distilled.length === 0 ? 'None is beside the model.' : qualityTable(distilled),
  '### The control: the same shape, untrained',
  `Random weights as training begins with (seed ${CONTROL_SEED}). The mean cosine of adjacent layers' inputs is ` +
    `${meanAdjacent(untrainedSimilarity)}, and ${meanAdjacent(similarity)} in the trained model; a layer's delta has ` +
    `${meanDelta(untrainedSimilarity)} of its input's norm, and ${meanDelta(similarity)} in the trained one.`,
  qualityTable(untrained.filter(({ group }) => group === 'plans')),
  runLine(
    describeRun(
      'node tools/train/measure_model.mjs',
      process.argv.slice(2).map((argument) => path.basename(argument)),
    ),
  ),
].join('\n\n');

if (process.argv.includes('--write')) {
  const [before, rest] = readFileSync(card, 'utf8').split(MARKERS[0]);
  writeFileSync(card, `${before}${MARKERS[0]}\n${report}\n${MARKERS[1]}${rest.split(MARKERS[1])[1]}`);
} else {
  console.log(report);
}

/** Sequential first, then every plan. */
async function measured(which) {
  const modes = [2, 4].flatMap((size) =>
    [
      ['paper', 0],
      ['paper', 1],
      ['official', 1],
      ['paper', size - 1],
      ['official', size - 1],
    ].map(([mode, bypass]) => ({ size, mode, bypass })),
  );
  const rows = [
    { group: 'plans', name: 'sequential', plan: resolvePlan('sequential', nLayers) },
    ...[...plansOf(0), ...plansOf(1)].map((name) => ({ group: 'plans', name, plan: resolvePlan(name, nLayers) })),
    ...modes
      .filter(({ size, bypass }) => size > 2 || bypass < 2)
      .map(({ size, mode, bypass }) => {
        const name = `P${size}-D${bypass}-S${ranges[0][0]}-E${ranges[0][1]}`;
        return { group: 'modes', name: `${name}, ${mode}`, plan: { ...resolvePlan(name, nLayers), bypassMode: mode } };
      }),
  ];
  const unique = rows.filter(({ name }, i) => rows.findIndex((row) => row.name === name) === i);
  return qualities(which, unique);
}

/**
 * The plans that adapters were distilled for: at D = 0 and 1, without an adapter and with each that was distilled for
 * the groups.
 */
async function adapted() {
  const files = planFolders
    .filter((place) => existsSync(place))
    .flatMap((place) =>
      readdirSync(place)
        .filter((name) => name.endsWith('.json'))
        .toSorted()
        .map((name) => path.join(place, name)),
    );
  const rows = [{ name: 'sequential', plan: resolvePlan('sequential', nLayers) }];
  for (const plan of files
    .map((file) => resolvePlan(file, nLayers))
    .toSorted((a, b) => b.groups.length - a.groups.length || a.bypass - b.bypass)) {
    const { adapter, evidence: _, ...bare } = plan;
    for (const [what, kept] of [
      ['no adapter', bare],
      [`adapter distilled at D=${plan.bypass}`, { ...bare, adapter }],
    ]) {
      for (const bypass of [0, 1]) {
        const name = `${planShorthand({ ...bare, bypass })}, ${what}`;
        if (!rows.some((row) => row.name === name)) rows.push({ name, plan: { ...kept, bypass } });
      }
    }
  }
  return rows.length === 1 ? [] : qualities(model, rows);
}

async function qualities(which, rows) {
  const windows = modelWindows(which, which.tokenizer.encode(text), which.config.contextLength, 'gptq');
  for (const { plan } of rows) await which.prepare(plan);
  const results = await comparePlans(
    which,
    rows.map(({ plan }) => plan),
    windows,
  );
  return rows.map((row, i) => ({ ...row, ...results[i], phases: which.program(row.plan).layerPhases }));
}

function qualityTable(rows) {
  const lines = rows.map(
    ({ name, phases, perplexity, kl, topAgreement }) =>
      `| ${name} | ${phases} | ${perplexity.toFixed(2)} | ${kl.mean.toFixed(4)} | ${kl.p99.toFixed(3)} | ` +
      `${(100 * topAgreement).toFixed(1)} % |`,
  );
  return [
    '| plan | phases | perplexity | mean KL | 99 % KL | same top |',
    '|---|---:|---:|---:|---:|---:|',
    ...lines,
  ].join('\n');
}

function meanAdjacent({ inputCosine }) {
  const adjacent = inputCosine.slice(1).map((row, i) => row[i]);
  return (adjacent.reduce((sum, value) => sum + value, 0) / adjacent.length).toFixed(3);
}

function meanDelta({ deltaRatio }) {
  return (deltaRatio.reduce((sum, value) => sum + value, 0) / deltaRatio.length).toFixed(3);
}
