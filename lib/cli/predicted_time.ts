import { findCalibration, typicalPosition } from '../analysis/latency/calibration.js';
import type { Prediction } from '../analysis/latency/latency_model.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { compilePlan } from '../model/model.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { counted } from '../util/count.js';
import { formatTable } from './table.js';
import { ifEngine, placementOn, type UnloadedOptions } from './unloaded.js';

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
 * From prices that an earlier `cqil plan latency` or `cqil plan search` has measured; undefined without them, and where
 * the engine, whose prices they are, cannot run. Loads no weights.
 */
export function predictedTime(
  plan: Plan,
  checkpoint: Checkpoint,
  options: UnloadedOptions,
): Promise<PredictedTime | undefined> {
  return ifEngine(async () => {
    const { config } = checkpoint;
    const at = typicalPosition(config);
    for (const backend of options.backend === 'auto' ? (['cuda', 'cpu'] as const) : [options.backend]) {
      const placement = placementOn(backend, checkpoint, options);
      const found = await findCalibration(checkpoint, placement);
      if (!found) continue;
      const price = (of: Plan): Prediction => found.latency.predict(compilePlan(config, of), 'auto', at);
      return {
        plan: price(plan),
        sequential: price(resolvePlan('sequential', config.nLayers)),
        position: at.position,
        backend,
        threads: placement.threads,
        calibrated: found.measured,
      };
    }
    return undefined;
  });
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
