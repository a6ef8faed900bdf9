import { resolvePlan } from '../../lib/plan/plan.js';
import { reportPage } from '../../lib/analysis/report/page.js';
import type { PlanRow, ReportData, Spread } from '../../lib/analysis/report/report_data.js';
import type { PhaseKind } from '../../lib/engine/native.js';
import type { Timeline, TimelineSpan } from '../../lib/engine/timeline.js';
import { parseXml, type XmlElement } from './xml.js';

const KINDS: readonly PhaseKind[] = ['qkv', 'attention', 'attention_out', 'gate_up', 'down'];

/** Values at equal distances. */
export function spread(median: number, step: number): Spread {
  return { min: median - 2 * step, low: median - step, median, high: median + step, max: median + 2 * step };
}

/** A row of a plan with numbers that follow from `ms` and `kl`. */
export function sampleRow(plan: string, layers: number, ms: number, kl: number, change: number): PlanRow {
  const resolved = resolvePlan(plan, layers);
  return {
    plan: resolved,
    name: plan,
    lossy: resolved.groups.length > 0,
    phases: 5 * (layers - resolved.groups.reduce((sum, group) => sum + group.length - 1, 0)),
    msPerToken: spread(ms, ms / 100),
    change: spread(change, change === 0 ? 0 : 0.01),
    quality: {
      tokens: 1234,
      nll: 2 + kl,
      nllStandardError: 0.01,
      perplexity: Math.exp(2 + kl),
      perplexityStandardError: 0.25,
      kl: { mean: kl, standardError: kl / 20, p99: kl * 7 },
      topAgreement: 1 - kl,
    },
  };
}

/** One thread that computes a stage of one layer after the other, each phase in 1000 ns after a wait of 100. */
export function sampleTimeline(layers: number): Timeline {
  const spans: TimelineSpan[] = [];
  const add = (kind: PhaseKind, stage: number, own: number[]): void => {
    const beginNs = spans.length * 1100;
    const phase = spans.length;
    spans.push({ step: phase, phase, kind, stage, layers: own, thread: 0, beginNs, endNs: beginNs + 1000 });
  };
  add('embed', -1, []);
  for (let layer = 0; layer < layers; layer++) for (const kind of KINDS) add(kind, layer, [layer]);
  add('head', -1, []);
  return { execution: 'wide', threads: 1, schedule: [], durationNs: spans.at(-1)!.endNs, spans };
}

/** A report with a sequential plan and, from six layers on, two others; nothing in it was measured. */
export function sampleReport(layers = 8): ReportData {
  const index = Array.from({ length: layers }, (_, i) => i);
  return {
    model: { name: 'sample', fingerprint: '0123456789ab', architecture: 'llama', layers, dim: 64, parameters: 1234567 },
    text: { name: 'text.txt', sha256: 'abcdef012345', tokens: 1240, window: 256 },
    similarity: {
      tokens: 1235,
      inputCosine: index.map((i) => index.map((j) => Math.cos(0.2 * Math.abs(i - j)))),
      inputNorm: index.map((i) => 10 + i),
      deltaRatio: index.map((i) => 0.3 + i / 100),
      attentionRatio: index.map((i) => 0.1 + i / 1000),
      mlpRatio: index.map((i) => 0.2 + i / 1000),
      influence: index.map((i) => 0.05 + i / 1000),
    },
    rows: [
      sampleRow('sequential', layers, 2, 0, 0),
      ...(layers < 6
        ? []
        : [sampleRow('P2-D0-S2-E6', layers, 1.5, 0.03, -0.25), sampleRow('P4-D1-S2-E6', layers, 1.2, 0.2, -0.4)]),
    ],
    timing: { rounds: 9, promptTokens: 16, tokens: 32, busy: false },
    front: null,
    traces: [{ plan: resolvePlan('sequential', layers), name: 'sequential', timeline: sampleTimeline(layers) }],
    traced: { position: 16, repeats: 21 },
    provenance: {
      made: '2030-01-02T03:04:05.678Z',
      cqil: '9.9.9',
      commit: 'cafe12345678',
      command: 'cqil report sample --plan P2-S2-E6',
      machine: {
        cpu: 'Sample CPU',
        cores: 4,
        isa: 'plain',
        memoryBytes: 2 ** 33,
        node: '20.0.0',
        backend: 'cpu',
        threads: 2,
        kvCache: 'f32',
        activations: 'float32',
      },
      seed: 1,
    },
  };
}

/** The elements of the page that shows a report. */
export function pageOf(data: ReportData): XmlElement {
  return parseXml(reportPage(data));
}
