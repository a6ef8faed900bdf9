import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { counted } from '../util/count.js';
import { fingerprint } from '../analysis/eval/fingerprint.js';
import { shippedModelPath } from '../model/load.js';
import type { Model } from '../model/model.js';
import { formatPlan, resolvePlan, type Plan } from '../plan/plan.js';
import { chromeTrace } from '../analysis/report/chrome_trace.js';
import { BUSY_WHILE_MEASURED } from '../analysis/latency/busy.js';
import { headline } from '../analysis/report/headline.js';
import { reportPage } from '../analysis/report/page.js';
import { planName } from '../analysis/report/plan_name.js';
import type { ReportData, SearchedFront } from '../analysis/report/report_data.js';
import { printJson, type Io } from './io.js';
import { machineOf } from './machine.js';
import { openModel } from './open_model.js';
import {
  addJsonOption,
  addModelArgument,
  addPlacementOptions,
  decimal,
  integer,
  PLAN_HELP,
  repeatablePlan,
  type PlacementOptions,
} from './options.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { commandLine, sourceCommit } from './provenance.js';
import { measureReport, type MeasuredReport, type MeasureReportOptions } from '../analysis/report/report_measure.js';
import { readSearchResult, type SearchResult } from './search_result.js';
import { firstTokens } from './similarity.js';
import { readTextFile, textBeside } from './text_file.js';
import { TIMING_SEED } from '../analysis/latency/timing.js';
import { packageVersion } from './version.js';
import { expectWritable, writeFiles } from './write_files.js';

const DEFAULT_TOKENS = 2048;
const DEFAULT_SECONDS = 30;
const LEAST_TOKENS = 64;
/** Longer windows than this cost more than they tell about a plan. */
const LONGEST_DEFAULT_WINDOW = 512;
/** Points of a search's front that are timed and drawn at most. */
const MOST_SEARCHED = 12;

const HELP = `
Measures, and writes one HTML file that needs no network: what plans cost and save, which layers are alike, and where the time of one
traced token went. The sequential plan is always measured too; the first --plan is the one the report is about. With --search the points
of an earlier search's front are timed and drawn, and what it chose stands for --plan. --trace writes the traced tokens for Perfetto or
chrome://tracing.`;

interface Options extends PlacementOptions, PlanOptions {
  plan?: string[];
  file?: string;
  search?: string;
  tokens: number;
  window?: number;
  budget: number;
  output: string;
  trace?: string;
  force?: boolean;
  json?: boolean;
}

export function addReport(program: Command, io: Io): void {
  const command = program
    .command('report')
    .description('measure plans and write a page that shows what they cost and save, and why');
  addModelArgument(command)
    .option(
      '--plan <plan>',
      `${PLAN_HELP}; may be given several times (default: pairs over the middle half of the layers)`,
      repeatablePlan,
    )
    .addOption(bypassModeOption())
    .option('--file <path>', 'the text to measure on, UTF-8 (default: heldout.txt beside the model)')
    .option('--search <path>', 'the JSON document of an earlier cqil plan search')
    .option(
      '--tokens <n>',
      'take at most this number of tokens from the start of the text',
      integer(LEAST_TOKENS, 1 << 24),
      DEFAULT_TOKENS,
    )
    .option(
      '--window <n>',
      `tokens per window, each from an empty context (default: at most ${LONGEST_DEFAULT_WINDOW})`,
      integer(2, 1 << 24),
    )
    .option('--budget <seconds>', 'about how long to time plans', decimal(0, 1e6), DEFAULT_SECONDS)
    .option('-o, --output <file>', 'where the page goes', 'report.html')
    .option('--trace <file>', 'write the traced tokens there, as Chrome trace events')
    .option('--force', 'overwrite the files');
  addJsonOption(addPlacementOptions(command))
    .addHelpText('after', HELP)
    .action((model: string | undefined, options: Options) => report(model, options, command, io));
}

async function report(modelPath: string | undefined, options: Options, command: Command, io: Io): Promise<void> {
  const { output, trace, force = false, json } = options;
  expectWritable(trace === undefined ? [output] : [output, trace], force);
  const checkpoint = await openCheckpoint(modelPath ?? shippedModelPath());
  const { nLayers } = checkpoint.config;
  const file = options.file ?? defaultText(checkpoint.path);
  const { text, sha256 } = await readTextFile(file);
  if (text.trim() === '')
    throw new CqilError('INVALID_ARGUMENT', `The text ${file} is empty, expected at least ${LEAST_TOKENS} tokens.`);
  const identity = await fingerprint(checkpoint);
  const search = options.search === undefined ? undefined : await searchIn(options.search, nLayers, identity);
  const plans = plansOf(options, search, nLayers, io);

  await using model = await openModel(modelPath, { ...options, plan: undefined, plans: options.plan }, io);
  const ids = await firstTokens(model.tokenizer, text, options.tokens, io.signal);
  const window = windowOf(options, model, ids.length);
  const searched = search ? spread(search.front, MOST_SEARCHED) : [];
  const timed = searched.map(({ plan }) => plan);
  const { speeds, ...shown } = await measure(model, { plans, timed, ids, window }, options, io);
  if (trace !== undefined && shown.traces.length === 0)
    throw new CqilError(
      'BACKEND_UNAVAILABLE',
      `The ${model.backend} backend keeps no times of phases, so there is no trace; expected the cpu backend, or ` +
        'no --trace.',
    );
  const data: ReportData = {
    model: modelFacts(checkpoint, identity),
    text: { name: path.basename(file), sha256, tokens: ids.length, window },
    ...shown,
    front: search ? frontOf(search, searched, speeds, options.search!) : null,
    provenance: {
      made: new Date().toISOString(),
      cqil: packageVersion(),
      commit: await sourceCommit(),
      command: commandLine(command),
      machine: machineOf(model),
      seed: TIMING_SEED,
    },
  };
  const files = [{ file: output, text: reportPage(data) }];
  if (trace !== undefined) files.push({ file: trace, text: `${JSON.stringify(chromeTrace(data.traces))}\n` });
  await writeFiles(files, force);
  if (json) printJson(io, { output, trace: trace ?? null, headline: headline(data.rows), ...forJson(data) });
  else io.out(`${headline(data.rows)}\n`);
  if (data.timing.busy) io.err(`${BUSY_WHILE_MEASURED}\n`);
  io.err(`wrote ${files.map(({ file }) => file).join(' and ')}\n`);
}

