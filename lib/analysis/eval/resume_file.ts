import { open, readFile, type FileHandle } from 'node:fs/promises';
import { appendLine } from '../../util/append_line.js';
import { CqilError } from '../../errors.js';
import type { WindowScore } from './compare_plans.js';
import type { ItemScore } from './score_item.js';

/** What a run computes. Two runs with the same one give the same numbers. */
export interface RunIdentity {
  cqil: 'eval';
  plans: string[];
  [field: string]: unknown;
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

const MAX_BYTES = 1 << 30;

/**
 * Finished questions and windows as JSON lines, after one line that says what the run is. Each is written when it is
 * done, so that a run that was stopped can go on where it was. A last line that was not finished is dropped.
 */
export class ResumeFile {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #done: Finished;

  private constructor(file: FileHandle, path: string, done: Finished) {
    this.#file = file;
    this.#path = path;
    this.#done = done;
  }

  /**
   * Opens a file, or makes it.
   *
   * @throws CqilError INVALID_ARGUMENT for a file of another run, or of no run; FILE_NOT_FOUND for one that cannot be
   * read or written.
   */
  static async open(path: string, identity: RunIdentity): Promise<ResumeFile> {
    const header = `${JSON.stringify(identity)}\n`;
    let file: FileHandle | undefined;
    try {
      file = await open(path, 'a+');
      const { size } = await file.stat();
      if (size > MAX_BYTES)
        throw new CqilError(
          'INVALID_ARGUMENT',
          `The resume file ${path} has ${size} bytes, expected at most ${MAX_BYTES}.`,
        );
      const text = await readFile(file, 'utf8');
      const whole = text.slice(0, text.lastIndexOf('\n') + 1);
      // Only what this run began to write may be dropped: the file could be anything.
      if (whole === '' && !header.startsWith(text)) throw notOurs(path);
      const done = whole === '' ? new Finished() : readLines(whole, path, identity);
      await file.truncate(Buffer.byteLength(whole));
      if (whole === '') await file.appendFile(header);
      return new ResumeFile(file, path, done);
    } catch (error) {
      await file?.close();
      if (error instanceof CqilError) throw error;
      throw new CqilError('FILE_NOT_FOUND', `The resume file ${path} cannot be used: ${(error as Error).message}.`, {
        cause: error,
      });
    }
  }

  /** The scores of an item that was finished before. */
  get(task: number, item: number): ItemScore[] | undefined {
    return this.#done.items.get(`${task} ${item}`);
  }

  async add(entry: ItemEntry): Promise<void> {
    await this.#append(entry);
  }

  /** The scores of a window that was finished before. */
  getWindow(window: number): WindowScore[] | undefined {
    return this.#done.windows.get(window);
  }

  /** Keeps a window, unless it has numbers that JSON cannot hold: it is then computed again. */
  async addWindow(entry: WindowEntry): Promise<void> {
    if (entry.scores.every(isWindowScore)) await this.#append(entry);
  }

  #append(entry: ItemEntry | WindowEntry): Promise<void> {
    return appendLine(this.#file, `The resume file ${this.#path}`, entry);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

class Finished {
  readonly items = new Map<string, ItemScore[]>();
  readonly windows = new Map<number, WindowScore[]>();
}

function readLines(text: string, path: string, identity: RunIdentity): Finished {
  const [first, ...lines] = text.split('\n').slice(0, -1);
  expectSameRun(parse(first!), path, identity);
  const plans = identity.plans.length;
  const done = new Finished();
  for (const [i, line] of lines.entries()) {
    const { task, item, window, scores } = Object(parse(line)) as Partial<ItemEntry & WindowEntry>;
    if (Array.isArray(scores) && scores.length === plans) {
      if (isIndex(task) && isIndex(item) && scores.every(isItemScore)) {
        done.items.set(`${task} ${item}`, scores);
        continue;
      }
      if (isIndex(window) && scores.every(isWindowScore)) {
        done.windows.set(window, scores);
        continue;
      }
    }
    throw new CqilError(
      'INVALID_ARGUMENT',
      `Line ${i + 2} of the resume file ${path} is damaged; expected a finished question or window with the scores ` +
        `of ${plans} plans.`,
    );
  }
  return done;
}

function expectSameRun(found: unknown, path: string, identity: RunIdentity): void {
  if (typeof found !== 'object' || found === null || !('cqil' in found)) throw notOurs(path);
  for (const [name, expected] of Object.entries(identity)) {
    const [was, is] = [JSON.stringify((found as Record<string, unknown>)[name]), JSON.stringify(expected)];
    if (was !== is)
      throw new CqilError(
        'INVALID_ARGUMENT',
        `The resume file ${path} is of a run with ${name} ${was ?? 'missing'}; expected ${is}, as in this run, or ` +
          'another file.',
      );
  }
}

function notOurs(path: string): CqilError {
  return new CqilError(
    'INVALID_ARGUMENT',
    `The file ${path} is no resume file; expected one that cqil eval wrote, or none.`,
  );
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
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
