import type { Command } from 'commander';
import { chooseActivations, roundedShare, type ActivationsChoice } from '../engine/activations.js';
import { mergedBytes, openLora } from '../checkpoint/lora.js';
import { openCheckpoint } from '../checkpoint/open.js';
import type { ModelConfig, TensorInfo } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { chooseKvCache, KV_CACHES, kvBytesPerPosition, type KvCache, type KvCacheChoice } from '../engine/kv_cache.js';
import { shippedModelPath } from '../model/load.js';
import { describeMachine } from '../engine/machine.js';
import { compilePlan } from '../model/model.js';
import type { Program } from '../engine/native.js';
import { describePlan } from '../plan/plan_diagram.js';
import { counted } from '../util/count.js';
import { publishedPlan, publishedPlanNote } from '../model/published_plan.js';
import { printJson, type Io } from './io.js';
import { weightBytes } from './memory.js';
import {
  activationsOption,
  addJsonOption,
  addModelArgument,
  integer,
  kvCacheOption,
  PLAN_HELP,
  planText,
} from './options.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { explainedSchedules, formatSchedule } from './schedule_table.js';
import { addSimilarity } from './similarity.js';
import { formatBytes, formatTable } from './table.js';

interface Options extends PlanOptions {
  plan?: string;
  context?: number;
  kvCache: KvCacheChoice;
  activations: ActivationsChoice;
  json?: boolean;
}

export function addInspect(program: Command, io: Io): void {
  const command = program
    .command('inspect')
    .description("show a model's shape, tensors and memory, and the program of a plan, without loading its weights");
  addModelArgument(command)
    .option('--plan <plan>', PLAN_HELP, planText)
    .addOption(bypassModeOption())
    .option('--context <n>', "positions to count memory for (default: the model's context length)", integer(1, 1 << 24))
    .addOption(kvCacheOption())
    .addOption(activationsOption());
  addJsonOption(command).action((path: string | undefined, options: Options) =>
    inspect(path ?? shippedModelPath(), options, io),
  );
  command.enablePositionalOptions().helpCommand(false);
  addSimilarity(command, io);
}

async function inspect(path: string, options: Options, io: Io): Promise<void> {
  const checkpoint = await openCheckpoint(path);
  const { format, files, config, tensors } = checkpoint;
  const published = publishedPlan(checkpoint);
  const plan = readPlan(options.plan ?? 'sequential', config.nLayers, options, io);
  const compiled = compilePlan(config, plan);
  const { schedules = [] } = (await explainedSchedules(plan, checkpoint, { ...options, backend: 'cpu' })) ?? {};
  const context = options.context ?? config.contextLength;
  const activations = {
    format: chooseActivations(options.activations, 'cpu', tensors, describeMachine),
    bf16Share: roundedShare('bf16', tensors),
    int8Share: roundedShare('int8', tensors),
  };
  const kvFormat = chooseKvCache(options.kvCache, activations.format, tensors);
  const adapter = plan.adapter === undefined ? 0 : mergedBytes(await openLora(plan.adapter, config), tensors);
  const memory = { weights: weightBytes(tensors), adapter, ...cacheMemory(config, kvFormat, context) };
  if (options.json) {
    printJson(io, {
      path,
      format,
      config: { ...config, ropeFrequencies: [...config.ropeFrequencies] },
      tensors: tensors.map(tensorForJson),
      memory,
      activations,
      plan: planForJson(plan),
      publishedPlan: published === undefined ? null : publishedForJson(published),
      program: compiled,
      schedules,
    });
    return;
  }
  const { architecture, nLayers, dim, hiddenDim, nHeads, nKvHeads, headDim, vocabSize, contextLength } = config;
  io.out(`${path}: ${architecture}, ${format}, ${counted(files.length, 'file')}
layers ${nLayers}, dim ${dim}, hidden dim ${hiddenDim}, heads ${nHeads} of ${headDim}, KV heads ${nKvHeads}, vocabulary ${vocabSize}, context ${contextLength}

${formatTable(['weights', 'tensors', 'bytes'], weightRows(tensors))}
memory: weights ${formatBytes(memory.weights)}, ${adapter > 0 ? `with the adapter merged in ${formatBytes(adapter)} more, ` : ''}KV cache ${kvFormat} ${formatBytes(memory.kvCache)} for ${context} positions
activations: ${activations.format} on the CPU; int8 applies to ${percent(activations.int8Share)} of the matrices, bf16 to ${percent(activations.bf16Share)}

${formatTable(
  ['KV cache', 'per position'],
  KV_CACHES.map((format) => [format, formatBytes(memory.kvPerPositionByFormat[format]!)]),
)}
${published ? `${publishedPlanNote(published, `--plan ${published.folder}`)}\n\n` : ''}${describePlan(plan)}

${formatTable(['phase', 'stage', 'layers'], phaseRows(compiled))}
${schedules.map((schedule) => formatSchedule(compiled, schedule)).join('\n')}`);
}

/** Bytes of keys and values. */
function cacheMemory(config: ModelConfig, kvFormat: KvCache, context: number) {
  const kvPerPosition = kvBytesPerPosition(config, kvFormat);
  const byFormat = KV_CACHES.map((format) => [format, kvBytesPerPosition(config, format)] as const);
  return {
    kvFormat,
    kvPerPosition,
    kvPerPositionByFormat: Object.fromEntries(byFormat),
    context,
    kvCache: kvPerPosition * context,
  };
}

function tensorForJson({ name, role, layer, dtype, rows, cols, byteLength }: TensorInfo) {
  return { name, role, layer, dtype, rows, cols, bytes: byteLength };
}

function publishedForJson({ folder, plan }: NonNullable<ReturnType<typeof publishedPlan>>) {
  return plan instanceof CqilError ? { folder, problem: plan.message } : { folder, plan: planForJson(plan) };
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}

/** One row per dtype, in the order of the file. */
function weightRows(tensors: TensorInfo[]): string[][] {
  const dtypes = [...new Set(tensors.map((tensor) => tensor.dtype))];
  return dtypes.map((dtype) => {
    const those = tensors.filter((tensor) => tensor.dtype === dtype);
    return [dtype, String(those.length), formatBytes(weightBytes(those))];
  });
}

/** The program with the five phases of a stage folded into one row. */
function phaseRows({ phases }: Program): string[][] {
  const rows: string[][] = [];
  for (const { kind, stage, layers } of phases) {
    const last = rows.at(-1);
    if (last && stage >= 0 && last[1] === String(stage)) last[0] += ` ${kind}`;
    else rows.push([kind, stage < 0 ? '' : String(stage), layers.join(' ')]);
  }
  return rows;
}
