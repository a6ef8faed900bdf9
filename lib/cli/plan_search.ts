import { existsSync } from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { fingerprint } from '../analysis/eval/fingerprint.js';
import {
  calibration,
  CALIBRATION_SECONDS,
  findCalibration,
  typicalPosition,
  type Calibration,
} from '../analysis/latency/calibration.js';
import { shippedModelPath } from '../model/load.js';
import type { Model } from '../model/model.js';
import type { Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import { findPlans, searchWindow, type FoundPlans } from '../analysis/search/find_plans.js';
import type { MeasuredPlan, SearchPoint } from '../analysis/search/front.js';
import { bestFor, describeGoal, unreachable, type Goal, type GoalPoint } from '../analysis/search/goal.js';
import { MeasurementFile } from '../analysis/search/measurement_file.js';
import { formatJson, printJson, type Io } from './io.js';
import { machineOf, machineSummary } from './machine.js';
import { openModel } from './open_model.js';
import {
  addBackendOptions,
  addJsonOption,
  addModelArgument,
  decimal,
  integer,
  type BackendOptions,
} from './options.js';
import { BUSY } from './plan_latency.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { firstTokens } from './similarity.js';
import { formatTable } from './table.js';
import { readTextFile } from './text_file.js';
import { existsAlready, writeNew } from './write_new.js';

const DEFAULT_TOKENS = 4096;
const DEFAULT_SECONDS = 120;

const HELP = `
Speed is time per token, predicted from a short calibration on this machine as cqil plan latency does it, or counted in phases, the
dependent parts of a token, 5 per stage. Quality is the mean KL divergence from the sequential model, nats per token. The first half of
the text chooses plans, the second half measures them, and all numbers printed are of the second, but fit, the KL on the first.

Looked at are groups of 2 to 4 layers and bypass distances 0 and 1: groups of one size over a contiguous range, as published; groups of
layers with the most similar inputs; groups that cost least when measured one by one; and what moving, merging and splitting makes of
the best of these. The same seed and --evaluations give the same plans, with --speedup once a calibration is kept; a budget in seconds
depends on the machine.`;

interface Options extends BackendOptions {
  file: string;
  maxKl?: number;
  maxPplIncrease?: number;
  speedup?: number;
  fewerPhases?: number;
  budget: number;
  evaluations?: number;
  seed: number;
  guard?: number;
  tokens: number;
  window?: number;
  output?: string;
  force?: boolean;
  resume?: string;
  json?: boolean;
}

/** `cqil plan search`. */
export function addPlanSearch(plan: Command, io: Io): void {
  const command = plan
    .command('search')
    .description('find the plan that costs a model the least quality for the phases it saves');
  addModelArgument(command)
    .requiredOption('--file <path>', 'the text to measure plans on, UTF-8')
    .option('--max-kl <nats>', 'the fewest phases with at most this mean KL', decimal(0, 1000))
    .option(
      '--max-ppl-increase <percent>',
      'the fewest phases with perplexity at most this far above sequential',
      percentage(0, 100000),
    )
    .option(
      '--speedup <percent>',
      'the least KL with at least so much less predicted time per token',
      percentage(0, 100),
    )
    .option('--fewer-phases <percent>', 'the least KL with at least this share of phases fewer', percentage(0, 100))
    .option('--budget <seconds>', 'about how long to search', decimal(1, 1e6), DEFAULT_SECONDS)
    .option('--evaluations <n>', 'how many plans to measure at most, instead of --budget', integer(1, 1 << 30))
    .option('--seed <n>', 'what is drawn at random', integer(0, 2 ** 32 - 1), 0)
    .option(
      '--guard <n>',
      'layers at the start that always run alone (default: as measured on pairs of layers)',
      integer(0, 1024),
    )
    .option(
      '--tokens <n>',
      'take at most this number of tokens from the start of the text',
      integer(2, 1 << 24),
      DEFAULT_TOKENS,
    )
    .option('--window <n>', 'tokens per window, each from an empty context (default: at most 512)', integer(2, 1 << 24))
    .option('-o, --output <file>', 'write the plan there, with what was measured')
    .option('--force', 'overwrite the file')
    .option('--resume <file>', 'keep measurements there, and take them from it');
  addJsonOption(addBackendOptions(command))
    .addHelpText('after', HELP)
    .action((path: string | undefined, options: Options) => search(path, options, io));
}

async function search(path: string | undefined, options: Options, io: Io): Promise<void> {
  const goal = goalOf(options);
  const { output, force = false, seed } = options;
  // Said before the search rather than after it; writing refuses it all the same.
  if (output !== undefined && !force && existsSync(output)) throw existsAlready(output);
  const { text, sha256 } = await readTextFile(options.file);
  const checkpoint = await openCheckpoint(path ?? shippedModelPath());
  await using model = await openModel(path, { ...options, plans: [] }, io);
  const ids = await firstTokens(model.tokenizer, text, options.tokens, io.signal);
  const source = { path: checkpoint.path, fingerprint: await fingerprint(checkpoint) };
  const { found, calibrated } = await find(
    model,
    checkpoint,
    ids,
    { goal, data: { model: source.fingerprint, sha256 }, options },
    io,
  );

  const chosen = bestFor(goal, found.points, found.sequential);
  if (!chosen) throw unreachable(goal, found.points, found.sequential);
  const machine = machineOf(model);
  const shown: Shown = { found, chosen, goal, source, text: { file: options.file, sha256 }, seed, machine };
  const predicted = calibrated && {
    msPerToken: chosen.msPerToken,
    sequentialMsPerToken: found.sequential.msPerToken,
    ...typicalPosition(model.config),
    calibrated: calibrated.measured,
    busy: calibrated.busy,
  };
  const plan: Plan = { ...chosen.plan, evidence: evidenceOf(shown, predicted) };
  if (output !== undefined) await writeNew(output, formatJson(plan), force);
  if (options.json) printJson(io, { plan, ...forJson(shown) });
  else io.out(describeFound(shown));
  if (output !== undefined) io.err(`wrote ${output}: ${planSummary(chosen.plan)}\n`);
  if (calibrated?.busy) io.err(BUSY);
}

/** What is shown of a search. */
interface Shown {
  found: FoundPlans;
  chosen: MeasuredPlan;
  goal: Goal;
  source: { path: string; fingerprint: string };
  text: { file: string; sha256: string };
  seed: number;
  machine: ReturnType<typeof machineOf>;
}

/** What was measured of the plan, as its file keeps it. */
function evidenceOf({ found, chosen, goal, source, text, seed, machine }: Shown, predicted: object | undefined) {
  const { tokens, kl, klStandardError, perplexity, topAgreement, phases, method } = chosen;
  return {
    model: source.fingerprint,
    data: text.file,
    sha256: text.sha256,
    tokens,
    kl,
    klStandardError,
    perplexity,
    sequentialPerplexity: found.sequential.perplexity,
    topAgreement,
    phases,
    sequentialPhases: found.sequential.phases,
    predicted,
    goal,
    method,
    seed,
    machine,
  };
}

function forJson({ found, goal, source, text, seed, machine }: Shown) {
  const { evaluations, complete, window, fitTokens, heldOutTokens, guard, guardPairs } = found;
  const { phases, perplexity, msPerToken } = found.sequential;
  return {
    goal,
    model: source,
    text: { ...text, window, fitTokens, heldOutTokens },
    guard,
    guardPairs,
    seed,
    evaluations,
    complete,
    sequential: { phases, perplexity, msPerToken },
    front: found.front.map(pointForJson),
    points: found.points.map(pointForJson),
    machine,
  };
}

function describeFound({ found, chosen, goal, source, text, seed, machine }: Shown): string {
  const { sequential } = found;
  const time =
    chosen.msPerToken === undefined || sequential.msPerToken === undefined
      ? ''
      : `, a predicted ${chosen.msPerToken.toPrecision(3)} ms per token instead of ` +
        sequential.msPerToken.toPrecision(3);
  return (
    `${formatFront(found)}${chosen.phases} phases instead of ${sequential.phases}${time}, the best found for ` +
    `${describeGoal(goal)}:\n${planSummary(chosen.plan)}\n` +
    `${found.evaluations} plans measured${found.complete ? '' : ' before the budget ended'}, on ` +
    `${found.fitTokens} tokens of ${text.file} (${text.sha256}) and ${found.heldOutTokens} held out, windows of ` +
    `${found.window}; seed ${seed}, guard ${found.guard}${found.guardPairs ? ' as measured' : ''}.\n` +
    `Model ${source.path} (${source.fingerprint}); ${machineSummary(machine)}.\n`
  );
}

interface Found {
  found: FoundPlans;
  calibrated?: Calibration;
}

async function find(
  model: Model,
  checkpoint: Checkpoint,
  ids: number[],
  { goal, data, options }: { goal: Goal; data: { model: string; sha256: string }; options: Options },
  io: Io,
): Promise<Found> {
  const start = performance.now();
  const { seed, guard, evaluations, budget, window = searchWindow(model, ids.length) } = options;
  const identity = {
    cqil: 'plan search',
    version: 1,
    ...data,
    tokens: ids.length,
    window,
    kvCache: model.kvCache,
    activations: model.activations,
  } as const;
  const file = options.resume === undefined ? undefined : await MeasurementFile.open(options.resume, identity);
  const progress = new Progress(io, options.json);
  const onProgress = (what: string, share: number): void => progress.update(what, Math.round(share * 1000), 1000);
  try {
    const timing = {
      seconds: Math.min(CALIBRATION_SECONDS, budget / 10),
      signal: io.signal,
      onProgress: (share: number) => onProgress('calibrating', share),
    };
    // Only a goal in time needs prices; others show them where they are known.
    const calibrated = await (goal.kind === 'time'
      ? calibration(model, checkpoint, timing)
      : findCalibration(checkpoint, model));
    const at = typicalPosition(model.config);
    const found = await findPlans(model, ids, {
      goal,
      guard,
      seed,
      window,
      evaluations,
      file,
      signal: io.signal,
      onProgress,
      seconds: evaluations === undefined ? budget - (performance.now() - start) / 1000 : undefined,
      msPerToken: calibrated && ((plan) => calibrated.latency.predict(model.program(plan), 'auto', at).msPerToken),
    });
    return { found, calibrated };
  } finally {
    progress.stop();
    await file?.close();
  }
}

function goalOf({ maxKl, maxPplIncrease, speedup, fewerPhases }: Options): Goal {
  const goals: Goal[] = [];
  if (maxKl !== undefined) goals.push({ kind: 'kl', limit: maxKl });
  if (maxPplIncrease !== undefined) goals.push({ kind: 'perplexity', limit: maxPplIncrease });
  if (speedup !== undefined) goals.push({ kind: 'time', limit: speedup });
  if (fewerPhases !== undefined) goals.push({ kind: 'phases', limit: fewerPhases });
  if (goals.length !== 1)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `Give one of --max-kl, --max-ppl-increase, --speedup and --fewer-phases; found ${goals.length}.`,
    );
  return goals[0]!;
}

