import { describe, expect, it } from 'vitest';
import { heatLevel } from '../lib/analysis/report/heat_map_figure.js';
import { heatColours, HEAT_LEVELS } from '../lib/analysis/report/palette.js';
import { pageOf, sampleReport, sampleTimeline } from './support/report_sample.js';
import { elementsOf, textOf, withClass, type XmlElement } from './support/xml.js';

/** The drawing whose title has this id. */
function drawingOf(page: XmlElement, id: string): XmlElement {
  return elementsOf(page, 'svg').find(({ attributes }) => attributes['aria-labelledby']?.startsWith(`${id}-title`))!;
}

describe('the figures', () => {
  it('draw every pair of layers in its colour, and the groups on them', () => {
    const data = sampleReport();
    const map = drawingOf(pageOf(data), 'similarity');
    const cells = elementsOf(map, 'rect').filter(({ children }) => children.length > 0);
    expect(cells).toHaveLength(64);
    expect(textOf(cells[10]!)).toBe('layers 1 and 2: 0.9801');
    expect(cells[10]!.attributes.class).toBe(`h${heatLevel(Math.cos(0.2))}`);
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
    const steps = [-1, 0, 0.5, 0.8, 0.9, 0.95, 0.99, 1].map(heatLevel);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect([steps[0], steps.at(-1)]).toEqual([0, HEAT_LEVELS - 1]);
    for (const theme of ['light', 'dark'] as const) expect(new Set(heatColours(theme)).size).toBe(HEAT_LEVELS);
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
    data.traces[0]!.timeline = { execution: 'lanes', threads: 1, schedule: [], durationNs: 12000, spans };
    const blocks = elementsOf(drawingOf(pageOf(data), 'timeline'), 'rect').map(({ attributes }) => ({
      y: Number(attributes.y),
      height: Number(attributes.height),
    }));
    expect(new Set(blocks.slice(0, 5).map(({ y }) => y)).size).toBe(1);
    expect(blocks[5]!.y).toBeGreaterThanOrEqual(blocks[0]!.y + blocks[0]!.height);
  });
});
