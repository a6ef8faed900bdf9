import type { Command } from 'commander';
import { randomWithAdapter } from '../session/adapted_weights.js';
import type { Checkpoint, ModelConfig } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { kvBytesPerPosition } from '../engine/kv_cache.js';
import { BUSY_WHILE_MEASURED } from '../analysis/latency/busy.js';
import { barriersPerToken, modelBytes } from '../analysis/latency/work.js';
import { cpuLimits, measureBandwidth } from '../engine/machine.js';
import type { Model } from '../model/model.js';
import type { Execution, Program, SettledExecution } from '../engine/native.js';
import type { Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import { counted } from '../util/count.js';
import { printJson, type Io } from './io.js';
import { machineOf } from './machine.js';
import { weightBytesPerToken } from './memory.js';
import {
  addBackendOptions,
  addJsonOption,
  addModelArgument,
  EXECUTIONS,
  integer,
  PLAN_HELP,
  repeatablePlan,
  repeatableChoice,
} from './options.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatBytes, formatTable } from './table.js';
import { addSyntheticOptions, openTimedCheckpoint, openTimedModel, type TimedModelOptions } from './timed_model.js';
import { timeWatched, type Contender, type Timing, type Workload } from '../analysis/latency/timing.js';

interface Options extends TimedModelOptions, PlanOptions, Workload {
  plan?: string[];
  execution?: Execution[];
}

/** Bytes each thread streams when read bandwidth is measured: far more than caches hold. */
const BANDWIDTH_BYTES = 256 << 20;

export function addBench(program: Command, io: Io): void {
  const command = program
    .command('bench')
    .description('time plans against each other on one model, in interleaved rounds');
  addModelArgument(command)
    .option('--plan <plan>', `${PLAN_HELP}; may be given several times (default: sequential)`, repeatablePlan)
    .addOption(bypassModeOption())
    .option(
      '--execution <mode>',
      'how the layers of a group run: auto, wide, lanes or persistent; may be given several times (default: auto)',
      repeatableChoice(EXECUTIONS),
    )
    .option('--prompt-tokens <n>', 'tokens of the prompt', integer(1, 1 << 20), 128)
    .option('--tokens <n>', 'tokens to decode after it', integer(1, 1 << 20), 64)
    .option('--repeat <n>', 'rounds', integer(1, 10_000), 5);
  addJsonOption(addBackendOptions(addSyntheticOptions(command))).action((path: string | undefined, options: Options) =>
    bench(path, options, io),
  );
}

async function bench(path: string | undefined, options: Options, io: Io): Promise<void> {
  const checkpoint = await openTimedCheckpoint(path, options);
  const { config } = checkpoint;
  const contenders = contendersOf(config, options, io);
  await using model = await openTimedModel(path, options, io);
  const progress = new Progress(io, options.json);
  let timings: Timing[];
  let busy: boolean;
  let measuredGBs: number;
  try {
    measuredGBs = await measureBandwidth(model.threads, BANDWIDTH_BYTES);
    ({ timings, busy } = await timeWatched(model, contenders, options, {
      signal: io.signal,
      onProgress: (done, total) => progress.update('timing', done, total),
    }));
  } finally {
    progress.stop();
  }
  // A decoded token reads on average the keys and values of the prompt and half of what is decoded.
  const bytesPerToken =
    weightBytesPerToken(checkpoint) +
    kvBytesPerPosition(config, model.kvCache) * (options.promptTokens + options.tokens / 2);
  const rows = contenders.map((contender, i) =>
    rowOf(model, checkpoint, contender, timings[i]!, { bytesPerToken, measuredGBs }),
  );
  const machine = { ...machineOf(model), measuredBandwidthGBs: measuredGBs, busy };
  if (options.json) {
    const forJson = rows.map((row) => ({ ...row, plan: planForJson(row.plan) }));
    printJson(io, { rows: forJson, workload: workloadOf(options), machine });
    return;
  }
  io.out(formatRows(rows));
  io.out(
    `\n${formatBytes(bytesPerToken)} read per token; ${options.promptTokens} + ${options.tokens} tokens, ` +
      `${options.repeat} rounds; KV cache ${machine.kvCache}, activations ${machine.activations}; ` +
      `${counted(machine.threads, 'thread')} (${machine.isa}) on ${machine.cpu}, reading ` +
      `${measuredGBs.toFixed(1)} GB/s at best\n`,
  );
  if (busy) io.out(`${BUSY_WHILE_MEASURED}\n`);
}

/** Every plan in every execution. Throws INVALID_ARGUMENT for what cannot be timed. */
function contendersOf({ contextLength, nLayers }: ModelConfig, options: Options, io: Io): Contender[] {
  const context = options.promptTokens + options.tokens;
  if (context > contextLength) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      `--prompt-tokens and --tokens make ${context} positions, expected at most the model's context length, ` +
        `${contextLength}.`,
    );
  }
  const contenders = (options.plan ?? ['sequential']).flatMap((plan) =>
    (options.execution ?? ['auto']).map((execution) => ({ plan: readPlan(plan, nLayers, options, io), execution })),
  );
  const adapted = contenders.find(({ plan }) => plan.adapter !== undefined);
  if (adapted && options.synthetic !== undefined) throw randomWithAdapter(adapted.plan.adapter!);
  return contenders;
}

