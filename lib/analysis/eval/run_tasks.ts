import { CqilError } from '../../errors.js';
import type { Model } from '../../model/model.js';
import { Pace } from '../../util/pace.js';
import type { Plan } from '../../plan/plan.js';
import type { Session } from '../../session/session.js';
import { encodeItem, type EncodedItem } from './encode_item.js';
import type { MeasureOptions } from './perplexity.js';
import type { ResumeFile } from './resume_file.js';
import { scoreAnswers, scoreCompletion, type ItemScore } from './score_item.js';
import { estimate, drawIndices, type Estimate } from './statistics.js';
import type { Task, TaskItem } from './task_file.js';

export interface TaskOptions extends MeasureOptions {
  /** Items of each task at most, drawn with `seed`. Default: all. */
  limit?: number;
  seed: number;
  /** What stands between a context and an answer. */
  delimiter: string;
  /** Where finished items are kept. */
  resume?: ResumeFile;
}

/** What one plan achieves on one task. */
export interface TaskQuality {
  /** Share of items whose likeliest answer is the right one; of completions, whose every token is the likeliest. */
  accuracy: Estimate;
  /** Accuracy with each log-likelihood divided by the answer's characters. Absent for completions. */
  normalizedAccuracy?: Estimate;
  /** Negative log-likelihood of the right answer given its context, nats per item. */
  nll: Estimate;
  /**
   * Share of items on which the plan's (normalised) answer is the first plan's: right or wrong alike, for completions.
   */
  agreement: number;
}

export interface TaskResult {
  /** Items scored. */
  items: number;
  /** Tokens of all their sequences. */
  tokens: number;
  /** Items left out, for every plan alike, because an answer is longer than the model's context. */
  tooLong: number;
  /** Items whose context lost its beginning to fit the model. */
  truncated: number;
  /** The accuracy of always giving the answer that is right most often. */
  majority: number;
  /** One per plan, in their order. */
  plans: TaskQuality[];
}

/** An item that is evaluated: its index in the task, and what is computed for it. */
interface ChosenItem {
  index: number;
  item: TaskItem;
  encoded: EncodedItem;
}

/**
 * Measures plans on tasks, item by item, in the order of the files. The same model, plans, tasks and options give the
 * same numbers, whether or not some items were finished in an earlier run. Rejects with ABORTED; items finished by then
 * are in the resume file.
 */
export async function runTasks(
  model: Model,
  plans: readonly Plan[],
  tasks: readonly Task[],
  options: TaskOptions,
): Promise<TaskResult[]> {
  const { execution, signal, onProgress, resume } = options;
  const pace = new Pace(signal);
  const chosen: ChosenItem[][] = [];
  for (const task of tasks) chosen.push(await chooseItems(model, task, options, pace));
  const all = chosen.flat();
  const contextLength = all.reduce(
    (longest, { encoded }) => encoded.sequences.reduce((most, { ids }) => Math.max(most, ids.length), longest),
    1,
  );
  const sessions: Session[] = [];
  let done = 0;
  try {
    for (const plan of plans)
      sessions.push(model.createSession({ plan: await model.prepare(plan), execution, contextLength }));
    const results: TaskResult[] = [];
    for (const [task, items] of chosen.entries()) {
      const scores: ItemScore[][] = [];
      for (const { index, item, encoded } of items) {
        let entry = resume?.get(task, index);
        if (!entry) {
          entry = [];
          for (const session of sessions)
            entry.push(
              item.form === 'completion'
                ? await scoreCompletion(session, encoded, pace, signal)
                : await scoreAnswers(session, encoded, signal),
            );
          await resume?.add({ task, item: index, scores: entry });
        }
        expectAnswers(entry, encoded, item, tasks[task]!.name);
        scores.push(entry);
        onProgress?.(++done, all.length);
        await pace.pause();
      }
      results.push(summarize(tasks[task]!, items, scores, options.limit));
    }
    return results;
  } finally {
    for (const session of sessions) session.close();
  }
}

