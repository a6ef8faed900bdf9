import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import type { Execution } from '../lib/engine/native.js';
import { chromeTrace } from '../lib/analysis/report/chrome_trace.js';
import type { Timeline } from '../lib/engine/timeline.js';
import { expectSameBits, someIds } from './reference/engine.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const PLAN = {
  version: 1,
  layers: 6,
  groups: [
    [1, 2, 3],
    [4, 5],
  ],
  bypass: 1,
  bypassMode: 'paper',
};
const THREADS = 2;

describe('a timeline', () => {
  const folder = tempFolder();
  const ids = someIds(12, 101);
  let model: Model;

  beforeAll(async () => {
    writeRandomModel(folder, { format: 'huggingface', shape: { nLayers: 6, vocabSize: 101 } });
    model = await loadModel(folder, { backend: 'cpu', threads: THREADS, plan: PLAN });
  });
  afterAll(() => model.dispose());

  async function trace(execution: Execution, plan: Record<string, unknown> | string = PLAN): Promise<Timeline> {
    using session = model.createSession({ execution, plan });
    await session.prefill(ids);
    return await session.timeline(5); // before the session is closed
  }

  it.each(['wide', 'lanes'] as const)('covers the whole program, %s', async (execution) => {
    const { phases } = model.program();
    const timeline = await trace(execution);
    expect(timeline).toMatchObject({ execution, threads: THREADS });
    for (const [index, { kind, stage, layers }] of phases.entries()) {
      const spans = timeline.spans.filter(({ phase }) => phase === index);
      for (const span of spans) expect(span).toMatchObject({ kind, stage });
      const apart = execution === 'lanes' && layers.length > 1;
      if (apart) {
        // Each lane by one of the two threads, and where lanes are summed, both once more.
        const lanes = spans.filter(({ lane }) => lane !== undefined);
        expect(lanes.map(({ lane }) => lane).sort()).toEqual(layers.map((_, lane) => lane));
        for (const { lane, layers: own, thread } of lanes)
          expect({ own, thread }).toEqual({ own: [layers[lane!]], thread: lane! % THREADS });
      }
      const together = spans.filter(({ lane }) => lane === undefined);
      expect(together.map(({ thread }) => thread)).toEqual(apart && kind !== 'down' ? [] : [0, 1]);
      for (const { layers: own } of together) expect(own).toEqual(layers);
    }
  });

  it.each(['wide', 'lanes', 'auto'] as const)(
    'has a thread do one thing at a time, in the order of the program, %s',
    async (execution) => {
      const { spans, durationNs } = await trace(execution);
      for (let thread = 0; thread < THREADS; thread++) {
        let free = 0;
        let stage = -1;
        for (const span of spans.filter((one) => one.thread === thread)) {
          expect(span.beginNs).toBeGreaterThanOrEqual(free);
          expect(span.endNs).toBeGreaterThanOrEqual(span.beginNs);
          if (span.kind !== 'head') expect(span.stage).toBeGreaterThanOrEqual(stage);
          [free, stage] = [span.endNs, span.stage];
        }
      }
      expect(durationNs).toBe(Math.max(...spans.map(({ endNs }) => endNs)));
      expect(durationNs).toBeLessThan(60e9);
    },
  );

  it('appends its token as decode does', async () => {
    using timed = model.createSession();
    using plain = model.createSession();
    for (const session of [timed, plain]) await session.prefill(ids);
    await timed.timeline(5);
    await plain.decode(5);
    expect(timed.position).toBe(ids.length + 1);
    expectSameBits([await timed.decode(7)], [await plain.decode(7)], 'after a timeline');
  });

  it('of a sequential plan is wide in any execution', async () => {
    expect(await trace('lanes', 'sequential')).toMatchObject({ execution: 'wide' });
  });

  it('becomes events that do not overlap within a thread', async () => {
    const traces = await Promise.all(
      (['wide', 'lanes'] as const).map(async (execution) => ({
        plan: model.plan,
        name: execution,
        timeline: await trace(execution),
      })),
    );
    const { traceEvents } = JSON.parse(JSON.stringify(chromeTrace(traces))) as {
      traceEvents: Array<{ ph: string; pid: number; tid: number; ts: number; dur: number; args: { phase: number } }>;
    };
    const spans = traceEvents.filter(({ ph }) => ph === 'X');
    expect(spans).toHaveLength(traces.reduce((sum, { timeline }) => sum + timeline.spans.length, 0));
    const free = new Map<string, number>();
    let last = { pid: 0, ts: 0 };
    for (const { pid, tid, ts, dur } of spans) {
      if (pid === last.pid) expect(ts).toBeGreaterThanOrEqual(last.ts);
      expect(dur).toBeGreaterThanOrEqual(0);
      // Begin and duration are rounded to doubles apart from each other.
      expect(ts).toBeGreaterThanOrEqual((free.get(`${pid} ${tid}`) ?? 0) - 1e-6);
      free.set(`${pid} ${tid}`, ts + dur);
      last = { pid, ts };
    }
    expect(free.size).toBe(2 * THREADS);
  });

  it('refuses what decode refuses', async () => {
    const session = model.createSession({ contextLength: 1 });
    await expectRejection('INVALID_ARGUMENT', session.timeline(101), /Token 0 is 101/);
    await expectRejection('INVALID_ARGUMENT', session.timeline('x' as unknown as number));
    await expectRejection('INVALID_ARGUMENT', session.timeline(1, { sgnal: 1 } as object), /did you mean signal/);
    await expectRejection('ABORTED', session.timeline(1, { signal: AbortSignal.abort() }));
    expect(session.position).toBe(0);
    await session.timeline(1);
    await expectRejection('CONTEXT_OVERFLOW', session.timeline(1));
    session.close();
    await expectRejection('DISPOSED', session.timeline(1));
  });
});
