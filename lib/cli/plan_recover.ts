import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { writeLora } from '../checkpoint/write_lora.js';
import { CqilError } from '../errors.js';
import { absolutePath } from '../util/location.js';
import { fingerprint } from '../analysis/eval/fingerprint.js';
import { shippedModelPath } from '../model/load.js';
import type { Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import type { RecoveredPlan, SiteOutcome } from '../analysis/recovery/outcome.js';
import { recoverPlan, recoverWindow } from '../analysis/recovery/recover_plan.js';
import { formatJson, printJson, type Io } from './io.js';
import { machineOf, machineSummary } from './machine.js';
import { openModel } from './open_model.js';
import {
  addBackendOptions,
  addJsonOption,
  addModelArgument,
  integer,
  PLAN_HELP,
  planText,
  type BackendOptions,
} from './options.js';
import { planInFile } from './plan_adapter.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { Progress } from './progress.js';
import { firstTokens } from './similarity.js';
import { formatTable } from './table.js';
import { readTextFile } from './text_file.js';
import { existsAlready, writeNew } from './write_new.js';

const DEFAULT_TOKENS = 16384;
const DEFAULT_RANK = 32;

const HELP = `
Fits, group by group, low-rank corrections of what a group lacks of the sequential model: of the inputs of its attention and MLP blocks
and of its output. There is no training; it takes about three passes over the text per group. Writes the plan with a PEFT LoRA adapter beside it, which takes no time when it runs. Three fifths of the text fit the
corrections; one fifth decides which ranks and which groups' corrections to keep, by the KL divergence from the sequential model; the
last measures the result. The same text gives the same adapter. Nothing is written where nothing helps.`;

interface Options extends BackendOptions, PlanOptions {
  plan: string;
  file: string;
  rank: number;
  tokens: number;
  window?: number;
  output: string;
  force?: boolean;
  json?: boolean;
}

/** `cqil plan recover`. */
export function addPlanRecover(plan: Command, io: Io): void {
  const command = plan
    .command('recover')
    .description('fit an adapter that wins back part of what a plan costs, without training');
  addModelArgument(command)
    .requiredOption('--plan <plan>', PLAN_HELP, planText)
    .addOption(bypassModeOption())
    .requiredOption('--file <path>', 'the text to fit on, UTF-8')
    .requiredOption('-o, --output <file>', 'write the plan there, and its adapter in a folder beside it')
    .option('--rank <n>', 'rank of a correction at most', integer(1, 4096), DEFAULT_RANK)
    .option(
      '--tokens <n>',
      'take at most this number of tokens from the start of the text',
      integer(2, 1 << 24),
      DEFAULT_TOKENS,
    )
    .option('--window <n>', 'tokens per window, each from an empty context (default: at most 512)', integer(2, 1 << 24))
    .option('--force', 'overwrite the file and the folder');
  addJsonOption(addBackendOptions(command))
    .addHelpText('after', HELP)
    .action((model: string | undefined, options: Options) => recover(model, options, io));
}

async function recover(modelPath: string | undefined, options: Options, io: Io): Promise<void> {
  const { output, force = false } = options;
  const adapter = `${output.replace(/\.json$/i, '')}.adapter`;
  // Said before the work rather than after it.
  for (const target of [output, adapter]) if (!force && existsSync(target)) throw existsAlready(target);
  const folder = path.dirname(absolutePath(output, 'The output'));
  if (!existsSync(folder)) throw new CqilError('FILE_NOT_FOUND', `The folder ${folder} to write to does not exist.`);
  const { text, sha256 } = await readTextFile(options.file);
  const checkpoint = await openCheckpoint(modelPath ?? shippedModelPath());
  const given = readPlan(options.plan, checkpoint.config.nLayers, options, io);
  await using model = await openModel(modelPath, { ...options, plan: undefined, plans: [options.plan] }, io);
  const ids = await firstTokens(model.tokenizer, text, options.tokens, io.signal);
  const progress = new Progress(io, options.json);
  let recovered: RecoveredPlan;
  try {
    recovered = await recoverPlan(model, checkpoint, given, ids, {
      rank: options.rank,
      window: options.window ?? recoverWindow(model, ids.length),
      signal: io.signal,
      onProgress: (share) => progress.update('recover', Math.round(share * 1000), 1000),
    });
  } finally {
    progress.stop();
  }
  const { before, after } = recovered.heldOut;
  if (recovered.updates.length === 0 || !(after.kl.mean < before.kl.mean)) {
    throw new CqilError(
      'GOAL_UNREACHABLE',
      `No correction of rank ${options.rank} or less lowers the KL divergence of ${planSummary(given)} on text it ` +
        `was not fitted on (${before.kl.mean.toFixed(4)}); expected a longer text, another rank or another plan.`,
    );
  }
  const machine = machineOf(model);
  const measured = { data: options.file, sha256, ...measuredOf(recovered) };
  const plan: Plan = {
    ...given,
    adapter: absolutePath(adapter, 'The adapter'),
    evidence: { model: await fingerprint(checkpoint), ...measured, machine },
  };
  await writePlan(plan, output, adapter, recovered, checkpoint, force);
  if (options.json) printJson(io, { plan, rank: options.rank, sites: recovered.sites, ...measured, machine });
  else
    io.out(
      `${describeRecovered(recovered, [planSummary(given), planSummary(plan)], `${options.file} (${sha256})`)}; ` +
        `${machineSummary(machine)}.\n`,
    );
  io.err(`wrote ${output} and ${adapter}\n`);
}

/** The part of a plan's evidence that a recovery measured. */
function measuredOf({ heldOut, window, fitTokens, chooseTokens, heldOutTokens }: RecoveredPlan) {
  const { before, after, sequential } = heldOut;
  return {
    fitTokens,
    chooseTokens,
    tokens: heldOutTokens,
    window,
    kl: after.kl.mean,
    klStandardError: after.kl.standardError,
    perplexity: after.perplexity,
    sequentialPerplexity: sequential.perplexity,
    topAgreement: after.topAgreement,
    klWithoutAdapter: before.kl.mean,
    perplexityWithoutAdapter: before.perplexity,
  };
}

/** Tables of the corrections and of the plan without and with them, and what they were measured on. */
function describeRecovered(
  { heldOut, sites, window, fitTokens, chooseTokens, heldOutTokens }: RecoveredPlan,
  names: [without: string, recovered: string],
  text: string,
): string {
  const { before, after, sequential } = heldOut;
  const rows = [before, after].map(({ kl, perplexity, topAgreement }, i) => [
    names[i]!,
    `${kl.mean.toFixed(4)} ± ${kl.standardError.toFixed(4)}`,
    perplexity.toFixed(3),
    `${(topAgreement * 100).toFixed(1)} %`,
  ]);
  const corrections = formatTable(
    ['group', 'of the', 'towards', 'rank', 'explained', 'KL before', 'KL after'],
    sites.map(siteRow),
  );
  const plans = formatTable(
    ['held out', 'KL', 'perplexity', 'same top'],
    [['sequential', '0', sequential.perplexity.toFixed(3), '100.0 %'], ...rows],
  );
  return (
    `${corrections}\n${plans}KL falls by ${((1 - after.kl.mean / before.kl.mean) * 100).toFixed(0)} %. Fitted on ` +
    `${fitTokens} tokens of ${text}, chosen on ${chooseTokens}, measured on ${heldOutTokens}, windows of ${window}`
  );
}

function siteRow({ group, site, kept, klBefore, klAfter }: SiteOutcome): string[] {
  const cells = kept
    ? [kept.teacher, String(kept.rank), `${(kept.explained * 100).toFixed(1)} %`]
    : ['dropped', '', ''];
  return [`${group[0]}-${group.at(-1)}`, site, ...cells, klBefore.toFixed(4), klAfter.toFixed(4)];
}

/**
 * Each of the two is whole or absent: the adapter first, under its name only when it is complete, then the plan that
 * names it.
 */
async function writePlan(
  plan: Plan,
  output: string,
  adapter: string,
  { updates }: RecoveredPlan,
  checkpoint: Checkpoint,
  force: boolean,
): Promise<void> {
  const [partFolder, partFile] = [adapter, output].map((target) => `${target}.part-${process.pid}`) as [string, string];
  try {
    await writeLora(partFolder, updates, checkpoint.path);
    await writeNew(partFile, formatJson(planInFile(plan, output)), false);
    if (force) await rm(adapter, { recursive: true, force: true });
    else for (const target of [output, adapter]) if (existsSync(target)) throw existsAlready(target);
    await rename(partFolder, adapter);
    await rename(partFile, output);
  } catch (cause) {
    if (cause instanceof CqilError) throw cause;
    throw new CqilError(
      'FILE_NOT_FOUND',
      `The plan ${output} and its adapter cannot be written: ${(cause as Error).message}.`,
      { cause },
    );
  } finally {
    await rm(partFolder, { recursive: true, force: true });
    await rm(partFile, { force: true });
  }
}
