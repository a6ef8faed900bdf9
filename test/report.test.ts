import { describe, expect, it } from 'vitest';
import { chromeTrace } from '../lib/analysis/report/chrome_trace.js';
import { explanation, headline } from '../lib/analysis/report/headline.js';
import { heatStep } from '../lib/analysis/report/heat_map_figure.js';
import { placeLabels } from '../lib/analysis/report/label_places.js';
import { markup } from '../lib/analysis/report/markup.js';
import { reportPage } from '../lib/analysis/report/page.js';
import { heatColours, HEAT_STEPS } from '../lib/analysis/report/palette.js';
import { planName } from '../lib/analysis/report/plan_name.js';
import type { ReportData } from '../lib/analysis/report/report_data.js';
import { ticks } from '../lib/analysis/report/scale.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { sampleReport, sampleRow, sampleTimeline, spread } from './support/report_sample.js';
import { elementsOf, parseXml, textOf, withClass, type XmlElement } from './support/xml.js';

function pageOf(data: ReportData): XmlElement {
  return parseXml(reportPage(data));
}

function byId(page: XmlElement, id: string): XmlElement {
  const found = elementsOf(page).filter(({ attributes }) => attributes.id === id);
  expect(found, id).toHaveLength(1);
  return found[0]!;
}

/** The drawing whose title has this id. */
function drawingOf(page: XmlElement, id: string): XmlElement {
  return elementsOf(page, 'svg').find(({ attributes }) => attributes['aria-labelledby']?.startsWith(`${id}-title`))!;
}

/** Cells of the table below the caption of this id. */
function cellsOf(page: XmlElement, id: string): string[][] {
  const table = elementsOf(page, 'table').find(({ attributes }) => attributes['aria-labelledby'] === id)!;
  return elementsOf(table, 'tr').map((row) => row.children.filter((child) => typeof child !== 'string').map(textOf));
}

const HOSTILE =
  `</title><script>alert("1")</script>'&amp;&<img src=x onerror=alert(1)>]]>\u202e\u0000\u0007\ud800 ` + `--> \${x}`;

