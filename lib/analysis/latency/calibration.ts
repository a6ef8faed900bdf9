import { readCache, writeCache, type CacheIdentity } from '../../util/cache_file.js';
import { timingIdentity } from '../../engine/cache_identity.js';
import type { Checkpoint, ModelConfig } from '../../checkpoint/types.js';
import { cpuLimits, describeMachine } from '../../engine/machine.js';
import type { TimedPlacement } from '../../engine/placement.js';
import type { Model } from '../../model/model.js';
import { watchBusy } from './busy.js';
import { calibrate } from './calibrate.js';
import { LatencyModel, type Rates } from './latency_model.js';
import type { Decode, TimingOptions } from './time_decodes.js';
import { modelBytes, WORK_KINDS, type DecodePosition } from './work.js';

/** How long a calibration times decodes, unless it is said. */
export const CALIBRATION_SECONDS = 4;

/** Fitted prices of a model's phases, and when they were measured. */
export interface Calibration {
  latency: LatencyModel;
  /** ISO date and time. */
  measured: string;
  /** Whether other work disturbed the timings: then they are of little use later, and are not kept. */
  busy: boolean;
}

const KIND = 'latency';
const TYPICAL_POSITION = 128;

type ShapedCheckpoint = Pick<Checkpoint, 'config' | 'tensors'>;

/**
 * What an earlier calibration of a model of this shape on this machine gave; undefined when there is none that still
 * holds.
 */
export async function findCalibration(
  checkpoint: ShapedCheckpoint,
  placement: TimedPlacement,
): Promise<Calibration | undefined> {
  const { rates, measured } = Object(await readCache(KIND, identityOf(checkpoint, placement))) as {
    rates?: unknown;
    measured?: unknown;
  };
  if (!areRates(rates) || typeof measured !== 'string' || Number.isNaN(Date.parse(measured))) return undefined;
  return {
    latency: new LatencyModel(modelBytes(checkpoint, placement.kvCache, cpuLimits()), placement, rates),
    measured,
    busy: false,
  };
}

/**
 * The calibration of an earlier run, or a new one, which is kept for later runs unless the machine was busy. Rejects with ABORTED;
 * DISPOSED.
 */
export async function calibration(
  model: Model,
  checkpoint: ShapedCheckpoint,
  options: Partial<TimingOptions> = {},
): Promise<Calibration> {
  return (await findCalibration(checkpoint, model)) ?? calibrateAnew(model, checkpoint, options);
}

/**
 * A new one, whatever is known. Times other decodes in the same turns, see `calibrate`: [others][timings] milliseconds.
 */
export async function calibrateAnew(
  model: Model,
  checkpoint: ShapedCheckpoint,
  options: Partial<TimingOptions> = {},
  others: readonly Decode[] = [],
): Promise<Calibration & { others: number[][] }> {
  const { seconds = CALIBRATION_SECONDS, ...rest } = options;
  const bytes = modelBytes(checkpoint, model.kvCache, cpuLimits());
  const { result, busy } = await watchBusy(
    model,
    () => calibrate(model, bytes, { seconds, ...rest }, others),
    ({ scatter }) => scatter,
  );
  const { latency, others: timings } = result;
  const measured = new Date().toISOString();
  if (!busy) await writeCache(KIND, identityOf(checkpoint, model), { rates: latency.rates, measured });
  return { latency, measured, busy, others: timings };
}

/** Where a plan's time is predicted unless it is said: after a short text. */
export function typicalPosition({ contextLength }: Pick<ModelConfig, 'contextLength'>): DecodePosition {
  return { position: Math.min(TYPICAL_POSITION, Math.floor(contextLength / 2)), logits: true };
}

function identityOf(checkpoint: ShapedCheckpoint, placement: TimedPlacement): CacheIdentity {
  return timingIdentity(describeMachine(), placement, checkpoint);
}

function areRates(value: unknown): value is Rates {
  const rates = Object(value) as Partial<Rates>;
  return (
    WORK_KINDS.every((kind) => Number.isFinite(rates[kind]) && rates[kind]! >= 0) &&
    WORK_KINDS.some((kind) => rates[kind]! > 0)
  );
}
