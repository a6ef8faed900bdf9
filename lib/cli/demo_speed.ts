import { medianInterval, quantile } from '../analysis/eval/statistics.js';
import { watchBusy } from '../analysis/latency/busy.js';
import type { Model } from '../model/model.js';
import type { Plan } from '../plan/plan.js';
import { scatter, timeContenders } from '../analysis/latency/timing.js';

/** The median, the least and the greatest of the values of all rounds. */
export interface Spread {
  min: number;
  median: number;
  max: number;
}

export interface PlanSpeed {
  plan: Plan;
  phases: number;
  msPerToken: Spread;
  /**
   * How much the time per token differs from the first plan's in the same round, as a fraction: −0.1 is a tenth less.
   */
  change: Spread;
}

export interface Speeds {
  rows: PlanSpeed[];
  rounds: number;
  /** Whether every plan is known to be faster, or known to be slower, than the first. */
  certain: boolean;
  /** Whether the machine was busy with something else meanwhile. */
  busy: boolean;
}

const WORKLOAD = { promptTokens: 16, tokens: 32 };
const FIRST_ROUNDS = 8;
const MORE_ROUNDS = 4;
/**
 * Confidence of each test. The test is repeated after every few rounds, so the final answer is somewhat less certain.
 */
const CONFIDENCE = 0.99;

/**
 * Times plans in interleaved rounds until each is certain to be faster or slower than the first, or the time is up.
 * Rejects with ABORTED.
 */
export async function timeUntilCertain(
  model: Model,
  plans: readonly Plan[],
  { seconds, signal, onProgress }: { seconds: number; signal: AbortSignal; onProgress: (share: number) => void },
): Promise<Speeds> {
  const contenders = plans.map((plan) => ({ plan, execution: 'auto' as const }));
  const roundsOf = plans.map((): number[] => []);
  const changesOf = (of: number): number[] => roundsOf[of]!.map((ms, round) => ms / roundsOf[0]![round]! - 1);
  const isCertain = (): boolean =>
    plans.every((_, of) => {
      const [low, high] = medianInterval(changesOf(of), CONFIDENCE);
      return of === 0 || low > 0 || high < 0;
    });
  const started = performance.now();
  const spent = (): number => (performance.now() - started) / 1000 / seconds;
  const measure = async (): Promise<void> => {
    do {
      const repeat = roundsOf[0]!.length === 0 ? FIRST_ROUNDS : MORE_ROUNDS;
      const timings = await timeContenders(
        model,
        contenders,
        { ...WORKLOAD, repeat },
        { signal, onProgress: () => onProgress(Math.min(1, spent())) },
      );
      for (const [of, { roundMsPerToken }] of timings.entries()) roundsOf[of]!.push(...roundMsPerToken);
    } while (!isCertain() && spent() < 1);
  };
  const { busy } = await watchBusy(model, measure, () => scatter(roundsOf));
  const rows = plans.map((plan, of): PlanSpeed => ({
    plan,
    phases: model.program(plan).layerPhases,
    msPerToken: spread(roundsOf[of]!),
    change: spread(changesOf(of)),
  }));
  return { rows, rounds: roundsOf[0]!.length, certain: isCertain(), busy };
}

function spread(values: readonly number[]): Spread {
  return { min: quantile(values, 0), median: quantile(values, 0.5), max: quantile(values, 1) };
}
