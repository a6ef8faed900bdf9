import { describe, expect, it } from 'vitest';
import { chromeTrace } from '../lib/analysis/report/chrome_trace.js';
import { placeLabels } from '../lib/analysis/report/label_places.js';
import { markup } from '../lib/analysis/report/markup.js';
import { planName } from '../lib/analysis/report/plan_name.js';
import { ticks } from '../lib/analysis/report/scale.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { sampleReport } from './support/report_sample.js';

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
