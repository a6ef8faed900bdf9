import type { Command } from 'commander';
import {
  defaultWindow,
  LONGEST_DEFAULT_WINDOW,
  measurePerplexity,
  type Perplexity,
} from '../analysis/eval/perplexity.js';
import type { Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import { printJson, type Io } from './io.js';
import { openModel } from './open_model.js';
import {
  addJsonOption,
  addModelArgument,
  addPlacementOptions,
  integer,
  PLAN_HELP,
  repeatablePlan,
  type PlacementOptions,
} from './options.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatTable } from './table.js';
import { readText } from './text_file.js';

interface Options extends PlacementOptions, PlanOptions {
  file: string;
  window?: number;
  plan?: string[];
  json?: boolean;
}

export function addPerplexity(program: Command, io: Io): void {
  const command = program
    .command('perplexity')
    .description('measure how well a model, with one plan or several, predicts a text');
  addModelArgument(command)
    .requiredOption('--file <path>', 'the text, UTF-8')
    .option(
      '--window <n>',
      `tokens per window (default: the model's context length, at most ${LONGEST_DEFAULT_WINDOW})`,
      integer(2, 1 << 24),
    )
    .option('--plan <plan>', `${PLAN_HELP}; may be given several times`, repeatablePlan)
    .addOption(bypassModeOption());
  addJsonOption(addPlacementOptions(command))
    .addHelpText(
      'after',
      `
The whole text is tokenised once, with the model's own BOS rule, and cut into windows that do not overlap. Every window starts
with an empty context: its first token is context only, all others are scored. A shorter last window counts if it has two tokens.
Special tokens spelled out in the text are read as plain text.
With several plans the JSON document has one row per plan.`,
    )
    .action((path: string | undefined, options: Options) => perplexity(path, options, io));
}

async function perplexity(path: string | undefined, options: Options, io: Io): Promise<void> {
  const text = await readText(options.file);
  await using model = await openModel(path, { ...options, plan: undefined, plans: options.plan }, io);
  const plans = (options.plan ?? ['sequential']).map((plan) => readPlan(plan, model.config.nLayers, options, io));
  const window = options.window ?? defaultWindow(model);
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
    const cells = rows.map((row) => [
      planSummary(row.plan),
      String(row.tokens),
      row.nll.toFixed(4),
      row.perplexity.toFixed(3),
    ]);
    io.out(formatTable(['plan', 'tokens', 'nll', 'perplexity'], cells));
    return;
  }
  const documents = rows.map((row) => ({
    tokens: row.tokens,
    nll: row.nll,
    perplexity: row.perplexity,
    plan: planForJson(row.plan),
    window,
    kvCache: model.kvCache,
    activations: model.activations,
  }));
  printJson(io, documents.length === 1 ? documents[0] : { rows: documents });
}