type BenchRow = ReturnType<typeof rowOf>;

function rowOf(
  model: Model,
  checkpoint: Checkpoint,
  { plan, execution }: Contender,
  timing: Timing,
  { bytesPerToken, measuredGBs }: { bytesPerToken: number; measuredGBs: number },
) {
  const bandwidthGBs = bytesPerToken / timing.msPerToken.median / 1e6;
  const program = model.program(plan);
  const settled = settledOn(model, plan, execution);
  return {
    plan,
    execution,
    settledExecution: settled?.execution ?? null,
    threads: settled?.threads ?? null,
    phases: program.layerPhases,
    barriersPerToken: barriersOf(model, checkpoint, program, settled),
    ...timing,
    bytesPerToken,
    bandwidthGBs,
    fractionOfMeasuredBandwidth: bandwidthGBs / measuredGBs,
  };
}

function formatRows(rows: readonly BenchRow[]): string {
  const cells = rows.map((row) => {
    const { min, median, max } = row.msPerToken;
    const share = `${(row.fractionOfMeasuredBandwidth * 100).toFixed(0)} %`;
    return [
      planSummary(row.plan),
      executionName(row),
      String(row.phases),
      String(row.barriersPerToken ?? ''),
      ...[median, min, max].map((ms) => ms.toFixed(3)),
      row.prefillTokensPerSecond.toFixed(1),
      row.bandwidthGBs.toFixed(1),
      share,
    ];
  });
  return formatTable(
    ['plan', 'execution', 'phases', 'barriers', 'ms/token', 'min', 'max', 'prefill/s', 'GB/s', 'of bandwidth'],
    cells,
  );
}

/** How the last tokens of a plan were computed; undefined while `auto` is still trying the ways to run it. */
function settledOn(model: Model, plan: Plan, execution: Execution): SettledExecution | undefined {
  const all = model.backend === 'cuda' ? 0 : model.threads;
  if (execution !== 'auto') return { execution, threads: all };
  const settled = model.settledExecution(plan);
  // One thread has one way, and nothing to settle: it takes the layers of a group one after another.
  if (settled || all !== 1) return settled;
  return { execution: plan.groups.length > 0 ? 'lanes' : 'wide', threads: 1 };
}

function barriersOf(
  model: Model,
  checkpoint: Checkpoint,
  program: Program,
  settled: SettledExecution | undefined,
): number | null {
  if (!settled || settled.execution === 'persistent') return null;
  return barriersPerToken(modelBytes(checkpoint, model.kvCache, cpuLimits()), program, settled.execution, {
    backend: model.backend,
    threads: Math.max(1, settled.threads),
  });
}

function executionName({
  execution,
  settledExecution,
  threads,
}: {
  execution: Execution;
  settledExecution: string | null;
  threads: number | null;
}): string {
  if (execution !== 'auto' || settledExecution === null) return execution;
  return `auto: ${settledExecution}${threads === 1 ? ', 1 thread' : threads ? `, ${threads} threads` : ''}`;
}

function workloadOf({ promptTokens, tokens, repeat }: Workload): Workload {
  return { promptTokens, tokens, repeat };
}