describe('the page', () => {
  it('is well-formed, and complete without a network', () => {
    const data = {
      ...sampleReport(),
      front: {
        file: 'search.json',
        text: 'text.txt',
        sha256: 'abc',
        tokens: 99,
        seed: 3,
        plans: [
          {
            ...sampleRow('P2-D0-S2-E6', 8, 1.6, 0.04, -0.2),
            method: 'uniform',
            kl: 0.04,
            klStandardError: 0.001,
            perplexity: 9.5,
          },
        ],
      },
    };
    const html = reportPage(data);
    const page = parseXml(html);
    expect(html.startsWith('<!DOCTYPE html>\n')).toBe(true);
    expect(html).not.toMatch(/\b(?:https?|ftp|data|javascript):|url\(|@import|\b(?:src|href|srcset)\s*=/i);
    const names = new Set(elementsOf(page).map(({ name }) => name));
    for (const forbidden of [
      'script',
      'link',
      'img',
      'iframe',
      'object',
      'embed',
      'use',
      'image',
      'foreignObject',
      'form',
      'base',
    ])
      expect(names.has(forbidden), forbidden).toBe(false);
    expect(
      elementsOf(page, 'meta').some(
        ({ attributes }) => attributes.content === "default-src 'none'; style-src 'unsafe-inline'",
      ),
    ).toBe(true);
  });

  it('says in words what every drawing shows, and names nothing twice', () => {
    const page = pageOf(sampleReport());
    const drawings = elementsOf(page, 'svg');
    expect(drawings.length).toBe(7);
    for (const { attributes } of drawings) {
      expect(attributes.role).toBe('img');
      for (const id of attributes['aria-labelledby']!.split(' '))
        expect(textOf(byId(page, id)).length).toBeGreaterThan(5);
    }
    const ids = elementsOf(page).flatMap(({ attributes }) => attributes.id ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { attributes } of elementsOf(page, 'table')) byId(page, attributes['aria-labelledby']!);
  });

  it('shows hostile names as text', () => {
    const data = sampleReport();
    data.model.name = HOSTILE;
    data.text.name = HOSTILE;
    data.provenance.command = HOSTILE;
    data.provenance.machine.cpu = HOSTILE;
    data.rows[1]!.name = HOSTILE;
    data.traces[0]!.name = HOSTILE;
    data.front = {
      file: HOSTILE,
      text: HOSTILE,
      sha256: HOSTILE,
      tokens: 1,
      seed: 0,
      plans: [
        {
          ...sampleRow('P2-D0-S2-E6', 8, 1.6, 0.04, -0.2),
          name: HOSTILE,
          method: HOSTILE,
          kl: 0.04,
          klStandardError: 0,
          perplexity: 9,
        },
      ],
    };
    const page = pageOf(data);
    expect(elementsOf(page).filter(({ name }) => name === 'script' || name === 'img')).toEqual([]);
    expect(
      elementsOf(page)
        .flatMap(({ attributes }) => Object.keys(attributes))
        .filter((name) => name.startsWith('on')),
    ).toEqual([]);
    const shown = ['\u202e', '\u0000', '\u0007', '\ud800'].reduce(
      (text, character) => text.replaceAll(character, '\ufffd'),
      HOSTILE,
    );
    expect(textOf(elementsOf(page, 'code')[0]!)).toBe(shown);
    expect(textOf(elementsOf(page, 'h1')[0]!)).toContain(shown);
    expect(cellsOf(page, 'plans-table')[2]![0]).toBe(shown);
  });

  it('has the numbers it was given', () => {
    const data = sampleReport();
    const page = pageOf(data);
    const [, ...rows] = cellsOf(page, 'plans-table');
    expect(rows[0]).toEqual([
      'sequential',
      'lossless',
      '40',
      '2.00 (1.96 – 2.04)',
      '',
      '7.389 ± 0.250',
      '0',
      '0',
      '100.0\u202f%',
    ]);
    expect(rows[1]).toEqual([
      'P2-D0-S2-E6',
      'lossy',
      '30',
      '1.50 (1.47 – 1.53)',
      '−25.0\u202f% (−26.0 … −24.0)',
      '7.614 ± 0.250',
      '0.0300 ± 0.0015',
      '0.2100',
      '97.0\u202f%',
    ]);
    expect(rows).toHaveLength(3);
    const layers = cellsOf(page, 'layers-table').slice(1);
    expect(layers[3]).toEqual(['3', '0.9801', '13.0000', '0.3300', '0.1030', '0.2030', '0.0530']);
    expect(layers.at(-1)![1]).toBe('');
    const phases = Object.fromEntries(cellsOf(page, 'phases-table').slice(1));
    // 42 phases of 1 µs, 41 waits of 0.1 µs.
    expect(phases).toMatchObject({
      embed: '1.0 (2\u202f%)',
      qkv: '8.0 (17\u202f%)',
      waiting: '4.1 (9\u202f%)',
      'the token': '46.1',
    });
  });

  it('names where everything comes from', () => {
    const footer = textOf(elementsOf(pageOf(sampleReport()), 'footer')[0]!);
    for (const part of [
      'sample (0123456789ab)',
      '8 layers',
      '1\u202f234\u202f567 parameters',
      'text.txt (SHA-256 abcdef012345…)',
      '9 interleaved rounds',
      'seed 1',
      'Sample CPU',
      '8.0 GiB',
      'cqil 9.9.9, commit cafe12345678',
      '2030-01-02T03:04:05.678Z',
      'cqil report sample --plan P2-S2-E6',
    ])
      expect(footer).toContain(part);
    const installed = sampleReport();
    installed.provenance.commit = null;
    expect(textOf(elementsOf(pageOf(installed), 'footer')[0]!)).not.toContain('commit');
  });

  it('stands without other plans, without traces, and with one layer', () => {
    const data = sampleReport();
    expect(textOf(pageOf({ ...data, traces: [] }))).toContain('Not traced: the backend cpu keeps no times of phases.');
    const alone = pageOf({ ...data, rows: data.rows.slice(0, 1) });
    expect(textOf(elementsOf(alone, 'h1')[0]!)).toMatch(/^The sequential model takes 2\.00 ms per token/);
    expect(withClass(alone, 'bracket')).toEqual([]);
    expect(elementsOf(pageOf(sampleReport(1)), 'svg')).toHaveLength(7);
  });
});

describe('the figures', () => {
  it('draw every pair of layers in its colour, and the groups on them', () => {
    const data = sampleReport();
    const map = drawingOf(pageOf(data), 'similarity');
    const cells = elementsOf(map, 'rect').filter(({ children }) => children.length > 0);
    expect(cells).toHaveLength(64);
    expect(textOf(cells[10]!)).toBe('layers 1 and 2: 0.9801');
    expect(cells[10]!.attributes.class).toBe(`h${heatStep(Math.cos(0.2))}`);
    const squares = elementsOf(map, 'rect').filter(({ attributes }) => attributes.class === 'bracket');
    const side = Number(cells[1]!.attributes.x);
    expect(squares.map(({ attributes }) => Math.round(Number(attributes.x) / side))).toEqual([2, 4]);
    for (const { attributes } of squares) expect(Number(attributes.width)).toBeCloseTo(2 * side - 2, 0);
  });

  it('let neighbours share a cell where there are very many layers', () => {
    const deep = sampleReport(200);
    const cells = elementsOf(drawingOf(pageOf(deep), 'similarity'), 'rect').filter(
      ({ children }) => children.length > 0,
    );
    expect(cells).toHaveLength(67 * 67);
    expect(textOf(cells[1]!)).toMatch(/^layers 0–2 and 3–5: 0\.8/);
    expect(textOf(cells.at(-1)!)).toMatch(/^layers 198–199 and 198–199/);
  });

  it('give more alike inputs a later step, in both themes', () => {
    const steps = [-1, 0, 0.5, 0.8, 0.9, 0.95, 0.99, 1].map(heatStep);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect([steps[0], steps.at(-1)]).toEqual([0, HEAT_STEPS - 1]);
    for (const theme of ['light', 'dark'] as const) expect(new Set(heatColours(theme)).size).toBe(HEAT_STEPS);
  });

  it('put sequential into both plots, with bars for every plan', () => {
    const page = pageOf(sampleReport());
    for (const id of ['kl', 'perplexity']) {
      const plot = drawingOf(page, id);
      expect(withClass(plot, 'm-sequential')).toHaveLength(1);
      expect(withClass(plot, 'm-measured')).toHaveLength(2);
      expect(withClass(plot, 'bar')).toHaveLength(3);
      expect(textOf(elementsOf(withClass(plot, 'm-sequential')[0]!, 'title')[0]!)).toContain(
        'sequential: 2.00 ms per token (1.96 to 2.04)',
      );
    }
  });

  it('cut a bar off at the frame rather than squeeze all others together', () => {
    const data = sampleReport();
    data.rows[0]!.msPerToken.max = 1000;
    data.rows[1]!.msPerToken.min = 0;
    const [sequential, plan] = withClass(drawingOf(pageOf(data), 'kl'), 'bar').map(({ attributes }) => attributes.d!);
    expect(sequential).toContain('H416m-5 -4l5 4l-5 4');
    expect(plan).toMatch(/^M63 [\d.]+l-5 4l5 4m-5 -4/);
  });

  it('draw each stage of each plan once', () => {
    const plans = drawingOf(pageOf(sampleReport()), 'plans');
    expect(withClass(plans, 'k-alone')).toHaveLength(8 + 4 + 4);
    expect(withClass(plans, 'k-grouped')).toHaveLength(4 + 4);
    expect(elementsOf(plans, 'title').map(textOf)).toContain('stage 2: layers 2–5');
  });

  it('draw every span of a traced token where and as long as it was', () => {
    const blocks = elementsOf(drawingOf(pageOf(sampleReport()), 'timeline'), 'rect');
    expect(blocks).toHaveLength(42);
    const [first, second] = blocks.map(({ attributes }) => ({
      x: Number(attributes.x),
      width: Number(attributes.width),
    }));
    expect((second!.x - first!.x) / first!.width).toBeCloseTo(1.1, 1);
    expect(textOf(blocks[6]!)).toBe('qkv, stage 1, layer 1, thread 0: 1.0 µs, from 6.6 µs');
  });

  it('show the first group at close range, before and after', () => {
    const data = sampleReport();
    const { plan } = data.rows[1]!;
    const grouped = sampleTimeline(8)
      .spans.filter(({ stage }) => stage < 7)
      .map((span) => (span.stage === 2 ? { ...span, layers: [2, 3] } : span));
    data.traces.push({ plan, name: 'grouped', timeline: { ...sampleTimeline(8), spans: grouped } });
    const closeUp = drawingOf(pageOf(data), 'close-up');
    expect(textOf(elementsOf(closeUp, 'title')[0]!)).toBe('layers 2–3 at close range');
    expect(withClass(closeUp, 'label').map(textOf)).toEqual([
      'sequential10 phases, 10.9 µs',
      'grouped10 phases, 10.9 µs',
    ]);
    expect(elementsOf(closeUp, 'rect')).toHaveLength(20);
  });

  it('lay lanes into parts of their row', () => {
    const data = sampleReport();
    const spans = sampleTimeline(2)
      .spans.slice(1, 11)
      .map((span, i) => ({ ...span, lane: i < 5 ? 0 : 1 }));
    data.traces[0]!.timeline = { execution: 'lanes', threads: 1, durationNs: 12000, spans };
    const blocks = elementsOf(drawingOf(pageOf(data), 'timeline'), 'rect').map(({ attributes }) => ({
      y: Number(attributes.y),
      height: Number(attributes.height),
    }));
    expect(new Set(blocks.slice(0, 5).map(({ y }) => y)).size).toBe(1);
    expect(blocks[5]!.y).toBeGreaterThanOrEqual(blocks[0]!.y + blocks[0]!.height);
  });
});

describe('the headline', () => {
  const sequential = sampleRow('sequential', 8, 2, 0, 0);
  const withChange = (change: number, step: number) => ({
    ...sampleRow('P2-D0-S2-E6', 8, 1.5, 0.03, change),
    change: spread(change, step),
  });

  it('says faster or slower only where the rounds agree', () => {
    expect(headline([sequential, withChange(-0.12, 0.01)])).toBe(
      'P2-D0-S2-E6 takes 12\u202f% less time per token than the sequential model and costs 0.0300 nats.',
    );
    expect(headline([sequential, withChange(0.05, 0.01)])).toBe(
      'P2-D0-S2-E6 takes 5\u202f% more time per token than the sequential model but costs 0.0300 nats.',
    );
    expect(headline([sequential, withChange(-0.05, 0.06)])).toBe(
      'P2-D0-S2-E6 cannot be told from the sequential model by its time per token, but costs 0.0300 nats.',
    );
    expect(headline([sequential, withChange(-0.004, 0.001)])).toContain('takes 0.4\u202f% less');
  });

  it('says lossy and lossless', () => {
    expect(explanation([sequential, withChange(-0.12, 0.01)])).toMatch(
      /^It is lossy: .* perplexity is 7\.61 instead of 7\.39, .* 97\.0\u202f% of tokens\. Sequential is lossless\.$/,
    );
    expect(explanation([sequential])).toMatch(/^Sequential is lossless/);
  });

  it('warns of times from a busy machine', () => {
    const quiet = sampleReport();
    expect(reportPage(quiet)).not.toContain('The machine was busy');
    expect(reportPage({ ...quiet, timing: { ...quiet.timing, busy: true } })).toContain(
      'The machine was busy with something else',
    );
  });
});

describe('parts', () => {
  it('templates escape values and leave markup alone', () => {
    expect(markup`<a b="${'"<&\''}">${markup`<c/>`}${['x', 1, undefined, null, false]}</a>`.text).toBe(
      '<a b="&quot;&lt;&amp;&#39;"><c/>x1</a>',
    );
    expect(markup`${'\t\n\ud83d\ude00 \udc00'}`.text).toBe('\t\n\ud83d\ude00 \ufffd');
  });

  it('ticks are round and inside', () => {
    expect(ticks(0, 1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(ticks(0.27, 0.62, 4)).toEqual([0.3, 0.4, 0.5, 0.6]);
    expect(ticks(-3, 1700, 4)).toEqual([0, 500, 1000, 1500]);
  });

  it('names stand beside their points, cover nothing and are left out where there is no room', () => {
    const frame = { left: 0, right: 300, top: 0, bottom: 300 };
    const points = [
      { name: 'one', x: 100, y: 100 },
      { name: 'two', x: 104, y: 100 },
      { name: 'at the right edge', x: 295, y: 200 },
    ];
    const [one, two, edge] = placeLabels(points, frame, 8);
    expect([one?.anchor, two?.anchor, edge?.anchor]).toEqual(['end', 'start', 'end']);
    expect(
      placeLabels(
        Array.from({ length: 40 }, () => ({ name: 'the same place', x: 150, y: 150 })),
        frame,
        8,
      ).filter(Boolean).length,
    ).toBeLessThan(7);
  });

  it('plans are called by their shorthand, or by their groups', () => {
    const named = (groups: number[][], bypass = 0, more = {}) =>
      planName(resolvePlan({ version: 1, layers: 40, groups, bypass, ...more }));
    expect(
      named([
        [2, 3],
        [4, 5],
      ]),
    ).toBe('P2-D0-S2-E6');
    expect(
      named(
        [
          [2, 3, 4, 5],
          [6, 7, 8],
          [11, 12],
        ],
        1,
      ),
    ).toBe('[2–5] [6–8] [11–12] D1');
    expect(named([0, 3, 6, 9, 12, 15].map((i) => [i, i + 1]))).toBe('[0–1] [3–4] [6–7] … [15–16] D0');
    expect(named([[2, 3]], 1, { bypassMode: 'official', adapter: 'a' })).toBe('P2-D1-S2-E4-official + adapter');
  });

  it('traces are events that Chrome and Perfetto read', () => {
    const { traceEvents } = chromeTrace(sampleReport(2).traces) as { traceEvents: Array<Record<string, unknown>> };
    expect(traceEvents.slice(0, 2)).toEqual([
      { ph: 'M', name: 'process_name', pid: 1, tid: 0, args: { name: 'sequential' } },
      { ph: 'M', name: 'thread_name', pid: 1, tid: 0, args: { name: 'thread 0' } },
    ]);
    expect(traceEvents[3]).toEqual({
      ph: 'X',
      name: 'qkv',
      cat: 'phase',
      pid: 1,
      tid: 0,
      ts: 1.1,
      dur: 1,
      args: { phase: 1, stage: 0, layers: [0], lane: undefined },
    });
    expect(traceEvents).toHaveLength(2 + 12);
  });
});
