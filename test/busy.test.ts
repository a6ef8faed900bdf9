import { describe, expect, it } from 'vitest';
import { medianInterval, mulberry32 } from '../lib/analysis/eval/statistics.js';
import { watchBusy } from '../lib/analysis/latency/busy.js';
import { scatter } from '../lib/analysis/latency/timing.js';

describe('a busy machine', () => {
  const gpu = { backend: 'cuda', threads: 0 } as const; // whose host's processors do not matter

  it('is told by times that scatter', async () => {
    const measured = (ratio: number) =>
      watchBusy(
        gpu,
        async () => ratio,
        (result) => result,
      );
    expect(await measured(0.4)).toEqual({ result: 0.4, busy: false });
    expect(await measured(0.7)).toEqual({ result: 0.7, busy: true });
  });

  it('is told by processors that have work', async () => {
    const threads = 4096; // nobody has so many idle ones
    expect(
      (
        await watchBusy(
          { backend: 'cpu', threads },
          async () => 1,
          () => 0,
        )
      ).busy,
    ).toBe(true);
  });

  it('scatter is of the typical contender, from its fastest round', () => {
    expect(
      scatter([
        [1, 1.5, 9],
        [2, 2.2, 2.1],
        [1, 3, 3],
      ]),
    ).toBeCloseTo(0.5);
  });
});

describe('the interval of a median', () => {
  it('is infinite until there are values enough for the confidence', () => {
    const values = [5, 1, 3, 2, 4, 7, 6];
    expect(medianInterval(values, 0.99)).toEqual([-Infinity, Infinity]);
    expect(medianInterval([...values, 8], 0.99)).toEqual([1, 8]);
    // One or fewer of ten values on a side: 2 · 11 / 1024 = 2.1 %.
    expect(
      medianInterval(
        Array.from({ length: 10 }, (_, i) => i),
        0.95,
      ),
    ).toEqual([1, 8]);
  });

  it('is found for thousands of values', () => {
    const [low, high] = medianInterval(
      Array.from({ length: 10_001 }, (_, i) => i),
      0.99,
    );
    expect(low + high).toBe(10_000);
    // By the normal distribution: 2.576 standard deviations of 50.
    expect(Math.abs(high - low - 2 * 128.8)).toBeLessThan(3);
  });

  it('holds the median as often as it says', () => {
    const random = mulberry32(3);
    const draws = 2000;
    let held = 0;
    for (let i = 0; i < draws; i++) {
      const [low, high] = medianInterval(
        Array.from({ length: 15 }, () => random() ** 3),
        0.95,
      );
      if (low <= 0.125 && 0.125 <= high) held++;
    }
    expect(held / draws).toBeGreaterThan(0.94);
  });
});
