import { Option, type Command } from 'commander';
import { openCheckpoint } from '../checkpoint/open.js';
import { CqilError } from '../errors.js';
import { comparePlans } from '../analysis/eval/compare_plans.js';
import { adapterFingerprints, fingerprint } from '../analysis/eval/fingerprint.js';
import { defaultWindow, LONGEST_DEFAULT_WINDOW, modelWindows } from '../analysis/eval/perplexity.js';
import { ResumeFile, type RunIdentity } from '../analysis/eval/resume_file.js';
import { runTasks } from '../analysis/eval/run_tasks.js';
import { parseTask } from '../analysis/eval/task_file.js';
import { PROTOCOLS, type Protocol, type Window } from '../analysis/eval/windows.js';
import { shippedModelPath } from '../model/load.js';
import type { Model } from '../model/model.js';
import { formatPlan, isLossy, resolvePlan, type Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import { EVAL_HELP } from './eval_help.js';
import { formatTask, formatText, type TaskReport, type TaskSource, type TextReport } from './eval_tables.js';
import { printJson, type Io } from './io.js';
import { machineOf, machineSummary } from './machine.js';
import { openModel } from './open_model.js';
import {
  addJsonOption,
  addModelArgument,
  addPlacementOptions,
  ESCAPES_HELP,
  integer,
  PLAN_HELP,
  repeatablePlan,
  repeatable,
  unescaped,
  type PlacementOptions,
} from './options.js';
import { bypassModeOption, readPlan, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';
import { Progress } from './progress.js';
import { readTextFile, type TextFile } from './text_file.js';

interface Options extends PlacementOptions, PlanOptions {
  plan?: string[];
  file?: string;
  window?: number;
  protocol: Protocol;
  task?: string[];
  delimiter: string;
  limit?: number;
  seed: number;
  resume?: string;
  json?: boolean;
}

export function addEval(program: Command, io: Io): void {
  const command = program.command('eval').description('measure what plans cost in quality: on a text, and on tasks');
  addModelArgument(command)
    .option(
      '--plan <plan>',
      `${PLAN_HELP}; may be given several times, and sequential is always measured too`,
      repeatablePlan,
    )
    .addOption(bypassModeOption())
    .option('--file <path>', 'a text, UTF-8: perplexity, and how far each plan is from sequential')
    .option(
      '--window <n>',
      `tokens per window (default: the model's context length, at most ${LONGEST_DEFAULT_WINDOW})`,
      integer(2, 1 << 24),
    )
    .addOption(
      new Option('--protocol <name>', 'which tokens of the text are scored').choices(PROTOCOLS).default('gptq'),
    )
    .option('--task <path>', 'questions, one JSON object per line; may be given several times', repeatable)
    .option(
      '--delimiter <text>',
      `what stands between a context and an answer, and belongs to the context; ${ESCAPES_HELP}`,
      unescaped,
      ' ',
    )
    .option('--limit <n>', 'questions per task, drawn at random (default: all)', integer(1, 1 << 30))
    .option('--seed <n>', 'which questions are drawn', integer(0, 2 ** 32 - 1), 0)
    .option('--resume <path>', 'keep finished windows and questions there, and go on from it');
  addJsonOption(addPlacementOptions(command))
    .addHelpText('after', EVAL_HELP)
    .action((path: string | undefined, options: Options) => evaluate(path, options, io));
}

async function evaluate(path: string | undefined, options: Options, io: Io): Promise<void> {
  if (options.file === undefined && options.task === undefined)
    throw new CqilError('INVALID_ARGUMENT', 'Give a text with --file, or questions with --task, or both.');
  const text = options.file === undefined ? undefined : await readTextFile(options.file);
  const tasks: TaskSource[] = [];
  for (const file of options.task ?? []) {
    const { text: questions, sha256 } = await readTextFile(file);
    tasks.push({ ...parseTask(questions, file), sha256 });
  }
  const checkpoint = await openCheckpoint(path ?? shippedModelPath());
  await using model = await openModel(path, { ...options, plan: undefined, plans: options.plan }, io);
  const plans = withBaseline(
    (options.plan ?? []).map((plan) => readPlan(plan, model.config.nLayers, options, io)),
    model.config.nLayers,
  );
  const source = { path: checkpoint.path, fingerprint: await fingerprint(checkpoint) };
  const progress = new Progress(io, options.json);
  let resume: ResumeFile | undefined;
  let textReport: TextReport | undefined;
  let taskReports: TaskReport[];
  try {
    const measured = text && (await cutText(model, text, options, io.signal));
    resume =
      options.resume === undefined
        ? undefined
        : await ResumeFile.open(options.resume, {
            ...identityOf(model, source.fingerprint, plans, measured, tasks, options),
            adapters: await adapterFingerprints(plans),
          });
    const run: Run = { model, plans, options, resume, progress, signal: io.signal };
    textReport = measured && (await evaluateText(run, measured));
    taskReports = await evaluateTasks(run, tasks);
  } finally {
    progress.stop();
    await resume?.close();
  }
  printReports({ plans, source, text: textReport, tasks: taskReports, machine: machineOf(model) }, options, io);
}

/** What a run found. */
interface Reports {
  plans: Plan[];
  source: { path: string; fingerprint: string };
  text: TextReport | undefined;
  tasks: TaskReport[];
  machine: ReturnType<typeof machineOf>;
}

function printReports({ plans, source, text, tasks, machine }: Reports, options: Options, io: Io): void {
  if (options.json) {
    const rowsOf = <T extends object>({ plans: qualities, ...rest }: { plans: T[] } & object) => ({
      ...rest,
      rows: qualities.map((quality, i) => ({ plan: planForJson(plans[i]!), lossy: isLossy(plans[i]!), ...quality })),
    });
    const { delimiter, limit = null, seed } = options;
    printJson(io, {
      model: source,
      text: text && rowsOf(text),
      tasks: tasks.map(rowsOf),
      ...(tasks.length > 0 && { delimiter, limit, seed }),
      machine,
    });
    return;
  }
  const labels = plans.map((plan) => [planSummary(plan), isLossy(plan) ? 'lossy' : 'lossless']);
  if (text) io.out(`${formatText(text, labels)}\n`);
  for (const report of tasks) io.out(`${formatTask(report, labels)}\n`);
  io.out(`Model ${source.path} (${source.fingerprint}); ${machineSummary(machine)}.\n`);
}

/** A text, cut into windows. */
type CutText = Omit<TextReport, 'plans'> & { windows: Window[] };

async function cutText(
  model: Model,
  { text, sha256 }: TextFile,
  { file, protocol, window = defaultWindow(model) }: Options,
  signal: AbortSignal,
): Promise<CutText> {
  const ids = await model.tokenizer.encodeSliced(text, { parseSpecialTokens: false, signal });
  return {
    file: file!,
    sha256,
    tokens: ids.length,
    protocol,
    window,
    windows: modelWindows(model, ids, window, protocol),
  };
}

/** What decides the numbers of a run, whatever it runs on. */
function identityOf(
  model: Model,
  fingerprint: string,
  plans: Plan[],
  text: CutText | undefined,
  tasks: TaskSource[],
  { delimiter, limit, seed }: Options,
): RunIdentity {
  return {
    cqil: 'eval',
    version: 3,
    model: fingerprint,
    kvCache: model.kvCache,
    activations: model.activations,
    plans: plans.map(formatPlan),
    text: text ? { sha256: text.sha256, tokens: text.tokens, protocol: text.protocol, window: text.window } : null,
    tasks: tasks.map(({ sha256 }) => sha256),
    delimiter,
    limit: limit ?? null,
    seed,
  };
}

/** What a text and every task are evaluated with. */
interface Run {
  model: Model;
  plans: Plan[];
  options: Options;
  resume: ResumeFile | undefined;
  progress: Progress;
  signal: AbortSignal;
}

async function evaluateText(
  { model, plans, options, resume, progress, signal }: Run,
  { windows, ...text }: CutText,
): Promise<TextReport> {
  const qualities = await comparePlans(model, plans, windows, {
    execution: options.execution,
    signal,
    resume,
    onProgress: (done, total) => progress.update('text', done, total),
  });
  return { ...text, plans: qualities };
}

async function evaluateTasks(
  { model, plans, options, resume, progress, signal }: Run,
  tasks: TaskSource[],
): Promise<TaskReport[]> {
  if (tasks.length === 0) return [];
  const { delimiter, limit, seed, execution } = options;
  const results = await runTasks(model, plans, tasks, {
    delimiter,
    limit,
    seed,
    execution,
    signal,
    resume,
    onProgress: (done, total) => progress.update('questions', done, total),
  });
  return results.map((result, i) => ({
    file: tasks[i]!.name,
    sha256: tasks[i]!.sha256,
    form: tasks[i]!.form,
    itemsInFile: tasks[i]!.items.length,
    ...result,
  }));
}

/** Sequential first, then every other plan once. */
function withBaseline(plans: Plan[], layers: number): Plan[] {
  const byName = new Map([resolvePlan('sequential', layers), ...plans].map((plan) => [formatPlan(plan), plan]));
  return [...byName.values()];
}
