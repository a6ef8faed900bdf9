import { chooseActivations } from '../engine/activations.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { chooseKvCache } from '../engine/kv_cache.js';
import { findCalibration, typicalPosition } from '../analysis/latency/calibration.js';
import type { Prediction } from '../analysis/latency/latency_model.js';
import { defaultThreads, describeMachine } from '../engine/machine.js';
import { compilePlan } from '../model/model.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { counted } from '../util/count.js';
import type { BackendOptions } from './options.js';
import { formatTable } from './table.js';

/** What a plan's time is predicted to be on this machine, and that of sequential. */
export interface PredictedTime {
  plan: Prediction;
  sequential: Prediction;
  /** Tokens before the one whose time it is. */
  position: number;
  backend: 'cpu' | 'cuda';
  threads: number;
  /** When prices were measured, ISO date and time. */
  calibrated: string;
}

/**
 * From prices that an earlier `cqil plan latency` or `cqil plan search` has measured; undefined without them. Loads no
 * weights.
 */
export async function predictedTime(
  plan: Plan,
  checkpoint: Checkpoint,
  options: BackendOptions,
): Promise<PredictedTime | undefined> {
  try {
    return await predict(plan, checkpoint, options);
  } catch (error) {
    // Plans can be explained where the engine cannot run; prices are of the engine.
    if (error instanceof CqilError && error.code === 'NATIVE_ADDON') return undefined;
    throw error;
  }
}

async function predict(
  plan: Plan,
  checkpoint: Checkpoint,
  { backend, threads = defaultThreads(checkpoint), kvCache, activations }: BackendOptions,
): Promise<PredictedTime | undefined> {
  const { config } = checkpoint;
  const at = typicalPosition(config);
  for (const tried of backend === 'auto' ? (['cuda', 'cpu'] as const) : [backend]) {
    const chosen = chooseActivations(activations, tried, checkpoint.tensors, describeMachine);
    const found = await findCalibration(checkpoint, {
      backend: tried,
      threads,
      kvCache: chooseKvCache(kvCache, chosen, checkpoint.tensors),
      activations: chosen,
    });
    if (!found) continue;
    const price = (of: Plan): Prediction => found.latency.predict(compilePlan(config, of), 'auto', at);
    return {
      plan: price(plan),
      sequential: price(resolvePlan('sequential', config.nLayers)),
      position: at.position,
      backend: tried,
      threads,
      calibrated: found.measured,
    };
  }
  return undefined;
}

export function formatPredictedTime({
  plan,
  sequential,
  position,
  backend,
  threads,
  calibrated,
}: PredictedTime): string {
  const less = (1 - plan.msPerToken / sequential.msPerToken) * 100;
  const where = backend === 'cuda' ? 'on the GPU' : `with ${counted(threads, 'thread')}`;
  const cells = plan.phases.map(({ kind, count, ms }, i) => [
    kind,
    String(count),
    ms.toFixed(4),
    String(sequential.phases[i]!.count),
    sequential.phases[i]!.ms.toFixed(4),
  ]);
  cells.push(['all', '', plan.msPerToken.toFixed(4), '', sequential.msPerToken.toFixed(4)]);
  return (
    `Predicted for this machine ${where}, after ${position} tokens: ${plan.msPerToken.toPrecision(3)} ms per ` +
    `token (${plan.execution}) instead of ${sequential.msPerToken.toPrecision(3)}, ${less.toFixed(0)} % less; ` +
    `prices measured ${calibrated}.\n\n${formatTable(['phases', 'plan', 'ms', 'sequential', 'ms'], cells)}`
  );
}
