import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { defaultWindow, measurePerplexity, type Perplexity } from '../eval/perplexity.js';
import { shippedModelPath } from '../load.js';
import type { Model } from '../model.js';
import { resolvePlan, type Plan } from '../plan.js';
import { drawPlan, planSummary } from '../plan_diagram.js';
import { printJson, type Io } from './io.js';
import { openModel } from './open_model.js';
import { addBackendOptions, addJsonOption, type BackendOptions } from './options.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { formatTable } from './table.js';
import { readText, textBeside } from './text_file.js';
import { timeContenders } from './timing.js';

const PROMPT = 'Once upon a time';
const STORY = { maxTokens: 120, seed: 9, temperature: 0.7 };
const WORKLOAD = { promptTokens: 16, tokens: 48, repeat: 20 };
/** Tokens of the held-out text that are scored: enough to tell plans apart, few enough to wait for. */
const SCORED_TOKENS = 8192;

interface Options extends BackendOptions {
  json?: boolean;
}

interface Result {
  plan: Plan;
  text: string;
  phases: number;
  msPerToken: number;
  /** Absent where the held-out text is not beside the model. */
  quality: Perplexity | undefined;
}

export function addDemo(program: Command, io: Io): void {
  const command = program.command('demo').description('tell one story with the shipped model layer by layer and with a plan, and compare');
  addJsonOption(addBackendOptions(command)).action((options: Options) => demo(options, io));
}

async function demo(options: Options, io: Io): Promise<void> {
  await using model = await openModel(undefined, options, io);
  const plans = [resolvePlan('sequential', model.config.nLayers), middlePairs(model.config.nLayers)];
  const texts: string[] = [];
  for (const plan of plans) texts.push(await tell(model, plan, io.signal, options.json ? undefined : io));
  const results = await measure(model, plans, texts, new Progress(io, options.json), io.signal);
  if (options.json) {
    printJson(io, { prompt: PROMPT, rows: results.map(({ plan, quality, ...rest }) => ({ plan: planForJson(plan), ...rest, tokens: quality?.tokens, perplexity: quality?.perplexity })) });
    return;
  }
  const baseline = results[0]!;
  const rows = results.map(({ plan, phases, msPerToken, quality }) => [
    planSummary(plan), String(phases), msPerToken.toFixed(3), `${((msPerToken / baseline.msPerToken - 1) * 100).toFixed(1)} %`, quality?.perplexity.toFixed(3) ?? 'not measured',
  ]);
  io.out(`${formatTable(['plan', 'phases', 'ms/token', 'change', 'perplexity'], rows)}\n`);
  const scored = baseline.quality ? `perplexity over ${baseline.quality.tokens} tokens of held-out text` : 'perplexity not measured, because the model comes without held-out text';
  io.out(`Medians of ${WORKLOAD.tokens * WORKLOAD.repeat} decoded tokens each on ${model.threads} ${model.threads === 1 ? 'thread' : 'threads'}; ${scored}.\n`);
}

/** Pairs over the middle half of the layers: the first and the last ones are the least alike. */
function middlePairs(layers: number): Plan {
  const quarter = Math.floor(layers / 4);
  return resolvePlan(`P2-S${quarter}-E${layers - quarter}`, layers);
}

async function tell(model: Model, plan: Plan, signal: AbortSignal, io: Io | undefined): Promise<string> {
  io?.out(`${planSummary(plan)}\n${drawPlan(plan)}\n\n${PROMPT}`);
  let story = '';
  for await (const { text } of model.generate(PROMPT, { ...STORY, plan, signal })) {
    story += text;
    io?.out(text);
  }
  io?.out('\n\n');
  return story;
}

async function measure(model: Model, plans: Plan[], texts: string[], progress: Progress, signal: AbortSignal): Promise<Result[]> {
  const heldout = textBeside(shippedModelPath());
  const ids = existsSync(heldout) ? (await model.tokenizer.encodeSliced(await readText(heldout), { parseSpecialTokens: false, signal })).slice(0, SCORED_TOKENS) : undefined;
  try {
    const contenders = plans.map((plan) => ({ plan, execution: 'auto' as const }));
    const timings = await timeContenders(model, contenders, WORKLOAD, { signal, onProgress: (done, total) => progress.update('timing', done, total) });
    const results: Result[] = [];
    for (const [i, plan] of plans.entries()) {
      const quality = ids && (await measurePerplexity(model, plan, ids, defaultWindow(model), { signal, onProgress: (done, total) => progress.update(`perplexity, ${planSummary(plan)}`, done, total) }));
      results.push({ plan, text: texts[i]!, phases: model.program(plan).layerPhases, msPerToken: timings[i]!.msPerToken.median, quality });
    }
    return results;
  } finally {
    progress.stop();
  }
}
