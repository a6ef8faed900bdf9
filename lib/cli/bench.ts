import { Option, type Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import { syntheticCheckpoint, SYNTHETIC_SHAPES } from '../checkpoint/synthetic.js';
import { DTYPE_BLOCK, type DType } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { kvBytesPerPosition } from '../kv_cache.js';
import { describeMachine, loadSyntheticModel, measureBandwidth, shippedModelPath, type Model } from '../model.js';
import type { Execution } from '../native.js';
import { resolvePlan } from '../plan.js';
import { planSummary } from '../plan_diagram.js';
import { printJson, type Io } from './io.js';
import { weightBytesPerToken } from './memory.js';
import { openModel } from './open_model.js';
import { addBackendOptions, addJsonOption, addModelArgument, EXECUTIONS, integer, PLAN_HELP, repeatable, repeatableChoice, type BackendOptions } from './options.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatBytes, formatTable } from './table.js';
import { timeContenders, type Contender, type Timing, type Workload } from './timing.js';

interface Options extends BackendOptions, Workload {
  plan?: string[];
  execution?: Execution[];
  synthetic?: string;
  dtype: DType;
  json?: boolean;
}

/** Bytes each thread streams when read bandwidth is measured: far more than caches hold. */
const BANDWIDTH_BYTES = 256 << 20;

export function addBench(program: Command, io: Io): void {
  const command = program.command('bench').description('time plans against each other on one model, in interleaved rounds');
  addModelArgument(command)
    .option('--plan <plan>', `${PLAN_HELP}; may be given several times (default: sequential)`, repeatable)
    .option('--execution <mode>', 'how the layers of a group run: auto, wide or lanes; may be given several times (default: auto)', repeatableChoice(EXECUTIONS))
    .option('--prompt-tokens <n>', 'tokens of the prompt', integer(1, 1 << 20), 128)
    .option('--tokens <n>', 'tokens to decode after it', integer(1, 1 << 20), 64)
    .option('--repeat <n>', 'rounds', integer(1, 10_000), 5)
    .addOption(new Option('--synthetic <shape>', 'random weights of this shape instead of a model').choices([...SYNTHETIC_SHAPES]))
    .addOption(new Option('--dtype <dtype>', 'format of the random weights').choices(Object.keys(DTYPE_BLOCK)).default('Q8_0'));
  addJsonOption(addBackendOptions(command)).action((path: string | undefined, options: Options) => bench(path, options, io));
}

async function bench(path: string | undefined, options: Options, io: Io): Promise<void> {
  if (path !== undefined && options.synthetic !== undefined) throw new CqilError('INVALID_ARGUMENT', 'Give a model or --synthetic, not both.');
  const { config, tensors } = options.synthetic === undefined ? await openCheckpoint(path ?? shippedModelPath()) : syntheticCheckpoint(options.synthetic, options.dtype);
  const context = options.promptTokens + options.tokens;
  if (context > config.contextLength) {
    throw new CqilError('INVALID_ARGUMENT', `--prompt-tokens and --tokens make ${context} positions, expected at most the model's context length, ${config.contextLength}.`);
  }
  const contenders: Contender[] = (options.plan ?? ['sequential']).flatMap((plan) =>
    (options.execution ?? ['auto']).map((execution) => ({ plan: resolvePlan(plan, config.nLayers), execution })),
  );
  await using model = await openBenchModel(path, options, io);
  const progress = new Progress(io, options.json);
  let timings: Timing[];
  let measuredGBs: number;
  try {
    measuredGBs = await measureBandwidth(model.threads, BANDWIDTH_BYTES);
    timings = await timeContenders(model, contenders, options, {
      signal: io.signal,
      onProgress: (done, total) => progress.update('timing', done, total),
    });
  } finally {
    progress.stop();
  }
  // A decoded token reads on average the keys and values of the prompt and half of what is decoded.
  const bytesPerToken = weightBytesPerToken({ config, tensors }) + kvBytesPerPosition(config, options.kvCache) * (options.promptTokens + options.tokens / 2);
  const rows = contenders.map(({ plan, execution }, i) => {
    const timing = timings[i]!;
    const bandwidthGBs = bytesPerToken / timing.msPerToken.median / 1e6;
    const { layerPhases: phases } = model.program(plan);
    return { plan, execution, phases, ...timing, bytesPerToken, bandwidthGBs, fractionOfMeasuredBandwidth: bandwidthGBs / measuredGBs };
  });
  const { cpu, cores, isa, memoryBytes } = describeMachine();
  const machine = { cpu, cores, isa, memoryBytes, node: process.versions.node, backend: model.backend, threads: model.threads, kvCache: model.kvCache, measuredBandwidthGBs: measuredGBs };
  if (options.json) {
    printJson(io, { rows: rows.map((row) => ({ ...row, plan: planForJson(row.plan) })), workload: workloadOf(options), machine });
    return;
  }
  const cells = rows.map((row) => {
    const { min, median, max } = row.msPerToken;
    const share = `${(row.fractionOfMeasuredBandwidth * 100).toFixed(0)} %`;
    return [planSummary(row.plan), row.execution, String(row.phases), ...[median, min, max].map((ms) => ms.toFixed(3)), row.prefillTokensPerSecond.toFixed(1), row.bandwidthGBs.toFixed(1), share];
  });
  io.out(formatTable(['plan', 'execution', 'phases', 'ms/token', 'min', 'max', 'prefill/s', 'GB/s', 'of bandwidth'], cells));
  io.out(`\n${formatBytes(bytesPerToken)} read per token; ${options.promptTokens} + ${options.tokens} tokens, ${options.repeat} rounds; KV cache ${machine.kvCache}; ${machine.threads} ${machine.threads === 1 ? 'thread' : 'threads'} (${isa}) on ${cpu}, reading ${measuredGBs.toFixed(1)} GB/s at best\n`);
}

async function openBenchModel(path: string | undefined, options: Options, io: Io): Promise<Model> {
  if (options.synthetic === undefined) return openModel(path, { ...options, plan: undefined, execution: undefined }, io);
  const { dtype, backend, threads, kvCache } = options;
  return loadSyntheticModel(options.synthetic, { dtype, backend, threads, kvCache, signal: io.signal });
}

function workloadOf({ promptTokens, tokens, repeat }: Workload): Workload {
  return { promptTokens, tokens, repeat };
}
