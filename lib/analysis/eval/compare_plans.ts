import { CqilError } from '../../errors.js';
import type { Model } from '../../model/model.js';
import { Pace } from '../../util/pace.js';
import { formatPlan, type Plan } from '../../plan/plan.js';
import type { Session } from '../../session/session.js';
import type { NextToken } from './divergence.js';
import { LOGITS_SLICE, nextTokens } from './next_tokens.js';
import type { MeasureOptions, Perplexity } from './perplexity.js';
import { estimate, quantile, type Estimate } from './statistics.js';
import type { Window } from './windows.js';

export interface TextQuality extends Perplexity {
  /**
   * The standard error of `nll`, taking tokens as independent. `perplexityStandardError` follows by the delta method:
   * perplexity · this.
   */
  nllStandardError: number;
  perplexityStandardError: number;
  /** KL(baseline ‖ plan) per scored token, nats; 0 for the baseline itself. */
  kl: Estimate & { p99: number };
  /** Share of scored tokens at which plan and baseline have the same most likely token. */
  topAgreement: number;
}

/**
 * One plan on one window: the negative log-likelihood of each scored token and its KL from the baseline, in nats, and
 * how often both agree on the likeliest.
 */
export interface WindowScore {
  nll: number[];
  kl: number[];
  sameTop: number;
}

export interface CompareOptions extends MeasureOptions {
  /** Where finished windows are kept, and taken from. */
  resume?: {
    getWindow(window: number): WindowScore[] | undefined;
    addWindow(entry: { window: number; scores: WindowScore[] }): Promise<void>;
  };
}

interface Tally extends WindowScore {
  session: Session;
}

/**
 * Measures plans on a text, and how far each is at every scored token from the first of them, the baseline. All run
 * side by side, slice by slice, so that logits [tokens][vocabSize] are never held for a whole window. Rejects with
 * NOT_FINITE, naming the plan, or with ABORTED; windows finished by then are in `resume`, and give the same numbers as
 * if they were computed again.
 *
 * @returns one entry per plan, in their order.
 */
export async function comparePlans(
  model: Model,
  plans: readonly Plan[],
  windows: readonly Window[],
  options: CompareOptions = {},
): Promise<TextQuality[]> {
  const { execution, signal, onProgress, resume } = options;
  const contextLength = Math.max(...windows.map(({ ids }) => ids.length));
  const total = windows.reduce((sum, { ids }) => sum + ids.length, 0);
  const pace = new Pace(signal);
  const sessions: Session[] = [];
  const all: WindowScore[] = plans.map(() => ({ nll: [], kl: [], sameTop: 0 }));
  let done = 0;
  try {
    for (const plan of plans)
      sessions.push(model.createSession({ plan: await model.prepare(plan), execution, contextLength }));
    for (const [index, window] of windows.entries()) {
      let scores = resume?.getWindow(index);
      if (scores) expectTokens(scores, window, index);
      else {
        scores = await compareWindow(sessions, window, pace, signal, (tokens) => onProgress?.(done + tokens, total));
        await resume?.addWindow({ window: index, scores });
      }
      for (const [i, { nll, kl, sameTop }] of scores.entries()) {
        const sum = all[i]!;
        for (const value of nll) sum.nll.push(value);
        for (const value of kl) sum.kl.push(value);
        sum.sameTop += sameTop;
      }
      done += window.ids.length;
      onProgress?.(done, total);
    }
    return all.map(summarize);
  } finally {
    for (const session of sessions) session.close();
  }
}

/** A resume file that somebody edited must not bring numbers of something else. */
function expectTokens(scores: readonly WindowScore[], { ids, firstScored }: Window, index: number): void {
  const expected = ids.length - firstScored;
  const wrong = scores.find(({ nll }) => nll.length !== expected);
  if (wrong)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The resume file has ${wrong.nll.length} scores for window ${index}; expected one for each of ${expected} ` +
        'tokens.',
    );
}

async function compareWindow(
  sessions: readonly Session[],
  { ids, firstScored }: Window,
  pace: Pace,
  signal: AbortSignal | undefined,
  onProgress: (tokens: number) => void,
): Promise<WindowScore[]> {
  const tallies = sessions.map((session): Tally => ({ session, nll: [], kl: [], sameTop: 0 }));
  for (const { session } of tallies) {
    session.truncate(0);
    // The logits after token i score token i + 1, so the ones after these are not needed.
    if (firstScored > 1) await ofPlan(session, session.prefill(ids.slice(0, firstScored - 1), { signal }));
  }
  for (let from = firstScored - 1; from + 1 < ids.length; from += LOGITS_SLICE) {
    const targets = ids.slice(from + 1, from + 1 + LOGITS_SLICE);
    await compareSlice(tallies, ids.slice(from, from + targets.length), targets, pace, signal);
    onProgress(from + targets.length);
  }
  return tallies.map(({ nll, kl, sameTop }) => ({ nll, kl, sameTop }));
}

/** Adds the plan to a NOT_FINITE error: several plans run at a time, and the error must say which one failed. */
async function ofPlan<T>(session: Session, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof CqilError) || error.code !== 'NOT_FINITE') throw error;
    throw new CqilError('NOT_FINITE', `The plan ${formatPlan(session.plan)}: ${error.message}`, { cause: error });
  }
}

async function compareSlice(
  tallies: Tally[],
  slice: number[],
  targets: number[],
  pace: Pace,
  signal: AbortSignal | undefined,
): Promise<void> {
  let baseline: NextToken[] | undefined;
  for (const tally of tallies) {
    const rows = await ofPlan(tally.session, nextTokens(tally.session, slice, pace, signal));
    baseline ??= rows;
    for (const [i, target] of targets.entries()) {
      const { kl, sameTop } = baseline[i]!.divergence(rows[i]!);
      tally.nll.push(-rows[i]!.logProb(target));
      tally.kl.push(kl);
      if (sameTop) tally.sameTop++;
      await pace.pause();
    }
  }
}

function summarize({ nll: values, kl, sameTop }: WindowScore): TextQuality {
  const nll = estimate(values);
  const perplexity = Math.exp(nll.mean);
  return {
    tokens: values.length,
    nll: nll.mean,
    nllStandardError: nll.standardError,
    perplexity,
    perplexityStandardError: perplexity * nll.standardError,
    kl: { ...estimate(kl), p99: quantile(kl, 0.99) },
    topAgreement: sameTop / values.length,
  };
}
