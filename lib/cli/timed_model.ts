import { Option, type Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import { syntheticCheckpoint, SYNTHETIC_SHAPES } from '../checkpoint/synthetic.js';
import { DTYPE_BLOCK, type Checkpoint, type DType } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { loadSyntheticModel, shippedModelPath } from '../model/load.js';
import type { Model } from '../model/model.js';
import type { Io } from './io.js';
import { openModel } from './open_model.js';
import type { BackendOptions } from './options.js';

/** A model to be timed: a real one, or random weights, which take as long. */
export interface TimedModelOptions extends BackendOptions {
  plan?: string[];
  synthetic?: string;
  dtype: DType;
  json?: boolean;
}

export function addSyntheticOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--synthetic <shape>', 'random weights of this shape instead of a model').choices([
        ...SYNTHETIC_SHAPES,
      ]),
    )
    .addOption(
      new Option('--dtype <dtype>', 'format of the random weights').choices(Object.keys(DTYPE_BLOCK)).default('Q8_0'),
    );
}

/** The model's shape and tensors. Throws INVALID_ARGUMENT where both a model and random weights are asked for. */
export async function openTimedCheckpoint(
  path: string | undefined,
  { synthetic, dtype }: TimedModelOptions,
): Promise<Checkpoint> {
  if (path !== undefined && synthetic !== undefined)
    throw new CqilError('INVALID_ARGUMENT', 'Give a model or --synthetic, not both.');
  return synthetic === undefined ? openCheckpoint(path ?? shippedModelPath()) : syntheticCheckpoint(synthetic, dtype);
}

export async function openTimedModel(path: string | undefined, options: TimedModelOptions, io: Io): Promise<Model> {
  const { plan, synthetic, dtype, backend, threads, kvCache, activations, mmap, json } = options;
  if (synthetic === undefined)
    return openModel(path, { plans: plan, backend, threads, kvCache, activations, mmap, json }, io);
  return loadSyntheticModel(synthetic, { dtype, backend, threads, kvCache, activations, signal: io.signal });
}