async function chooseItems(
  model: Model,
  task: Task,
  { limit = task.items.length, seed, delimiter }: TaskOptions,
  pace: Pace,
): Promise<ChosenItem[]> {
  const items: ChosenItem[] = [];
  for (const index of drawIndices(task.items.length, limit, seed)) {
    const item = task.items[index]!;
    const encoded = encodeItem(item, model.tokenizer, delimiter, model.config.contextLength);
    if (encoded) items.push({ index, item, encoded });
    await pace.pause();
  }
  if (items.length > 0) return items;
  throw new CqilError(
    'INVALID_ARGUMENT',
    `No answer of the task ${task.name} fits the model's context length; expected at most ` +
      `${model.config.contextLength - 1} tokens, which leaves room for one of its context.`,
  );
}

/** A resume file that somebody edited must not bring numbers of nothing. */
function expectAnswers(entry: ItemScore[], { sequences }: EncodedItem, { line, form }: TaskItem, name: string): void {
  for (const { logLikelihoods, greedy } of entry) {
    if (logLikelihoods.length === sequences.length && (greedy !== undefined) === (form === 'completion')) continue;
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The resume file has ${logLikelihoods.length} scores for line ${line} of the task ${name}; expected one for ` +
        `each of ${sequences.length} answers.`,
    );
  }
}

function summarize(
  { form, items }: Task,
  chosen: ChosenItem[],
  scores: ItemScore[][],
  limit = items.length,
): TaskResult {
  const verdicts = scores[0]!.map((_, plan) =>
    chosen.map(({ item, encoded }, i) => judge(item, encoded, scores[i]![plan]!)),
  );
  return {
    items: chosen.length,
    tokens: chosen.reduce(
      (sum, { encoded }) => encoded.sequences.reduce((tokens, { ids }) => tokens + ids.length, sum),
      0,
    ),
    tooLong: Math.min(limit, items.length) - chosen.length,
    truncated: chosen.filter(({ encoded }) => encoded.truncated).length,
    majority: majority(chosen.map(({ item }) => item)),
    plans: verdicts.map((own) => ({
      accuracy: estimate(own.map(({ right }) => Number(right))),
      normalizedAccuracy:
        form === 'completion' ? undefined : estimate(own.map(({ rightNormalized }) => Number(rightNormalized))),
      nll: estimate(own.map(({ nll }) => nll)),
      agreement: estimate(own.map(({ answer }, i) => Number(answer === verdicts[0]![i]!.answer))).mean,
    })),
  };
}

/**
 * The share of items with the most frequent right answer. Answers are told apart by their index, completions by their
 * text.
 */
function majority(items: readonly TaskItem[]): number {
  const counts = new Map<number | string, number>();
  let most = 0;
  for (const item of items) {
    const answer = item.form === 'completion' ? item.continuation.trim() : item.gold;
    const count = (counts.get(answer) ?? 0) + 1;
    counts.set(answer, count);
    most = Math.max(most, count);
  }
  return most / items.length;
}

interface Verdict {
  right: boolean;
  rightNormalized: boolean;
  nll: number;
  /** What the plan answers: the index of a choice by normalised likelihood, or whether it completes as expected. */
  answer: number | boolean;
}

function judge(item: TaskItem, { lengths }: EncodedItem, { logLikelihoods, greedy }: ItemScore): Verdict {
  if (item.form === 'completion')
    return { right: greedy!, rightNormalized: greedy!, nll: -logLikelihoods[0]!, answer: greedy! };
  const answer = indexOfLargest(logLikelihoods.map((value, i) => value / lengths[i]!));
  return {
    right: indexOfLargest(logLikelihoods) === item.gold,
    rightNormalized: answer === item.gold,
    nll: -logLikelihoods[item.gold]!,
    answer,
  };
}

/** The first among equals. */
function indexOfLargest(values: number[]): number {
  return values.indexOf(Math.max(...values));
}
