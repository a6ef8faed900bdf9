import type { Command } from 'commander';
import { CqilError } from '../errors.js';
import { agreement, type Agreement, type Ranking } from '../analysis/latency/agreement.js';
import {
  calibrateAnew,
  calibration,
  CALIBRATION_SECONDS,
  typicalPosition,
  type Calibration,
} from '../analysis/latency/calibration.js';
import type { LatencyModel } from '../analysis/latency/latency_model.js';
import { randomPlans } from '../analysis/latency/random_plans.js';
import { timeDecodes, typical, type Decode } from '../analysis/latency/time_decodes.js';
import type { Model } from '../model/model.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import { printJson, type Io } from './io.js';
import { machineOf, machineSummary } from './machine.js';
import {
  addBackendOptions,
  addJsonOption,
  addModelArgument,
  decimal,
  integer,
  PLAN_HELP,
  repeatablePlan,
} from './options.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatTable } from './table.js';
import { addSyntheticOptions, openTimedCheckpoint, openTimedModel, type TimedModelOptions } from './timed_model.js';

const HELP = `
Prices of waiting, and of reading weights, keys and values, are measured once on this machine for the model's shape, its formats, the
number of threads and the KV cache, by timing a few plans, and kept for later runs in the folder that CQIL_CACHE_DIR names, or the
platform's own for caches. A plan's time is the sum over its phases. --measure times the plans too, and says how far off that was.`;

/** Said on stderr. */
export const BUSY =
  'cqil: the machine was busy while prices were measured, so predictions may be far off; they are not kept\n';

interface Options extends TimedModelOptions, PlanOptions {
  plan?: string[];
  random: number;
  seed: number;
  position?: number;
  measure?: number;
  calibrate?: boolean;
  seconds: number;
}

interface Row {
  plan: Plan;
  execution: 'wide' | 'lanes';
  phases: number;
  waits: number;
  predictedMs: number;
  /** Empty unless measured. */
  timingsMs: number[];
}

/** `cqil plan latency`. */
export function addPlanLatency(plan: Command, io: Io): void {
  const command = plan
    .command('latency')
    .description('predict how long plans take on this machine, from a short calibration');
  addModelArgument(command)
    .option('--plan <plan>', `${PLAN_HELP}; may be given several times, and sequential is always there`, repeatablePlan)
    .addOption(bypassModeOption())
    .option('--random <n>', 'as many plans drawn at random', integer(0, 1000), 0)
    .option('--seed <n>', 'which plans are drawn', integer(0, 2 ** 32 - 1), 0)
    .option(
      '--position <n>',
      'tokens before the one that is timed (default: 128, or half of a shorter context)',
      integer(0, 1 << 24),
    )
    .option('--measure <seconds>', 'also time the plans, all in turn, for about so long', decimal(0.1, 3600))
    .option('--calibrate', 'measure prices anew, even if they are known; with --measure, in turn with the plans')
    .option('--seconds <n>', 'how long to calibrate', decimal(0.1, 3600), CALIBRATION_SECONDS);
  addJsonOption(addBackendOptions(addSyntheticOptions(command)))
    .addHelpText('after', HELP)
    .action((path: string | undefined, options: Options) => latency(path, options, io));
}

async function latency(path: string | undefined, options: Options, io: Io): Promise<void> {
  const checkpoint = await openTimedCheckpoint(path, options);
  const { nLayers, contextLength } = checkpoint.config;
  const { position = typicalPosition(checkpoint.config).position } = options;
  if (position >= contextLength)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `--position is ${position}, expected less than the model's context length, ${contextLength}.`,
    );
  const plans = [
    resolvePlan('sequential', nLayers),
    ...(options.plan ?? []).map((plan) => readPlan(plan, nLayers, options, io)),
    ...randomPlans(nLayers, options.random, options.seed),
  ];
  await using model = await openTimedModel(path, options, io);
  const at = { position, logits: true };
  const progress = new Progress(io, options.json);
  const report = (label: string) => ({
    signal: io.signal,
    onProgress: (share: number) => progress.update(label, Math.round(share * 1000), 1000),
  });
  try {
    const decodes = plans.flatMap((plan) =>
      executionsOf(model, plan).map((execution): Decode => ({ plan, execution, at })),
    );
    const { measure, seconds } = options;
    let calibrated: Calibration;
    let timings: number[][] = [];
    if (options.calibrate) {
      const { others, ...rest } = await calibrateAnew(
        model,
        checkpoint,
        { seconds: measure ?? seconds, ...report('calibrating') },
        measure === undefined ? [] : decodes,
      );
      [calibrated, timings] = [rest, others];
    } else {
      calibrated = await calibration(model, checkpoint, { seconds, ...report('calibrating') });
      if (measure !== undefined) timings = await timeDecodes(model, decodes, { seconds: measure, ...report('timing') });
    }
    const rows = decodes.map((decode, i) => rowOf(model, decode, calibrated.latency, timings[i] ?? []));
    progress.stop();
    print(rows, { checkpoint: checkpoint.path, calibrated, position, plans }, model, options, io);
    if (calibrated.busy) io.err(BUSY);
  } finally {
    progress.stop();
  }
}

