import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { defaultWindow, measurePerplexity } from '../analysis/eval/perplexity.js';
import { BUSY_WHILE_MEASURED } from '../analysis/latency/busy.js';
import { loadSyntheticModel, shippedModelPath } from '../model/load.js';
import type { Model } from '../model/model.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { drawPlan, planSummary } from '../plan/plan_diagram.js';
import { counted } from '../util/count.js';
import { timeUntilCertain, type Speeds } from './demo_speed.js';
import { printJson, type Io } from './io.js';
import { openModel } from './open_model.js';
import { addBackendOptions, addJsonOption, decimal, type BackendOptions } from './options.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatTable } from './table.js';
import { readText, textBeside } from './text_file.js';

const PROMPT = 'Once upon a time';
const STORY = { maxTokens: 120, seed: 9, temperature: 0.7 };
/** Tokens of the held-out text that are scored: enough to tell plans apart, few enough to wait for. */
const SCORED_TOKENS = 8192;
/** Tokens per window: few enough for the text to have several windows, whose results can be compared. */
const WINDOW = 512;
/** A shape for which plans pay: many layers, each too small to keep all threads busy for long. */
const DEEP = { shape: 'smollm2-135m', dtype: 'Q4_0' } as const;
const SPEED_SECONDS = 45;

interface Options extends BackendOptions {
  json?: boolean;
  seconds: number;
}

interface Quality {
  plan: Plan;
  text: string;
  phases: number;
  /**
   * The perplexity over all windows, and the least and the greatest perplexity of a single window. Undefined when there
   * is no held-out text beside the model.
   */
  perplexity: { all: number; min: number; max: number; tokens: number } | undefined;
}

export function addDemo(program: Command, io: Io): void {
  const command = program
    .command('demo')
    .description(
      'tell one story with the shipped model layer by layer and with a plan; compare their quality, and their ' +
        'speed on a deeper shape',
    )
    .option(
      '--seconds <n>',
      'how long to time plans at most, while it is uncertain which is faster',
      decimal(0.1, 3600),
      SPEED_SECONDS,
    );
  addJsonOption(addBackendOptions(command)).action((options: Options) => demo(options, io));
}

async function demo(options: Options, io: Io): Promise<void> {
  const progress = new Progress(io, options.json);
  try {
    const qualities = await compareQuality(options, progress, io);
    if (!options.json) printQuality(qualities, io);
    const speeds = await compareSpeed(options, progress, io);
    if (options.json) printDocument(qualities, speeds, io);
    else printSpeed(speeds, io);
  } finally {
    progress.stop();
  }
}

async function compareQuality(options: Options, progress: Progress, io: Io): Promise<Quality[]> {
  await using model = await openModel(undefined, options, io);
  const plans = [resolvePlan('sequential', model.config.nLayers), middlePairs(model.config.nLayers)];
  const texts: string[] = [];
  for (const plan of plans) texts.push(await tell(model, plan, io.signal, options.json ? undefined : io));
  const heldout = textBeside(shippedModelPath());
  const ids = existsSync(heldout)
    ? (
        await model.tokenizer.encodeSliced(await readText(heldout), { parseSpecialTokens: false, signal: io.signal })
      ).slice(0, SCORED_TOKENS)
    : undefined;
  const qualities: Quality[] = [];
  for (const [i, plan] of plans.entries()) {
    const onProgress = (done: number): void => progress.update(`perplexity, ${planSummary(plan)}`, done, ids!.length);
    const perplexity = ids && (await perplexityByWindow(model, plan, ids, io.signal, onProgress));
    qualities.push({ plan, text: texts[i]!, phases: model.program(plan).layerPhases, perplexity });
  }
  progress.stop();
  return qualities;
}

async function compareSpeed(options: Options, progress: Progress, io: Io): Promise<Speeds & { threads: number }> {
  const { backend, threads, kvCache, activations, seconds } = options;
  await using model = await loadSyntheticModel(DEEP.shape, {
    dtype: DEEP.dtype,
    backend,
    threads,
    kvCache,
    activations,
    signal: io.signal,
  });
  const plans = [resolvePlan('sequential', model.config.nLayers), middlePairs(model.config.nLayers)];
  const speeds = await timeUntilCertain(model, plans, {
    seconds,
    signal: io.signal,
    onProgress: (share) => progress.update('timing', Math.round(share * 1000), 1000),
  });
  progress.stop();
  return { ...speeds, threads: model.threads };
}

