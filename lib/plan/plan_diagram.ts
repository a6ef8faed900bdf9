import { counted } from '../util/count.js';
import { checkedPlan, countStages, planShorthand, type Plan } from './plan.js';

/** Dependent phases of a stage: qkv, attention, attention_out, gate_up, down. */
export const PHASES_PER_STAGE = 5;
const WIDTH = 80;

/** A plan's name in a table: its shorthand, or the gist of it on one short line. */
export function planSummary(plan: Plan): string {
  const shorthand = planShorthand({ ...plan, adapter: undefined, evidence: undefined });
  const name =
    shorthand ??
    `${counted(plan.groups.length, 'group')} in ${range(plan.groups[0]![0]!, plan.groups.at(-1)!.at(-1)!)}, ` +
      `${bypassName(plan)}`;
  return plan.adapter === undefined ? name : `${name} + adapter`;
}

/**
 * What a plan does, in a few sentences: which layers share an input, how many phases remain, and what it costs. Throws
 * INVALID_PLAN for what is no plan.
 */
export function describePlan(plan: Plan): string {
  plan = checkedPlan(plan);
  const stages = countStages(plan);
  const [before, after] = [plan.layers * PHASES_PER_STAGE, stages * PHASES_PER_STAGE];
  if (plan.groups.length === 0) {
    const weights =
      plan.adapter === undefined
        ? 'This is the model as it was trained.'
        : `The adapter ${plan.adapter} changes its weights.`;
    return `Sequential: all ${counted(plan.layers, 'layer')} run one after the other, ${before} phases. ${weights}`;
  }
  const sentences = [
    `${planSummary(plan)}: ${counted(plan.groups.length, 'group')} (${listRanges(plan.groups)}) of ` +
      `${counted(plan.layers, 'layer')}. The layers of a group share one input, run side by side, and their outputs ` +
      `are summed; ${aloneWords(plan)}.`,
    `${counted(stages, 'stage')} instead of ${plan.layers}: ${after} phases instead of ${before} ` +
      `(${Math.round((1 - after / before) * 100)} % fewer dependent phases, ${PHASES_PER_STAGE} per stage).`,
  ];
  if (plan.bypass > 0) {
    const residual =
      plan.bypassMode === 'official'
        ? ', and it is added to the residual a second time, as adapters published with this bypass expect'
        : '';
    sentences.push(
      `Bypass distance ${plan.bypass}, mode ${plan.bypassMode}: each layer's MLP also sees the attention output of ` +
        `up to ${counted(plan.bypass, 'earlier layer')} of its group${residual}.`,
    );
  }
  sentences.push(
    plan.adapter === undefined
      ? 'A grouped layer no longer sees the outputs of its group, so the text changes: compare perplexity before ' +
          'relying on it.'
      : `The adapter ${plan.adapter} is there to make up for what grouped layers no longer see.`,
  );
  return sentences.join('\n');
}

/**
 * A plan as a table in ASCII: time runs to the right, one column per stage, and the layers of a column run at the same
 * time, one per lane. At most 80 columns wide; long plans continue below. Throws INVALID_PLAN for what is no plan.
 */
export function drawPlan(plan: Plan): string {
  plan = checkedPlan(plan);
  const stages = stagesOf(plan);
  const lanes = Math.max(...stages.map((stage) => stage.length));
  const cell = String(plan.layers - 1).length + 1;
  const label = Math.max('stage'.length, `lane ${lanes - 1}`.length);
  const perBand = Math.floor((WIDTH - label - 1) / cell);
  const bands: string[] = [];
  for (let from = 0; from < stages.length; from += perBand) {
    const band = stages.slice(from, from + perBand);
    const row = (name: string, cells: Array<number | undefined>): string =>
      `${name.padEnd(label)} ${cells.map((value) => String(value ?? '').padStart(cell)).join('')}`.trimEnd();
    const lines = [
      row(
        'stage',
        band.map((_, i) => from + i),
      ),
      '-'.repeat(label + 1 + band.length * cell),
    ];
    for (let lane = 0; lane < Math.max(...band.map((stage) => stage.length)); lane++) {
      lines.push(
        row(
          `lane ${lane}`,
          band.map((stage) => stage[lane]),
        ),
      );
    }
    bands.push(lines.join('\n'));
  }
  return bands.join('\n\n');
}

/** The layers of each stage, in order. */
export function stagesOf(plan: Plan): number[][] {
  const grouped = new Map(plan.groups.map((group) => [group[0]!, group]));
  const stages: number[][] = [];
  for (let layer = 0; layer < plan.layers; layer += stages.at(-1)!.length) stages.push(grouped.get(layer) ?? [layer]);
  return stages;
}

function aloneWords(plan: Plan): string {
  const alone = plan.layers - plan.groups.flat().length;
  if (alone === 0) return 'no layer runs alone';
  return alone === 1 ? 'the other layer runs alone' : `the other ${alone} layers run alone, one after the other`;
}

function bypassName(plan: Plan): string {
  return `D${plan.bypass}${plan.bypass > 0 && plan.bypassMode === 'official' ? ' official' : ''}`;
}

function listRanges(groups: number[][]): string {
  const ranges = groups.map((group) => range(group[0]!, group.at(-1)!));
  return ranges.length <= 8 ? ranges.join(', ') : `${ranges.slice(0, 3).join(', ')} … ${ranges.at(-1)}`;
}

function range(first: number, last: number): string {
  return `${first}-${last}`;
}
