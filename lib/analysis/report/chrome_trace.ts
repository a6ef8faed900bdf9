import type { TracedToken } from './report_data.js';

/**
 * Traced tokens in the JSON object format of Chrome's tracing and of Perfetto: one process per token, one thread per
 * engine thread, one complete event per span, in microseconds since the token began.
 */
export function chromeTrace(traces: readonly TracedToken[]): object {
  const traceEvents = traces.flatMap(({ name, timeline }, index) => {
    const pid = index + 1;
    const threads = [...new Set(timeline.spans.map(({ thread }) => thread))];
    const names = [
      { ph: 'M', name: 'process_name', pid, tid: 0, args: { name } },
      ...threads.map((thread) => ({
        ph: 'M',
        name: 'thread_name',
        pid,
        tid: thread,
        args: { name: `thread ${thread}` },
      })),
    ];
    const spans = timeline.spans
      .toSorted((a, b) => a.beginNs - b.beginNs)
      .map(({ kind, stage, phase, layers, lane, thread, beginNs, endNs }) => ({
        ph: 'X',
        name: kind,
        cat: 'phase',
        pid,
        tid: thread,
        ts: beginNs / 1000,
        dur: (endNs - beginNs) / 1000,
        args: { phase, stage, layers, lane },
      }));
    return [...names, ...spans];
  });
  return { displayTimeUnit: 'ns', traceEvents };
}
