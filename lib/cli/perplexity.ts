import { readFile, stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { CqilError } from '../errors.js';
import type { Model } from '../model.js';
import type { Execution } from '../native.js';
import { resolvePlan, type Plan } from '../plan.js';
import { planSummary } from '../plan_diagram.js';
import { decodeText, MAX_TEXT_BYTES, printJson, type Io } from './io.js';
import { openModel } from './open_model.js';
import { addJsonOption, addModelArgument, addPlacementOptions, integer, PLAN_HELP, repeatable, type PlacementOptions } from './options.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatTable } from './table.js';

const LONGEST_DEFAULT_WINDOW = 2048;

interface Options extends PlacementOptions {
  file: string;
  window?: number;
  plan?: string[];
  json?: boolean;
}

export interface Perplexity {
  /** Tokens scored. */
  tokens: number;
  /** Mean negative log-likelihood per scored token, nats. */
  nll: number;
  perplexity: number;
}

export function addPerplexity(program: Command, io: Io): void {
  const command = program.command('perplexity').description('measure how well a model, with one plan or several, predicts a text');
  addModelArgument(command)
    .requiredOption('--file <path>', 'the text, UTF-8')
    .option('--window <n>', `tokens per window (default: the model's context length, at most ${LONGEST_DEFAULT_WINDOW})`, integer(2, 1 << 24))
    .option('--plan <plan>', `${PLAN_HELP}; may be given several times`, repeatable);
  addJsonOption(addPlacementOptions(command))
    .addHelpText('after', `
The whole text is tokenised once, with the model's own BOS rule, and cut into windows that do not overlap. Every window starts
with an empty context: its first token is context only, all others are scored. A shorter last window counts if it has two tokens.
Special tokens spelled out in the text are read as plain text.
With several plans the JSON document has one row per plan.`)
    .action((path: string | undefined, options: Options) => perplexity(path, options, io));
}

async function perplexity(path: string | undefined, options: Options, io: Io): Promise<void> {
  const text = await readText(options.file);
  await using model = await openModel(path, { ...options, plan: undefined }, io);
  const plans = (options.plan ?? ['sequential']).map((plan) => resolvePlan(plan, model.config.nLayers));
  const window = options.window ?? defaultWindow(model);
  if (window > model.config.contextLength) {
    throw new CqilError('INVALID_ARGUMENT', `The window is ${window} tokens, expected at most the model's context length, ${model.config.contextLength}.`);
  }
  const ids = await model.tokenizer.encodeSliced(text, { parseSpecialTokens: false, signal: io.signal });
  const progress = new Progress(io, options.json);
  const rows: Array<Perplexity & { plan: Plan }> = [];
  try {
    for (const plan of plans) {
      const measured = await measurePerplexity(model, plan, ids, window, {
        execution: options.execution,
        signal: io.signal,
        onProgress: (done, total) => progress.update(planSummary(plan), done, total),
      });
      rows.push({ plan, ...measured });
    }
  } finally {
    progress.stop();
  }
  if (!options.json) {
    const cells = rows.map((row) => [planSummary(row.plan), String(row.tokens), row.nll.toFixed(4), row.perplexity.toFixed(3)]);
    io.out(formatTable(['plan', 'tokens', 'nll', 'perplexity'], cells));
    return;
  }
  const documents = rows.map((row) => ({ tokens: row.tokens, nll: row.nll, perplexity: row.perplexity, plan: planForJson(row.plan), window }));
  printJson(io, documents.length === 1 ? documents[0] : { rows: documents });
}

/** Tokens per window unless it is given. */
export function defaultWindow(model: Model): number {
  return Math.min(model.config.contextLength, LONGEST_DEFAULT_WINDOW);
}

/** The text of a file; refuses one that cannot be text. */
export async function readText(file: string): Promise<string> {
  try {
    const stats = await stat(file);
    if (!stats.isFile()) throw new CqilError('FILE_NOT_FOUND', `The text ${file} is not a regular file.`);
    if (stats.size > MAX_TEXT_BYTES) throw new CqilError('INVALID_ARGUMENT', `The text ${file} has ${stats.size} bytes, expected at most ${MAX_TEXT_BYTES}.`);
    return decodeText(await readFile(file), `The text ${file}`);
  } catch (error) {
    if (error instanceof CqilError) throw error;
    throw new CqilError('FILE_NOT_FOUND', `The text ${file} cannot be read: ${(error as Error).message}.`, { cause: error });
  }
}

/**
 * Perplexity of a model with a plan over token ids, in windows of `window` tokens that do not overlap, each in a fresh context. The
 * first token of a window is context only. `onProgress` counts tokens.
 *
 * @throws CqilError INVALID_ARGUMENT for fewer than two tokens.
 */
export async function measurePerplexity(
  model: Model,
  plan: Plan,
  ids: number[],
  window: number,
  options: { execution?: Execution; signal?: AbortSignal; onProgress?: (done: number, total: number) => void } = {},
): Promise<Perplexity> {
  if (ids.length < 2) throw new CqilError('INVALID_ARGUMENT', `The text has ${ids.length} tokens, expected at least 2.`);
  const session = model.createSession({ plan, execution: options.execution, contextLength: Math.min(window, ids.length) });
  try {
    let [sum, tokens] = [0, 0];
    for (let from = 0; from + 1 < ids.length; from += window) {
      const scores = await session.score(ids.slice(from, from + window), { signal: options.signal });
      session.truncate(0);
      for (const score of scores) sum -= score;
      tokens += scores.length;
      options.onProgress?.(Math.min(from + window, ids.length), ids.length);
    }
    const nll = sum / tokens;
    return { tokens, nll, perplexity: Math.exp(nll) };
  } finally {
    session.close();
  }
}