/** Throws INVALID_ARGUMENT for a search of another model. */
async function searchIn(file: string, layers: number, identity: string): Promise<SearchResult> {
  const search = await readSearchResult(file, layers);
  if (search.model === identity) return search;
  throw new CqilError(
    'INVALID_ARGUMENT',
    `The search in ${file} is of the model ${search.model}; expected this one, ${identity}.`,
  );
}

async function measure(
  model: Model,
  what: Pick<MeasureReportOptions, 'plans' | 'timed' | 'ids' | 'window'>,
  { execution, budget, json }: Options,
  io: Io,
): Promise<MeasuredReport> {
  const progress = new Progress(io, json);
  const onProgress = (name: string, done: number, total: number): void => progress.update(name, done, total);
  try {
    return await measureReport(model, { ...what, execution, budget, signal: io.signal, onProgress });
  } finally {
    progress.stop();
  }
}

function modelFacts({ path: file, config, tensors }: Checkpoint, identity: string): ReportData['model'] {
  return {
    name: path.basename(file),
    fingerprint: identity,
    architecture: config.architecture,
    layers: config.nLayers,
    dim: config.dim,
    parameters: tensors.reduce((sum, { rows, cols }) => sum + rows * cols, 0),
  };
}

function defaultText(checkpoint: string): string {
  const beside = textBeside(checkpoint);
  if (!existsSync(beside))
    throw new CqilError('INVALID_ARGUMENT', `There is no text: ${beside} does not exist; expected --file TEXT.`);
  return beside;
}

/** Sequential, then the plans that were asked for, each once. */
function plansOf(options: Options, search: SearchResult | undefined, layers: number, io: Io): Plan[] {
  const { plan: asked } = options;
  const quarter = Math.floor(layers / 4);
  const fallback = search?.chosen ?? resolvePlan(`P2-S${quarter}-E${Math.max(layers - quarter, quarter + 1)}`, layers);
  // What was measured elsewhere is no part of a plan here.
  const plans = (asked ? asked.map((plan) => readPlan(plan, layers, options, io)) : [fallback]).map((plan) => ({
    ...plan,
    evidence: undefined,
  }));
  return [...new Map([resolvePlan('sequential', layers), ...plans].map((plan) => [formatPlan(plan), plan])).values()];
}

/** Throws INVALID_ARGUMENT for a text that is too short. */
function windowOf({ window }: Options, { config }: Model, tokens: number): number {
  const least = Math.max(LEAST_TOKENS, window ?? 0);
  if (tokens < least)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The text has ${counted(tokens, 'token')}, expected at least ` +
        `${window !== undefined && window > LEAST_TOKENS ? `one whole window of ${window}` : LEAST_TOKENS}.`,
    );
  return window ?? Math.min(LONGEST_DEFAULT_WINDOW, config.contextLength, tokens);
}

/** At most `most` of the values, evenly over them, the first and the last among them. */
function spread<T>(values: readonly T[], most: number): T[] {
  if (values.length <= most) return [...values];
  return Array.from({ length: most }, (_, i) => values[Math.round((i * (values.length - 1)) / (most - 1))]!);
}

function frontOf(
  search: SearchResult,
  searched: SearchResult['front'],
  speeds: MeasuredReport['speeds'],
  file: string,
): SearchedFront {
  const { text, sha256, tokens, seed } = search;
  return {
    file: path.basename(file),
    text: path.basename(text),
    sha256,
    tokens,
    seed,
    plans: searched.map((point, i) => ({ ...point, name: planName(point.plan), ...speeds[i]! })),
  };
}

function forJson({ rows, front, traces, ...rest }: ReportData) {
  const withPlan = <T extends { plan: Plan }>({ plan, ...others }: T) => ({ plan: planForJson(plan), ...others });
  return {
    ...rest,
    rows: rows.map(withPlan),
    front: front && { ...front, plans: front.plans.map(withPlan) },
    traces: traces.map(withPlan),
  };
}
