// Published templates take 30 to 80 operations for a message, which is three values, and up to 1,300 for a tool.
const OPERATIONS = 20_000;
const OPERATIONS_PER_VALUE = 1_000;
const WORK = 8 << 20;
const WORK_PER_CHARACTER = 256;
// Some templates look through all messages for each message.
const WORK_PER_VALUE = 16_384;
const TEXT = 2 << 20;
const TEXT_PER_CHARACTER = 16;
const MAX_DEPTH = 1_000;
/** Milliseconds that rendering may take. */
export const MAX_MS = 2_000;
// Looking at the clock takes a tenth of the time of an operation.
const OPERATIONS_PER_LOOK = 16;

/** A template asked for more than the messages can need. */
export class BudgetError extends Error {}

/** A template took more time than it was given. */
export class TimeError extends BudgetError {}

/** How many values there are, and how many characters they hold. */
export interface Size {
  values: number;
  characters: number;
}

/**
 * Limits on what rendering a template may cost, so that none can exhaust the memory or hold up the event loop: operations
 * of the interpreter, characters and elements that are made or looked through, the length of one text, and time. The first
 * three limits grow with what the template is given.
 */
export class Budget {
  readonly #maxOperations: number;
  readonly #maxWork: number;
  readonly #maxText: number;
  readonly #maxMs: number;
  readonly #until: number;
  #operations = 0;
  #work = 0;
  #depth = 0;

  /**
   * `given`: what the template gets. `started`: when its time began, by performance.now(). `maxMs`: how long it may
   * take.
   */
  constructor(given: Size, started = performance.now(), maxMs = MAX_MS) {
    this.#maxMs = maxMs;
    this.#until = started + maxMs;
    this.#maxOperations = OPERATIONS + OPERATIONS_PER_VALUE * given.values;
    this.#maxWork = WORK + WORK_PER_VALUE * given.values + WORK_PER_CHARACTER * given.characters;
    this.#maxText = TEXT + TEXT_PER_CHARACTER * given.characters;
  }

  /** Begins an operation, one level deeper in the template; `leave` ends it. */
  enter(): void {
    if (++this.#depth > MAX_DEPTH) throw new BudgetError(`it nests deeper than ${MAX_DEPTH} levels`);
    this.count();
  }

  leave(): void {
    this.#depth--;
  }

  count(): void {
    if (++this.#operations > this.#maxOperations)
      throw new BudgetError(`it takes more than ${this.#maxOperations} operations`);
    if (this.#operations % OPERATIONS_PER_LOOK === 0) this.#look();
  }

  /** Called before `work` characters, or elements of a list, are made or looked through. */
  spend(work: number): void {
    this.#work += work;
    if (!(this.#work <= this.#maxWork)) throw new BudgetError(`it works through more than ${this.#maxWork} characters`);
    if (work > 1e5) this.#look();
  }

  /**
   * Called before a text of `length` characters is made, of which `work` are new: the engine joins two texts without
   * copying the longer one.
   */
  makeText(length: number, work = length): void {
    if (!(length <= this.#maxText)) throw new BudgetError(`it makes a text of more than ${this.#maxText} characters`);
    this.spend(work);
  }

  #look(): void {
    if (performance.now() > this.#until) throw new TimeError(`it takes more than ${this.#maxMs} ms`);
  }
}

/**
 * How many values a JavaScript value holds, and how many characters. Throws BudgetError for one that nests too deep,
 * such as one that contains itself.
 */
export function sizeOf(given: unknown): Size {
  const size = { values: 0, characters: 0 };
  const add = (value: unknown, depth: number): void => {
    if (depth > MAX_DEPTH) throw new BudgetError(`the messages nest deeper than ${MAX_DEPTH} levels`);
    size.values++;
    if (typeof value === 'string') size.characters += value.length;
    if (typeof value !== 'object' || value === null) return;
    for (const [key, child] of Object.entries(value)) {
      size.characters += key.length;
      add(child, depth + 1);
    }
  };
  add(given, 0);
  return size;
}
