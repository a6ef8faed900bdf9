import { describe, expect, it } from 'vitest';
import { countStages, resolvePlan } from '../lib/plan/plan.js';
import { describePlan, drawPlan, planSummary } from '../lib/plan/plan_diagram.js';

describe('drawPlan', () => {
  it('puts stages in columns and the layers of a group under each other', () => {
    expect(drawPlan(resolvePlan('P3-S2-E7', 11))).toBe(
      [
        'stage    0  1  2  3  4  5  6  7',
        '-------------------------------',
        'lane 0   0  1  2  5  7  8  9 10',
        'lane 1         3  6',
        'lane 2         4',
      ].join('\n'),
    );
  });

  it.each([
    ['sequential', 16],
    ['P2-S4-E12', 16],
    ['P2-S12-E30', 32],
    ['P4-S2-E78', 80],
    ['P16-S0-E120', 120],
    ['sequential', 1],
  ])('shows every layer of %s in %i layers once, in 80 columns', (spec, layers) => {
    const plan = resolvePlan(spec, layers);
    const lines = drawPlan(plan).split('\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    const numbers = (name: string): number[] =>
      lines
        .filter((line) => line.startsWith(name))
        .flatMap((line) => line.replace(/^(stage|lane \d+)/, '').match(/\d+/g) ?? [])
        .map(Number);
    expect(numbers('stage')).toEqual(Array.from({ length: countStages(plan) }, (_, i) => i));
    expect(numbers('lane').sort((a, b) => a - b)).toEqual(Array.from({ length: layers }, (_, i) => i));
  });
});

describe('describePlan', () => {
  it('counts stages and phases', () => {
    const words = describePlan(resolvePlan('P2-D1-S12-E30', 32));
    expect(words).toContain('23 stages instead of 32: 115 phases instead of 160 (28 % fewer');
    expect(words).toContain('9 groups (12-13, 14-15, 16-17 … 28-29) of 32 layers');
    expect(words).toContain('the other 14 layers run alone');
    expect(words).toContain('Bypass distance 1, mode paper: each');
    expect(words).toContain('attention output of up to 1 earlier layer of its group');
    expect(words).toContain('compare perplexity');
  });

  it('says that the sequential plan is the model itself', () => {
    expect(describePlan(resolvePlan(undefined, 16))).toBe(
      'Sequential: all 16 layers run one after the other, 80 phases. This is the model as it was trained.',
    );
  });

  it('tells the official mode and the adapter', () => {
    const words = describePlan(
      resolvePlan({ groups: [[1, 2]], bypass: 1, bypassMode: 'official', adapter: 'tuned' }, 4),
    );
    expect(words).toContain('mode official');
    expect(words).toContain('added to the residual a second time');
    expect(words).toContain('The adapter tuned is there');
  });
});

describe('planSummary', () => {
  it('is the shorthand where there is one, and short where there is none', () => {
    expect(planSummary(resolvePlan('s4-e12-p2', 16))).toBe('P2-D0-S4-E12');
    expect(planSummary(resolvePlan({ groups: [[4, 5]], adapter: 'a' }, 16))).toBe('P2-D0-S4-E6 + adapter');
    expect(planSummary(resolvePlan('LLaMA-7B-S4-E12-P2-D1', 16))).toBe('P2-D1-S4-E12-official');
    expect(
      planSummary(
        resolvePlan(
          {
            groups: [
              [4, 5],
              [8, 9],
            ],
            bypass: 1,
            bypassMode: 'official',
          },
          16,
        ),
      ),
    ).toBe('2 groups in 4-9, D1 official');
  });
});
