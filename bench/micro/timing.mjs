import { Bench } from 'tinybench';

/**
 * Times tasks { name, run, per?, count?, bytes? } and gives the rows of the report, times in microseconds.
 * A `run` that is too short to time alone does `count` of what `per` names; `bytes` are those one run takes in.
 */
export async function timeTasks(group, tasks, time) {
  const bench = new Bench({ time, warmupTime: time / 3, iterations: 10, throws: true });
  for (const { name, run } of tasks) bench.add(name, run);
  await bench.run();
  return bench.tasks.map(({ name, result }, i) => {
    const { per = 'call', count = 1, bytes } = tasks[i];
    const { p50, min, max, samplesCount } = result.latency;
    const [median, least, most] = [p50, min, max].map((ms) => (ms * 1000) / count);
    return {
      group,
      name,
      per,
      median,
      min: least,
      max: most,
      samples: samplesCount,
      ...(bytes && { gigabytesPerSecond: bytes / p50 / 1e6 }),
    };
  });
}
