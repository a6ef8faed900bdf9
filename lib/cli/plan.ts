import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { shippedModelPath } from '../model/load.js';
import { absolutePath, pathOf } from '../util/location.js';
import { countStages, type Plan } from '../plan/plan.js';
import { describePlan, drawPlan, planSummary } from '../plan/plan_diagram.js';
import { formatJson, printJson, type Io } from './io.js';
import {
  addBackendOptions,
  addJsonOption,
  addModelArgument,
  integer,
  PLAN_HELP,
  planText,
  type BackendOptions,
} from './options.js';
import { checkAdapter, planInFile } from './plan_adapter.js';
import { addPlanLatency } from './plan_latency.js';
import { addPlanRecover } from './plan_recover.js';
import { addPlanSearch } from './plan_search.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { formatPredictedTime, predictedTime } from './predicted_time.js';
import { explainedSchedules, formatSchedule } from './schedule_table.js';
import { writeNew } from './write_new.js';

interface Options extends PlanOptions {
  layers?: number;
  json?: boolean;
}

interface MakeOptions extends Options {
  plan?: string;
  p?: number;
  s?: number;
  e?: number;
  d?: number;
  adapter?: string;
  output?: string;
  force?: boolean;
}

export function addPlan(program: Command, io: Io): void {
  const plan = program.command('plan').description('make, check, explain, search and recover plans');

  const make = addModelArgument(
    plan.command('make').description('write a plan as JSON, checked against a model or a number of layers'),
  )
    .option('--plan <plan>', PLAN_HELP, planText)
    .option('--p <n>', 'layers per group', integer(1, 1024))
    .option('--s <layer>', 'first layer of the grouped range', integer(0, 1024))
    .option('--e <layer>', 'end of the grouped range, not in it', integer(0, 1024))
    .option('--d <n>', 'bypass distance (default: 0)', integer(0, 1024))
    .addOption(bypassModeOption())
    .option('--adapter <folder>', 'a PEFT LoRA adapter that belongs to the plan')
    .option('-o, --output <file>', 'write there instead of stdout')
    .option('--force', 'overwrite the file');
  addLayersOption(make).action((model: string | undefined, options: MakeOptions) => makePlan(model, options, io));

  const check = plan
    .command('check')
    .description('say whether a plan is sound, and fits a model')
    .argument('<plan>', PLAN_HELP, planText);
  addLayersOption(addModelArgument(check).addOption(bypassModeOption())).action(
    (spec: string, model: string | undefined, options: Options) => checkPlan(spec, model, options, io),
  );

  const explain = plan
    .command('explain')
    .description('show in words and as a diagram what a plan does')
    .argument('<plan>', PLAN_HELP, planText);
  addLayersOption(addBackendOptions(addModelArgument(explain).addOption(bypassModeOption()))).action(
    (spec: string, model: string | undefined, options: Options & BackendOptions) =>
      explainPlan(spec, model, options, io),
  );

  addPlanSearch(plan, io);
  addPlanRecover(plan, io);
  addPlanLatency(plan, io);
}

function addLayersOption(command: Command): Command {
  return addJsonOption(command).option('--layers <n>', 'the number of layers, instead of a model', integer(1, 1024));
}

async function makePlan(model: string | undefined, options: MakeOptions, io: Io): Promise<void> {
  const { p, s, e, d, output } = options;
  const letters = [p, s, e, d].some((value) => value !== undefined);
  if (letters === (options.plan !== undefined)) {
    throw new CqilError('INVALID_ARGUMENT', 'Give either --plan, or --p, --s and --e (and --d if there is a bypass).');
  }
  const spec =
    options.plan ??
    Object.entries({ P: p, D: d, S: s, E: e })
      .flatMap(([letter, value]) => (value === undefined ? [] : [letter + value]))
      .join('-');
  const { plan, checkpoint } = await resolveFor(spec, model, options, io);
  if (options.adapter !== undefined) plan.adapter = absolutePath(pathOf(options.adapter, 'The adapter'), 'The adapter');
  await checkAdapter(plan, checkpoint?.config);
  if (output === undefined) return printJson(io, plan);
  await writeNew(output, formatJson(planInFile(plan, output)), options.force ?? false);
  if (options.json) printJson(io, plan);
  io.err(`wrote ${output}: ${planSummary(plan)}\n`);
}

async function checkPlan(spec: string, model: string | undefined, options: Options, io: Io): Promise<void> {
  const { plan, checkpoint } = await resolveFor(spec, model, options, io);
  await checkAdapter(plan, checkpoint?.config);
  if (options.json) return printJson(io, plan);
  const whom = model ?? `a model of ${plan.layers} layers`;
  io.out(`${planSummary(plan)} fits ${whom}: ${countStages(plan)} stages instead of ${plan.layers}\n`);
}

async function explainPlan(
  spec: string,
  model: string | undefined,
  options: Options & BackendOptions,
  io: Io,
): Promise<void> {
  const { plan, checkpoint } = await resolveFor(spec, model, options, io);
  const predicted = checkpoint && (await predictedTime(plan, checkpoint, options));
  const placed = checkpoint && (await explainedSchedules(plan, checkpoint, options));
  if (!options.json) {
    const tables = placed?.schedules.map((schedule) => `\n${formatSchedule(placed.program, schedule)}`) ?? [];
    const prices = predicted ? [`\n${formatPredictedTime(predicted)}`] : [];
    return io.out([`${describePlan(plan)}\n\n${drawPlan(plan)}\n`, ...tables, ...prices].join(''));
  }
  printJson(io, {
    plan: planForJson(plan),
    layers: plan.layers,
    groups: plan.groups,
    stages: countStages(plan),
    description: describePlan(plan),
    diagram: drawPlan(plan),
    schedules: placed?.schedules,
    predicted,
  });
}

function namesFile(spec: string): boolean {
  return /^file:/i.test(spec) || existsSync(spec);
}

/**
 * The plan for a number of layers, for a model, or else as the file itself says; shorthand without any of them is for
 * the shipped model.
 */
async function resolveFor(
  spec: string,
  model: string | undefined,
  options: Options,
  io: Io,
): Promise<{ plan: Plan; checkpoint?: Checkpoint }> {
  const { layers } = options;
  if (model !== undefined && layers !== undefined)
    throw new CqilError('INVALID_ARGUMENT', 'Give a model or --layers, not both.');
  if (model === undefined && (layers !== undefined || namesFile(spec)))
    return { plan: readPlan(spec, layers, options, io) };
  const checkpoint = await openCheckpoint(model ?? shippedModelPath());
  return { plan: readPlan(spec, checkpoint.config.nLayers, options, io), checkpoint };
}
