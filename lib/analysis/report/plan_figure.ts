import { PHASES_PER_STAGE, stagesOf } from '../../plan/plan_diagram.js';
import { drawing, figure, legend } from './figure.js';
import { at, count, layerRange, percent } from './format.js';
import { markup, type Markup } from './markup.js';
import type { PlanRow, ReportData } from './report_data.js';

/** Plans drawn at most, sequential included. */
const MOST_PLANS = 5;
const WIDTH = 1030;
const WIDEST_CELL = 60;
/** Cells narrower than this have no number in them. */
const NUMBERED_CELL = 18;
const LANE = 26;
const HEADER = 26;
const GAP = 22;

/** Plans as columns of layers: time runs to the right, what is above one another runs at the same time. */
export function planFigure({ rows, model }: Pick<ReportData, 'rows' | 'model'>): Markup {
  const drawn = rows.slice(0, MOST_PLANS);
  const cell = Math.max(10, Math.min(WIDEST_CELL, WIDTH / model.layers));
  let top = 0;
  const parts = drawn.map((row) => {
    const part = planRow(row, top, cell);
    top += part.height + GAP;
    return part.body;
  });
  const left = rows.length > drawn.length ? ` The first ${drawn.length} of ${rows.length} plans.` : '';
  return figure(
    [
      legend([
        ['k-alone', 'a layer by itself'],
        ['k-grouped', 'layers that share an input'],
      ]),
      drawing({
        id: 'plans',
        title: 'The plans, stage by stage',
        description: drawn
          .map(({ name, phases }) => `${name}: ${phases / PHASES_PER_STAGE} stages, ${phases} phases.`)
          .join(' '),
        width: cell * model.layers + 2,
        height: top - GAP + 2,
        body: parts,
        scrolls: true,
      }),
    ],
    markup`<b>What a plan does to the depth.</b> Time runs to the right, one column per stage of ${PHASES_PER_STAGE} dependent phases; the layers of a column see the same input and run at the same time.${left}`,
  );
}

function planRow({ plan, name, phases }: PlanRow, top: number, cell: number): { body: Markup; height: number } {
  const stages = stagesOf(plan);
  const lanes = Math.max(...stages.map((stage) => stage.length));
  const height = HEADER + lanes * LANE;
  const saved = plan.layers - stages.length;
  const y = top + HEADER;
  const middle = y + (lanes * LANE) / 2;
  const end = stages.length * cell;
  const body = markup`<text class="label" x="0" y="${top + 15}">${name}<tspan class="soft" dx="10">${count(stages.length, 'stage')}, ${count(phases, 'phase')}</tspan></text>
<path class="wire" d="M0 ${at(middle)}H${at(end)}"/>
${saved > 0 && markup`<path class="saved" d="M${at(end + 4)} ${at(middle)}H${at(plan.layers * cell)}"/>${saved * cell > 150 && markup`<text class="soft small" x="${at((end + plan.layers * cell) / 2)}" y="${at(middle - 7)}" text-anchor="middle">${percent(saved / plan.layers, 0)} fewer phases</text>`}`}
${stages.map((stage, i) => column(stage, i, cell, y + ((lanes - stage.length) * LANE) / 2))}`;
  return { body, height };
}

function column(stage: readonly number[], index: number, cell: number, top: number): Markup {
  const className = stage.length > 1 ? 'grouped' : 'alone';
  const [gap, radius] = cell > 14 ? [2, 4] : [1, 2];
  return markup`<g><title>stage ${index}: ${layerRange(stage)}</title>${stage.map((layer, lane) => {
    const [x, y] = [index * cell + gap, top + lane * LANE + 2];
    return markup`<rect class="k-${className}" x="${at(x)}" y="${at(y)}" width="${at(cell - 2 * gap)}" height="${LANE - 4}" rx="${radius}"/>${cell >= NUMBERED_CELL && markup`<text class="on-${className}" x="${at(x + cell / 2 - gap)}" y="${at(y + 15.5)}" text-anchor="middle">${layer}</text>`}`;
  })}</g>`;
}