/** Pairs over the middle half of the layers: the first and the last ones are the least alike. */
function middlePairs(layers: number): Plan {
  const quarter = Math.floor(layers / 4);
  return resolvePlan(`P2-S${quarter}-E${layers - quarter}`, layers);
}

async function tell(model: Model, plan: Plan, signal: AbortSignal, io: Io | undefined): Promise<string> {
  io?.out(`${planSummary(plan)}\n${drawPlan(plan)}\n\n${PROMPT}`);
  let story = '';
  for await (const { text } of model.generate(PROMPT, { ...STORY, plan, signal })) {
    story += text;
    io?.out(text);
  }
  io?.out('\n\n');
  return story;
}

async function perplexityByWindow(
  model: Model,
  plan: Plan,
  ids: readonly number[],
  signal: AbortSignal,
  onProgress: (done: number) => void,
): Promise<Quality['perplexity']> {
  const size = Math.min(defaultWindow(model), WINDOW);
  let [sum, tokens] = [0, 0];
  const windows: number[] = [];
  for (let from = 0; from + size <= ids.length; from += size) {
    const {
      nll,
      perplexity,
      tokens: scored,
    } = await measurePerplexity(model, plan, ids.slice(from, from + size), size, { signal });
    sum += nll * scored;
    tokens += scored;
    windows.push(perplexity);
    onProgress(from + size);
  }
  return { all: Math.exp(sum / tokens), min: Math.min(...windows), max: Math.max(...windows), tokens };
}

function printQuality(qualities: readonly Quality[], io: Io): void {
  const before = qualities[0]!.perplexity;
  io.out('What a plan costs: the model that ships\n\n');
  if (!before) return io.out('Perplexity was not measured: the model has no held-out text beside it.\n\n');
  const rows = qualities.map(({ plan, phases, perplexity }) => {
    const { all, min, max } = perplexity!;
    return [
      planSummary(plan),
      String(phases),
      all.toFixed(3),
      min.toFixed(2),
      max.toFixed(2),
      percent(all / before.all - 1),
    ];
  });
  io.out(`${formatTable(['plan', 'phases', 'perplexity', 'min', 'max', 'change'], rows)}\n`);
  io.out(
    `Perplexity over ${before.tokens} tokens of held-out text; min and max: the least and greatest of its windows.\n\n`,
  );
}

function printSpeed({ rows, rounds, certain, busy, threads }: Speeds & { threads: number }, io: Io): void {
  io.out(`What a plan saves: ${DEEP.shape}, ${DEEP.dtype}, random weights\n\n`);
  const cells = rows.map(({ plan, phases, msPerToken: { median, min, max }, change }) => [
    planSummary(plan),
    String(phases),
    ...[median, min, max].map((ms) => ms.toFixed(3)),
    percent(change.median),
  ]);
  io.out(`${formatTable(['plan', 'phases', 'ms/token', 'min', 'max', 'change'], cells)}\n`);
  io.out(
    `Medians of ${rounds} rounds, in which the plans took turns; min and max: the least and greatest round; ` +
      `change: the median of the rounds' changes; ${counted(threads, 'thread')}.\n`,
  );
  if (!certain) io.out('These rounds do not tell which plan is faster.\n');
  if (busy) io.out(`${BUSY_WHILE_MEASURED}\n`);
}

function printDocument(
  qualities: readonly Quality[],
  { rows, ...measured }: Speeds & { threads: number },
  io: Io,
): void {
  printJson(io, {
    prompt: PROMPT,
    quality: qualities.map(({ plan, ...rest }) => ({ plan: planForJson(plan), ...rest })),
    speed: { ...DEEP, ...measured, rows: rows.map(({ plan, ...rest }) => ({ plan: planForJson(plan), ...rest })) },
  });
}

function percent(change: number): string {
  return `${change < 0 ? '−' : '+'}${Math.abs(change * 100).toFixed(1)} %`;
}
