import { InvalidArgumentError, Option, type Command } from 'commander';
import { ACTIVATIONS_CHOICES, type ActivationsChoice } from '../engine/activations.js';
import { KV_CACHE_CHOICES, type KvCacheChoice } from '../engine/kv_cache.js';
import type { Execution } from '../engine/native.js';
import { checkPlanText } from '../plan/plan.js';

export const EXECUTIONS: readonly Execution[] = ['auto', 'wide', 'lanes', 'persistent'];

/** What computes, as given on the command line. */
export interface BackendOptions {
  backend: 'auto' | 'cpu' | 'cuda';
  threads?: number;
  kvCache: KvCacheChoice;
  activations: ActivationsChoice;
  mmap: boolean;
}

/** What computes, and how the layers of a group run. */
export interface PlacementOptions extends BackendOptions {
  execution: Execution;
}

export const PLAN_HELP =
  'which layers share an input: sequential, P2-D0-S4-E12 (P layers per group, from S up to but without E, bypass ' +
  'D; -official at the end: see --bypass-mode), or a JSON file';

/** The model every verb takes. */
export function addModelArgument(command: Command): Command {
  return command.argument(
    '[model]',
    'a Hugging Face folder or a .gguf file (default: the small model that ships)',
    (text) => {
      if (text.trim() !== '') return text;
      throw new InvalidArgumentError('Expected a folder or a file; without one, the small model that ships is taken.');
    },
  );
}

export function addBackendOptions(command: Command): Command {
  return command
    .addOption(new Option('--backend <name>', 'what computes').choices(['auto', 'cpu', 'cuda']).default('auto'))
    .option('--threads <n>', 'CPU threads (default: one per physical core)', integer(1, 256))
    .addOption(kvCacheOption())
    .addOption(activationsOption())
    .option(
      '--no-mmap',
      'read the files of the weights into memory instead of mapping them, so that they may be changed meanwhile',
    );
}

export function kvCacheOption(): Option {
  return new Option(
    '--kv-cache <format>',
    'how keys and values are kept; auto: f16 where activations are rounded, f32 otherwise',
  )
    .choices(KV_CACHE_CHOICES)
    .default('auto');
}

export function activationsOption(): Option {
  return new Option(
    '--activations <format>',
    'what vectors are rounded to before weights are multiplied with them; auto: what applies to most weights and ' +
      'is faster',
  )
    .choices(ACTIVATIONS_CHOICES)
    .default('auto');
}

export function addPlacementOptions(command: Command): Command {
  return addBackendOptions(command).addOption(
    new Option('--execution <mode>', 'how the layers of a group run').choices(EXECUTIONS).default('auto'),
  );
}

export function addJsonOption(command: Command): Command {
  return command.option('--json', 'print one JSON document on stdout and nothing else');
}

/** A parser for whole numbers between two bounds, inclusive. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  };
}

/** A parser for numbers between two bounds, inclusive. */
export function decimal(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a number from ${min} to ${max}.`);
  };
}

/** A parser for whole numbers separated by commas or spaces. */
export function integerList(text: string): number[] {
  const words = text.trim().split(/\s*,\s*|\s+/);
  const values = words.map(Number);
  if (words.every((word) => /^\d+$/.test(word)) && values.every((value) => value < 2 ** 31)) return values;
  throw new InvalidArgumentError('Expected whole numbers separated by commas, such as 1,15043,29892.');
}

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t', '\\': '\\' };
export const ESCAPES_HELP = '\\n, \\t, \\r and \\\\ stand for a line break, a tab, a carriage return and a backslash';

/** A parser for text with escapes: shells pass `\n` and the like on as two characters. */
export function unescaped(text: string): string {
  return text.replace(/\\([nrt\\])/g, (_, letter: string) => ESCAPES[letter]!);
}

/** A parser for an option with escapes that may be given several times. */
export function repeatableUnescaped(text: string, before: string[] | undefined): string[] {
  return repeatable(unescaped(text), before);
}

/** A parser for an option that may be given several times. */
export function repeatable(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}

/**
 * A parser for plans. What no model fits is wrong usage; what does not fit the model at hand, or a file that cannot be
 * read, is found out later and is a failure.
 */
export function planText(text: string): string {
  try {
    checkPlanText(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return text;
}

/** A parser for plans, for an option that may be given several times. */
export function repeatablePlan(text: string, before: string[] | undefined): string[] {
  return repeatable(planText(text), before);
}

/** A parser for an option that takes one of a few words and may be given several times. */
export function repeatableChoice<T extends string>(
  choices: readonly T[],
): (text: string, before: T[] | undefined) => T[] {
  return (text, before) => {
    const choice = choices.find((known) => known === text);
    if (choice === undefined) throw new InvalidArgumentError(`Allowed choices are ${choices.join(', ')}.`);
    return [...(before ?? []), choice];
  };
}
