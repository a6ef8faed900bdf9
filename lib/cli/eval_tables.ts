import type { TextQuality } from '../analysis/eval/compare_plans.js';
import type { TaskResult } from '../analysis/eval/run_tasks.js';
import type { Estimate } from '../analysis/eval/statistics.js';
import type { Task } from '../analysis/eval/task_file.js';
import type { Protocol } from '../analysis/eval/windows.js';
import { formatTable } from './table.js';
import type { TextFile } from './text_file.js';

export interface TextReport {
  file: string;
  sha256: string;
  tokens: number;
  protocol: Protocol;
  window: number;
  plans: TextQuality[];
}

/** A task and the file it came from. */
export type TaskSource = Task & Pick<TextFile, 'sha256'>;

export interface TaskReport extends TaskResult, Pick<TaskSource, 'sha256' | 'form'> {
  file: string;
  /** Items in the file. */
  itemsInFile: number;
}

/** The quality of each plan on a text. A label is a plan's name, and whether it is lossy. */
export function formatText({ file, sha256, tokens, protocol, window, plans }: TextReport, labels: string[][]): string {
  const cells = plans.map((row, i) => [
    ...labels[i]!,
    String(row.tokens),
    row.nll.toFixed(4),
    plusMinus(row.perplexity, row.perplexityStandardError, 3),
    plusMinus(row.kl.mean, row.kl.standardError, 4),
    row.kl.p99.toFixed(4),
    percent(row.topAgreement),
  ]);
  const table = formatTable(['plan', '', 'scored', 'nll', 'perplexity', 'KL mean', 'KL p99', 'same top'], cells);
  return `${table}Text ${file} (${sha256}), ${tokens} tokens; protocol ${protocol}, windows of ${window}.\n`;
}

/** The quality of each plan on a task. */
export function formatTask(
  { file, sha256, form, items, itemsInFile, tokens, tooLong, truncated, majority, plans }: TaskReport,
  labels: string[][],
): string {
  const normalized = form !== 'completion';
  const cells = plans.map((row, i) => [
    ...labels[i]!,
    percent(row.accuracy.mean, row.accuracy),
    ...(row.normalizedAccuracy ? [percent(row.normalizedAccuracy.mean, row.normalizedAccuracy)] : []),
    plusMinus(row.nll.mean, row.nll.standardError, 3),
    percent(row.agreement),
  ]);
  cells.push(['the most frequent answer', '', percent(majority), ...cells[0]!.slice(3).map(() => '')]);
  const table = formatTable(['plan', '', 'acc', ...(normalized ? ['acc_norm'] : []), 'nll', 'as sequential'], cells);
  const cut = truncated > 0 ? `; ${truncated} with the beginning cut off to fit the context` : '';
  const leftOut = tooLong > 0 ? `; ${tooLong} left out as too long for it` : '';
  return `${table}Task ${file} (${sha256}), ${items} of ${itemsInFile} questions, ${tokens} tokens${cut}${leftOut}.\n`;
}

function plusMinus(value: number, error: number, digits: number): string {
  return `${value.toFixed(digits)} ± ${error.toFixed(digits)}`;
}

function percent(share: number, estimate?: Estimate): string {
  const error = estimate ? ` ± ${(estimate.standardError * 100).toFixed(1)}` : '';
  return `${(share * 100).toFixed(1)}${error} %`;
}