/** A parser for percentages between two bounds, with or without the sign; gives a fraction. */
function percentage(min: number, max: number): (text: string) => number {
  const parse = decimal(min, max);
  return (text) => {
    try {
      return parse(text.trim().replace(/\s*%$/, '')) / 100;
    } catch {
      throw new InvalidArgumentError(`Expected a percentage from ${min} to ${max}, such as 20%.`);
    }
  };
}

function pointForJson({ uniform, ...best }: SearchPoint) {
  const forJson = ({ plan, ...rest }: MeasuredPlan) => ({ plan: planForJson(plan), ...rest });
  return { ...forJson(best), uniform: uniform && forJson(uniform) };
}

/** The Pareto front, and beside each point the best of the paper's plans with as many phases. */
function formatFront({ front, sequential }: FoundPlans): string {
  const time = ({ msPerToken }: GoalPoint): string[] => (msPerToken === undefined ? [] : [msPerToken.toPrecision(3)]);
  const cells = front.map((point) => [
    String(point.phases),
    ...time(point),
    point.kl.toFixed(4),
    point.fitKl.toFixed(4),
    point.perplexity.toFixed(3),
    `${(point.topAgreement * 100).toFixed(1)} %`,
    point.method,
    point.uniform ? point.uniform.kl.toFixed(4) : '',
    point.uniform ? planSummary(point.uniform.plan) : '',
    describeGroups(point.plan),
  ]);
  const before = [
    String(sequential.phases),
    ...time(sequential),
    '0',
    '0',
    sequential.perplexity.toFixed(3),
    '100.0 %',
    '',
    '',
    'sequential',
    '',
  ];
  return formatTable(
    [
      'phases',
      ...(sequential.msPerToken === undefined ? [] : ['ms']),
      'KL',
      'fit',
      'perplexity',
      'same top',
      'found by',
      'uniform KL',
      'uniform',
      'plan',
    ],
    [...cells, before],
  );
}

/** Groups and bypass in a few characters: `4-5 6-8, D1`. */
function describeGroups({ groups, bypass }: Plan): string {
  return `${groups.map((group) => `${group[0]}-${group.at(-1)}`).join(' ')}, D${bypass}`;
}
