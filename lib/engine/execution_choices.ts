import { isDeepStrictEqual } from 'node:util';
import { readCache, writeCache, type CacheIdentity } from '../util/cache_file.js';
import { MAX_THREADS } from './load_options.js';
import type { SettledExecution } from './native.js';
import { isCount } from '../util/options.js';
import type { Plan } from '../plan/plan.js';

const KIND = 'execution';
const EXECUTIONS: ReadonlyArray<SettledExecution['execution']> = ['wide', 'lanes', 'persistent'];
/** Plans kept per model shape; a search tries thousands, and the latest are the likeliest to come again. */
const MAX_CHOICES = 500;

/**
 * The way to compute tokens that `auto` used last for each plan, in this process or an earlier one, kept per machine
 * and model shape. `auto` begins with it the next time. When it is no longer the fastest, the engine changes to another
 * within a second.
 */
export class ExecutionChoices {
  readonly #identity: CacheIdentity;
  readonly #choices: Map<string, SettledExecution>;
  readonly #fresh = new Map<string, SettledExecution>();
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(identity: CacheIdentity, choices: Map<string, SettledExecution>) {
    this.#identity = identity;
    this.#choices = choices;
  }

  static async open(identity: CacheIdentity): Promise<ExecutionChoices> {
    return new ExecutionChoices(identity, await readChoices(identity));
  }

  get(plan: Plan): SettledExecution | undefined {
    return this.#choices.get(keyOf(plan));
  }

  /** Keeps what was found. Written in the background; `flush` waits for that. */
  add(plan: Plan, execution: SettledExecution): void {
    const key = keyOf(plan);
    if (isDeepStrictEqual(this.#choices.get(key), execution)) return;
    this.#choices.set(key, execution);
    if (this.#fresh.size === 0) this.#writing = this.#writing.then(() => this.#write());
    this.#fresh.set(key, execution);
  }

  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    // Others may have written since; what this process found goes last.
    const all = await readChoices(this.#identity);
    for (const [key, execution] of this.#fresh) {
      all.delete(key);
      all.set(key, execution);
    }
    this.#fresh.clear();
    await writeCache(KIND, this.#identity, Object.fromEntries([...all].slice(-MAX_CHOICES)));
  }
}

async function readChoices(identity: CacheIdentity): Promise<Map<string, SettledExecution>> {
  const entries = Object.entries(Object(await readCache(KIND, identity)) as Record<string, unknown>);
  return new Map(entries.filter((entry): entry is [string, SettledExecution] => isSettled(entry[1])));
}

function isSettled(value: unknown): value is SettledExecution {
  const { execution, threads } = Object(value) as Partial<SettledExecution>;
  return EXECUTIONS.some((known) => known === execution) && (threads === 0 || isCount(threads, MAX_THREADS));
}

/** The stages of a plan, which alone decide its time. */
function keyOf({ groups }: Plan): string {
  return groups.length === 0 ? 'sequential' : groups.map((group) => `${group[0]}-${group.at(-1)}`).join(' ');
}
