import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Checkpoint } from '../../checkpoint/types.js';
import { CqilError } from '../../errors.js';
import { counted } from '../../util/count.js';
import { textWindows, type Window } from '../eval/windows.js';
import type { Model } from '../../model/model.js';
import type { Plan } from '../../plan/plan.js';
import type { RecoveredPlan } from './outcome.js';
import { Recovery } from './recovery.js';

/** Members times width of a group at most: the moments of the widest take this squared, in float64. */
const WIDEST_GROUP = 4096;
/** Three fifths of these fit corrections, one chooses, one measures. */
const LEAST_TOKENS = 320;
const SHARES = [0.6, 0.8] as const;
/** Longer windows than this tell little more about a group. */
const LONGEST_WINDOW = 512;

export interface RecoverOptions {
  /** Rank of a correction at most. */
  rank: number;
  /** Tokens per window. Default: `recoverWindow`. */
  window?: number;
  signal?: AbortSignal;
  /** Told how far the work is, 0 to 1. */
  onProgress?: (share: number) => void;
}

/** The model's context length, a fifth of the tokens or 512, whichever is least. */
export function recoverWindow(model: Pick<Model, 'config'>, tokens: number): number {
  return Math.min(Math.floor(tokens / 5), model.config.contextLength, LONGEST_WINDOW);
}

/**
 * Fits, group by group in the order of the layers, low-rank corrections of what a group lacks of the sequential model
 * because its members do not see one another's outputs: of the inputs n of each member's attention and MLP, n + U Vᵀ n,
 * and of the group's output, y + Σ_j E_j m_j. All are linear in something a weight produces or reads, so they become
 * updates of the weights, a LoRA adapter, and take no time at run time. Each is kept when it lowers the KL divergence
 * from the sequential model on a part of the text it was not fitted on. Nothing is trained, and nothing is random.
 *
 * @throws CqilError INVALID_PLAN for a plan without groups or with an adapter; UNSUPPORTED_MODEL for a formula with norms
 * after blocks, offsets of norms or a multiplier of blocks; INVALID_ARGUMENT for a group too wide or too few tokens;
 * NOT_FINITE for values that are infinite or not numbers; ABORTED; DISPOSED.
 */
export async function recoverPlan(
  model: Model,
  checkpoint: Checkpoint,
  plan: Plan,
  ids: readonly number[],
  options: RecoverOptions,
): Promise<RecoveredPlan> {
  const { rank, signal, onProgress, window = recoverWindow(model, ids.length) } = options;
  expectRecoverable(model, plan, ids, window);
  const [fitEnd, chooseEnd] = SHARES.map((share) => Math.round(ids.length * share)) as [number, number];
  const parts = [ids.slice(0, fitEnd), ids.slice(fitEnd, chooseEnd), ids.slice(chooseEnd)];
  const [fit, choose, heldOut] = parts.map((part) => textWindows(part, window, 'gptq', undefined)) as [
    Window[],
    Window[],
    Window[],
  ];
  const folder = await temporaryFolder();
  const recovery = new Recovery({
    model,
    checkpoint,
    plan: { ...plan, evidence: undefined },
    fit,
    choose,
    folder,
    rank,
    signal,
    onProgress,
  });
  try {
    const sites = await recovery.run();
    const quality = await recovery.measure(heldOut);
    const [fitTokens, chooseTokens, heldOutTokens] = parts.map((part) => part.length) as [number, number, number];
    return { updates: recovery.updates, sites, heldOut: quality, window, fitTokens, chooseTokens, heldOutTokens };
  } finally {
    await rm(folder, { recursive: true, force: true });
    recovery.close();
  }
}

async function temporaryFolder(): Promise<string> {
  const parent = tmpdir();
  try {
    return await mkdtemp(path.join(parent, 'cqil-recover-'));
  } catch (cause) {
    throw new CqilError(
      'FILE_NOT_FOUND',
      `No folder can be made in ${parent} (${(cause as Error).message}); expected a folder for temporary files that ` +
        'can be written to, which the environment names (TMPDIR, or TEMP on Windows).',
      { cause },
    );
  }
}

function expectRecoverable(model: Model, plan: Plan, ids: readonly number[], window: number): void {
  if (plan.groups.length === 0)
    throw new CqilError(
      'INVALID_PLAN',
      'The plan has no groups, so there is nothing to recover; expected a plan with at least one.',
    );
  if (plan.adapter !== undefined)
    throw new CqilError(
      'INVALID_PLAN',
      `The plan has the adapter ${plan.adapter} already; expected a plan without one.`,
    );
  const { normOffset, postNorms, residualScale } = model.config.formula;
  if (normOffset !== 0 || postNorms || residualScale !== 1)
    throw new CqilError(
      'UNSUPPORTED_MODEL',
      `The formula of ${model.config.architecture} is not LLaMA's, for which corrections are fitted; expected a model ` +
        'without norms after its blocks, offsets of norms and multipliers of blocks.',
    );
  const members = Math.max(...plan.groups.map((group) => group.length));
  if (members * model.config.dim > WIDEST_GROUP) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      `A group of the plan has ${members} layers of width ${model.config.dim}, ${members * model.config.dim} ` +
        `together; expected at most ${WIDEST_GROUP}, because memory grows with the square.`,
    );
  }
  if (ids.length < LEAST_TOKENS)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The text has ${counted(ids.length, 'token')}, expected at least ${LEAST_TOKENS}: three fifths fit ` +
        'corrections, one chooses and one measures.',
    );
  const { contextLength } = model.config;
  if (window > contextLength)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The window is ${window} tokens, expected at most the model's context length, ${contextLength}.`,
    );
}
