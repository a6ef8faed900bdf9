import { LinesFile, type LinesIdentity } from '../../util/lines_file.js';
import type { WindowScore } from './compare_plans.js';
import type { ItemScore } from './score_item.js';

/** What a run computes. Two runs with the same one give the same numbers. */
export interface RunIdentity extends LinesIdentity {
  cqil: 'eval';
  plans: string[];
}

/** A finished question: the task in the run, the item in the whole task, and scores, one per plan. */
interface ItemEntry {
  task: number;
  item: number;
  scores: ItemScore[];
}

/** A finished window of the text, and its scores, one per plan. */
interface WindowEntry {
  window: number;
  scores: WindowScore[];
}

/** Finished questions and windows, kept in a file of JSON lines that says what the run is. */
export class ResumeFile {
  readonly #lines: LinesFile;
  readonly #done: Finished;

  private constructor(lines: LinesFile, done: Finished) {
    this.#lines = lines;
    this.#done = done;
  }

  /**
   * Opens a file, or makes it.
   *
   * @throws CqilError INVALID_ARGUMENT for a file of another run, or of no run; FILE_NOT_FOUND for one that cannot be
   * read or written.
   */
  static async open(path: string, identity: RunIdentity): Promise<ResumeFile> {
    const plans = identity.plans.length;
    const words = {
      name: 'resume file',
      isNone: 'is no resume file',
      has: 'is of a run with',
      user: 'run',
      line: `a finished question or window with the scores of ${plans} plans`,
    };
    const done = new Finished(plans);
    return new ResumeFile(await LinesFile.open(path, identity, words, (line) => done.keep(line)), done);
  }

  /** The scores of an item that was finished before. */
  get(task: number, item: number): ItemScore[] | undefined {
    return this.#done.items.get(`${task} ${item}`);
  }

  async add(entry: ItemEntry): Promise<void> {
    await this.#lines.append(entry);
  }

  /** The scores of a window that was finished before. */
  getWindow(window: number): WindowScore[] | undefined {
    return this.#done.windows.get(window);
  }

  /** Keeps a window, unless it has numbers that JSON cannot hold: it is then computed again. */
  async addWindow(entry: WindowEntry): Promise<void> {
    if (entry.scores.every(isWindowScore)) await this.#lines.append(entry);
  }

  async close(): Promise<void> {
    await this.#lines.close();
  }
}

class Finished {
  readonly items = new Map<string, ItemScore[]>();
  readonly windows = new Map<number, WindowScore[]>();

  constructor(readonly plans: number) {}

  /** Whether a line is a finished question or window. */
  keep({ task, item, window, scores }: Partial<Record<keyof ItemEntry | keyof WindowEntry, unknown>>): boolean {
    if (!Array.isArray(scores) || scores.length !== this.plans) return false;
    if (isIndex(task) && isIndex(item) && scores.every(isItemScore)) this.items.set(`${task} ${item}`, scores);
    else if (isIndex(window) && scores.every(isWindowScore)) this.windows.set(window, scores);
    else return false;
    return true;
  }
}

function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isItemScore(value: unknown): value is ItemScore {
  const { logLikelihoods, greedy } = Object(value) as Partial<ItemScore>;
  return (
    Array.isArray(logLikelihoods) &&
    logLikelihoods.length > 0 &&
    logLikelihoods.every((score) => typeof score === 'number') &&
    (greedy === undefined || typeof greedy === 'boolean')
  );
}

function isWindowScore(value: unknown): value is WindowScore {
  const { nll, kl, sameTop } = Object(value) as Partial<WindowScore>;
  return areFinite(nll) && areFinite(kl) && nll.length === kl.length && isIndex(sameTop) && sameTop <= nll.length;
}

function areFinite(values: unknown): values is number[] {
  return Array.isArray(values) && values.length > 0 && values.every((value) => Number.isFinite(value));
}
