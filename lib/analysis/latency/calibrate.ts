import type { ModelConfig } from '../../checkpoint/types.js';
import { quantile } from '../eval/statistics.js';
import { compilePlan, type Model } from '../../model/model.js';
import { resolvePlan, type Plan } from '../../plan/plan.js';
import { LatencyModel, type TimedDecode } from './latency_model.js';
import { timeDecodes, typical, type Decode, type TimingOptions } from './time_decodes.js';
import type { Computing, ModelBytes } from './work.js';

/** Positions at which tokens are timed: one at which keys and values hardly count, and those at which they do. */
const NEAR = 16;
const FAR = [128, 512];

/**
 * Decodes whose times tell the kinds of work apart: with and without logits, near and far, stages and lanes of every
 * size.
 */
export function calibrationDecodes(config: Pick<ModelConfig, 'nLayers' | 'contextLength'>): Decode[] {
  const layers = config.nLayers;
  const near = Math.min(NEAR, Math.floor((config.contextLength - 1) / 4));
  const last = config.contextLength - 1;
  const sequential = resolvePlan('sequential', layers);
  const decodes: Decode[] = [
    { plan: sequential, execution: 'wide', at: { position: near, logits: true } },
    { plan: sequential, execution: 'wide', at: { position: near, logits: false } },
    ...FAR.map((position): Decode => ({
      plan: sequential,
      execution: 'wide',
      at: { position: Math.min(position, last), logits: true },
    })),
  ];
  for (const [size, bypass] of [
    [2, 0],
    [2, 1],
    [3, 0],
    [4, 0],
  ] as const) {
    if (size > layers) continue;
    const plan = evenPlan(layers, size, bypass);
    for (const execution of ['wide', 'lanes'] as const)
      decodes.push({ plan, execution, at: { position: near, logits: true } });
  }
  return decodes;
}

/**
 * Fitted prices, and how much the timings scattered: of typical times over the least ones, the median excess, a
 * fraction.
 */
export interface Fit {
  latency: LatencyModel;
  scatter: number;
}

/** The quantile of timings that disturbances hardly reach. They make waiting longer, so they hit plans unequally. */
const UNDISTURBED = 0.25;

/**
 * Times a few plans on a model and fits what its work costs. How plans compare is taken from their faster tokens, the
 * level from typical ones. Other decodes can be timed in the same turns: what the machine does then falls on both.
 * Rejects with ABORTED; DISPOSED.
 */
export async function calibrate(
  model: Model,
  bytes: ModelBytes,
  options: TimingOptions,
  others: readonly Decode[] = [],
): Promise<Fit & { others: number[][] }> {
  const decodes = calibrationDecodes(model.config);
  const timings = await timeDecodes(model, [...decodes, ...others], options);
  return {
    ...fitTimings(model, bytes, decodes, timings.slice(0, decodes.length)),
    others: timings.slice(decodes.length),
  };
}

function fitTimings(model: Model, bytes: ModelBytes, decodes: readonly Decode[], timings: readonly number[][]): Fit {
  const level = quantile(
    timings.map((ms) => typical(ms) / quantile(ms, UNDISTURBED)),
    0.5,
  );
  const timed = decodes.map(({ plan, execution, at }, i): TimedDecode => ({
    program: compilePlan(model.config, plan),
    execution,
    at,
    ms: level * quantile(timings[i]!, UNDISTURBED),
  }));
  const scatter = quantile(
    timings.map((ms) => typical(ms) / quantile(ms, 0) - 1),
    0.5,
  );
  return { latency: LatencyModel.fit(bytes, computingOf(model), timed), scatter };
}

function computingOf({ backend, threads }: Model): Computing {
  return { backend, threads };
}

/** Groups of one size over all layers, as many as fit. */
function evenPlan(layers: number, size: number, bypass: number): Plan {
  return resolvePlan(
    {
      version: 1,
      layers,
      groups: Array.from({ length: Math.floor(layers / size) }, (_, g) =>
        Array.from({ length: size }, (_, i) => g * size + i),
      ),
      bypass,
      bypassMode: 'paper',
    },
    layers,
  );
}