/** The executions that differ for a plan. */
function executionsOf({ threads, backend }: Model, { groups }: Plan): ReadonlyArray<'wide' | 'lanes'> {
  return groups.length > 0 && (threads > 1 || backend === 'cuda') ? ['wide', 'lanes'] : ['wide'];
}

function rowOf(model: Model, { plan, execution, at }: Decode, prices: LatencyModel, timingsMs: number[]): Row {
  const program = model.program(plan);
  const { msPerToken, waits } = prices.predict(program, execution, at);
  return { plan, execution, phases: program.layerPhases, waits, predictedMs: msPerToken, timingsMs };
}

interface Context {
  checkpoint: string;
  calibrated: Calibration;
  position: number;
  plans: Plan[];
}

function print(
  rows: Row[],
  { checkpoint, calibrated: { latency: prices, measured, busy }, position, plans }: Context,
  model: Model,
  options: Options,
  io: Io,
): void {
  const timed = options.measure !== undefined;
  const compared = timed
    ? agreement(rows.map(({ plan, ...trial }) => ({ ...trial, plan: plans.indexOf(plan) })))
    : undefined;
  const machine = machineOf(model);
  if (options.json) {
    const { random, seed, measure } = options;
    const documents = rows.map(({ plan, execution, phases, waits, predictedMs, timingsMs }) => ({
      plan: planForJson(plan),
      execution,
      phases,
      waits,
      predictedMsPerToken: predictedMs,
      ...(timed && { measuredMsPerToken: typical(timingsMs), timings: timingsMs.length }),
    }));
    printJson(io, {
      model: checkpoint,
      position,
      calibration: { measured, busy, rates: prices.rates },
      rows: documents,
      agreement: compared,
      ...(random > 0 && { random, seed }),
      ...(timed && { measure }),
      machine,
    });
    return;
  }
  const cells = rows.map(({ plan, execution, phases, waits, predictedMs, timingsMs }) => {
    const cell = [planSummary(plan), execution, String(phases), String(waits), predictedMs.toFixed(3)];
    if (timed)
      cell.push(typical(timingsMs).toFixed(3), `${((predictedMs / typical(timingsMs) - 1) * 100).toFixed(1)} %`);
    return cell;
  });
  io.out(
    formatTable(
      ['plan', 'execution', 'phases', 'waits', 'predicted ms', ...(timed ? ['measured ms', 'off by'] : [])],
      cells,
    ),
  );
  if (compared) io.out(`\n${formatAgreement(compared, plans.length)}`);
  io.out(`\nms per token after ${position} tokens; prices measured ${measured}; ${machineSummary(machine)}.\n`);
}

function formatAgreement({ error, ranking }: Agreement, plans: number): string {
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
  const line = (name: string, { rankCorrelation, repeatability }: Ranking): string =>
    `${name} ${rankCorrelation.toFixed(3)} (${repeatability.toFixed(3)})`;
  const ranks =
    plans < 3
      ? ''
      : `Rank correlation over ${plans} plans, and that of the measurement with itself: ` +
        `${line('wide', ranking.wide)}, ${line('lanes', ranking.lanes)}, the faster of both ` +
        `${line('', ranking.fastest).trim()}.\n`;
  return `Off by ${percent(error.median)} in the median, ${percent(error.max)} at most.\n${ranks}`;
}
