import { BUSY_WHILE_MEASURED } from '../latency/busy.js';
import { countStages } from '../../plan/plan.js';
import { counted } from '../../util/count.js';
import { decimals, percent, quantity, signedPercent, whole } from './format.js';
import { explanation, headline } from './headline.js';
import { heatMapFigure } from './heat_map_figure.js';
import { layersFigure, layersTable } from './layers_figure.js';
import { Markup, markup, type Content } from './markup.js';
import { paretoFigure } from './pareto_figure.js';
import { planFigure } from './plan_figure.js';
import { planName } from './plan_name.js';
import type { ReportData } from './report_data.js';
import { STYLE } from './style.js';
import { phasesTable, plansTable } from './tables.js';
import { closeUpFigure, timelineFigure } from './timeline_figure.js';

/** One HTML document that needs nothing else: no network, no script, no font. Well-formed as XML too. */
export function reportPage(data: ReportData): string {
  const { model, rows, similarity, timing, traces } = data;
  const { plan } = rows[1] ?? rows[0]!;
  const page = markup`<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="generator" content="cqil ${data.provenance.cqil}"/>
<title>${model.name}: ${planName(plan)} (cqil report)</title>
<style>
${new Markup(STYLE)}</style>
</head>
<body>
<header>
<p class="eyebrow"><b>cqil report</b> · ${model.name}</p>
<h1>${headline(rows)}</h1>
<p class="lede">${explanation(rows)}</p>
${timing.busy && markup`<p class="lede caution">${BUSY_WHILE_MEASURED}</p>`}
${tiles(data)}
</header>
<main>
${section('Cost and speed', [paretoFigure(data), plansTable(data)])}
${section('The plan', planFigure(data))}
${section('Why these layers', [markup`<div class="pair">${heatMapFigure(similarity, plan)}${layersFigure(similarity, plan)}</div>`, markup`<details><summary>The numbers of every layer</summary>${layersTable(similarity)}</details>`])}
${section('One token', traces.length > 0 ? [timelineFigure(data), closeUpFigure(data, plan), phasesTable(traces)] : markup`<p class="lede">Not traced: the backend ${data.provenance.machine.backend} keeps no times of phases.</p>`)}
</main>
${footer(data)}
</body>
</html>
`;
  return `<!DOCTYPE html>\n${page.text}`;
}

function section(title: string, content: Content): Markup {
  return markup`<section>
<h2>${title}</h2>
${content}
</section>`;
}

/** The numbers of the plan the report is about. */
function tiles({ rows, model }: ReportData): Markup {
  const [sequential, chosen] = rows;
  const { plan, phases, msPerToken, quality } = chosen ?? sequential!;
  const tile = (value: Content, words: Content): Markup => markup`<li><b>${value}</b><span>${words}</span></li>`;
  return markup`<ul class="tiles">
${tile(`${countStages(plan)} of ${model.layers}`, `stages of layers, ${phases} instead of ${sequential!.phases} phases`)}
${tile(`${quantity(msPerToken.median)} ms`, chosen ? `per token, ${signedPercent(chosen.change.median)} against ${quantity(sequential!.msPerToken.median)} ms` : 'per token')}
${tile(decimals(quality.perplexity, 2), chosen ? `perplexity, ${decimals(sequential!.quality.perplexity, 2)} sequentially` : 'perplexity')}
${chosen && tile(quantity(quality.kl.mean), 'nats of KL divergence per token')}
${chosen && tile(percent(quality.topAgreement), 'of tokens keep the same most likely one')}
</ul>`;
}

function footer({ model, text, timing, front, provenance }: ReportData): Markup {
  const { machine, made, cqil, commit, command, seed } = provenance;
  const entries: Array<readonly [string, Content]> = [
    [
      'Model',
      `${model.name} (${model.fingerprint}): ${model.architecture}, ${model.layers} layers, dim ${model.dim}, ` +
        `${whole(model.parameters)} parameters`,
    ],
    [
      'Data',
      `${text.name} (SHA-256 ${text.sha256}…), its first ${whole(text.tokens)} tokens, windows of ${text.window}, ` +
        'protocol gptq',
    ],
    [
      'Timing',
      `${timing.rounds} interleaved rounds of ${timing.promptTokens} + ${timing.tokens} random token ids, seed ${seed}`,
    ],
    ...(front
      ? [
          [
            'Search',
            `${front.file}: ${front.text} (SHA-256 ${front.sha256}…), ${whole(front.tokens)} held-out tokens, seed ` +
              `${front.seed}`,
          ] as const,
        ]
      : []),
    [
      'Machine',
      `${machine.cpu}, ${counted(machine.cores, 'core')}, ${decimals(machine.memoryBytes / 2 ** 30, 1)} GiB; ` +
        `${machine.backend}, ${counted(machine.threads, 'thread')} (${machine.isa}), KV ` +
        `cache ${machine.kvCache}, activations ${machine.activations}; Node.js ${machine.node}`,
    ],
    ['Version', `cqil ${cqil}${commit === null ? '' : `, commit ${commit}`}`],
    ['Made', made],
    ['Command', markup`<code>${command}</code>`],
  ];
  return markup`<footer><dl>${entries.map(
    ([name, value]) => markup`<dt>${name}</dt><dd>${value}</dd>
`,
  )}</dl></footer>`;
}
