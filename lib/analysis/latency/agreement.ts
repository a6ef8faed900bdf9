import { quantile, rankCorrelation } from '../eval/statistics.js';
import { typical } from './time_decodes.js';

/** One plan in one execution: what was predicted, and every timing. */
export interface Trial {
  /** Which plan, by any number. */
  plan: number;
  execution: 'wide' | 'lanes';
  predictedMs: number;
  timingsMs: readonly number[];
}

/** How well predictions tell plans apart. */
export interface Ranking {
  /** Between predictions and measurements, over plans. NaN for fewer than two plans. */
  rankCorrelation: number;
  /** The correlation between even and odd measurements: what noise leaves of it. */
  repeatability: number;
}

export interface Agreement {
  /** |predicted / measured − 1| over all trials. */
  error: { median: number; max: number };
  /** Over the plans in one execution; `fastest`, of each plan in the faster one. */
  ranking: Record<'wide' | 'lanes' | 'fastest', Ranking>;
}

/**
 * Compares predictions with measurements of at least one trial. A plan that was tried in one execution only counts as
 * it for both.
 */
export function agreement(trials: readonly Trial[]): Agreement {
  const errors = trials.map(({ predictedMs, timingsMs }) => Math.abs(predictedMs / typical(timingsMs) - 1));
  const byPlan = [...new Set(trials.map(({ plan }) => plan))].map((plan) =>
    trials.filter((trial) => trial.plan === plan),
  );
  const of = (execution: 'wide' | 'lanes') =>
    byPlan.map((own) => [own.find((trial) => trial.execution === execution) ?? own[0]!]);
  return {
    error: { median: quantile(errors, 0.5), max: Math.max(...errors) },
    ranking: { wide: ranking(of('wide')), lanes: ranking(of('lanes')), fastest: ranking(byPlan) },
  };
}

/** @param plans the trials of each, the fastest of which counts. */
function ranking(plans: ReadonlyArray<readonly Trial[]>): Ranking {
  const least = (value: (trial: Trial) => number): number[] => plans.map((own) => Math.min(...own.map(value)));
  const half = (rest: number) => least(({ timingsMs }) => typical(timingsMs.filter((_, i) => i % 2 === rest)));
  return {
    rankCorrelation: rankCorrelation(
      least(({ predictedMs }) => predictedMs),
      least(({ timingsMs }) => typical(timingsMs)),
    ),
    repeatability: rankCorrelation(half(0), half(1)),
  };
}
