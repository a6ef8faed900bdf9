import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CqilError } from '../lib/errors.js';
import { countStages, formatPlan, planShorthand, resolvePlan, type Plan, type PlanInput } from '../lib/plan/plan.js';
import { toNativePlan } from '../lib/engine/native.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();

function write(name: string, content: unknown): string {
  const file = path.join(folder, name);
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

function pairs(first: number, end: number): number[][] {
  return Array.from({ length: (end - first) / 2 }, (_, i) => [first + 2 * i, first + 2 * i + 1]);
}

function refusal(input: PlanInput, layers: number | undefined = 16): CqilError {
  try {
    resolvePlan(input, layers);
  } catch (error) {
    expect(error).toBeInstanceOf(CqilError);
    return error as CqilError;
  }
  throw new Error(`accepted ${JSON.stringify(input)}`);
}

describe('shorthand', () => {
  it('is the published grouping of LLaMA-7B', () => {
    const plan = resolvePlan('P2-D0-S12-E30', 32);
    expect(plan).toEqual({ version: 1, layers: 32, groups: pairs(12, 30), bypass: 0, bypassMode: 'paper' });
    expect(countStages(plan)).toBe(23);
    expect(resolvePlan('P4-S14-E30', 32).groups).toEqual([
      [14, 15, 16, 17],
      [18, 19, 20, 21],
      [22, 23, 24, 25],
      [26, 27, 28, 29],
    ]);
  });

  it.each([
    ['letters in any order and case', 'e12-p2-S4-d1', pairs(4, 12), 1],
    ['a published folder name', 'LLaMA-7B-S12-E14-P2-D1', [[12, 13]], 1],
    [
      'a published folder name without D',
      'Qwen1.5-14B-S3-E7-P2',
      [
        [3, 4],
        [5, 6],
      ],
      0,
    ],
    [
      'a shortened last group',
      'P3-S4-E9',
      [
        [4, 5, 6],
        [7, 8],
      ],
      0,
    ],
    [
      'a leftover layer, which runs alone',
      'P2-S4-E9',
      [
        [4, 5],
        [6, 7],
      ],
      0,
    ],
    ['a group larger than the range', 'P8-S4-E6', [[4, 5]], 0],
    ['all layers', 'P16-S0-E16', [Array.from({ length: 16 }, (_, i) => i)], 0],
    ['P 1, which groups nothing', 'P1-D1-S0-E16', [], 0],
    ['P 1 alone', 'P1', [], 0],
    ['a range of one layer', 'P2-D1-S5-E6', [], 0],
    ['sequential', ' Sequential ', [], 0],
  ])('reads %s', (_, text, groups, bypass) => {
    expect(resolvePlan(text, 16)).toMatchObject({ groups, bypass });
  });

  it.each([
    ['S4-E8', 'no P'],
    ['P2-E8', 'no S'],
    ['P2-S4', 'no E'],
    ['P0-S4-E8', 'P 0'],
    ['P2-P2-S4-E8', 'P twice'],
    ['P2-S8-E8', 'S < E'],
    ['P2-S9-E8', 'S < E'],
    ['P2-S4-E17', 'has 16 layers'],
    ['P2-D16-S4-E8', 'bypass distance 16'],
    ['P99999999999999999999-S4-E8', 'at most 1024'],
    [`P${'9'.repeat(150)}-S4-E8`, 'at most 1024'],
    ['P2-S4-E8-', 'none of'],
    ['P2.5-S4-E8', 'none of'],
    ['P-2-S4-E8', 'none of'],
    ['P2-S4-Q8', 'none of'],
    ['P2 S4 E8', 'none of'],
    ['', 'none of'],
    ['\0', 'none of'],
    ['x'.repeat(100_000), 'none of'],
  ])('refuses %.40s', (text, reason) => {
    const error = refusal(text);
    expect(error.code).toBe('INVALID_PLAN');
    expect(error.message).toContain(reason);
    expect(error.message.length).toBeLessThan(300);
  });

  it('needs the number of layers from somewhere', () => {
    expect(() => resolvePlan('P2-S4-E8')).toThrow('does not say how many layers');
    expect(() => resolvePlan(undefined)).toThrow('does not say how many layers');
    expect(() => resolvePlan('sequential', 0)).toThrow('The model has 0 layers');
  });
});

describe('objects', () => {
  it('fills in what is left out', () => {
    expect(
      resolvePlan(
        {
          groups: [
            [4, 5, 6],
            [9, 10],
          ],
        },
        16,
      ),
    ).toEqual({
      version: 1,
      layers: 16,
      groups: [
        [4, 5, 6],
        [9, 10],
      ],
      bypass: 0,
      bypassMode: 'paper',
    });
    expect(resolvePlan(undefined, 16)).toEqual({ version: 1, layers: 16, groups: [], bypass: 0, bypassMode: 'paper' });
  });

  it('keeps the adapter and the evidence, and shares no group with the input', () => {
    const input: Plan = {
      version: 1,
      layers: 16,
      groups: [[4, 5]],
      bypass: 1,
      bypassMode: 'official',
      adapter: 'a/b',
      evidence: { kl: 0.1 },
    };
    const plan = resolvePlan(input);
    expect(plan).toEqual(input);
    plan.groups[0]!.push(6);
    expect(input.groups).toEqual([[4, 5]]);
  });

  it('is a fixed point, and gives the engine first layers and sizes', () => {
    const plan = resolvePlan('P3-D2-S1-E9', 16);
    expect(resolvePlan(plan, 16)).toEqual(plan);
    expect(toNativePlan(plan)).toEqual({
      groups: [
        [1, 3],
        [4, 3],
        [7, 2],
      ],
      bypass: 2,
      bypassMode: 'paper',
    });
  });

  const cyclic: Record<string, unknown> = { groups: [] };
  cyclic.bypass = cyclic;
  const holed = (list: unknown[], length: number): unknown[] => {
    const copy = [...list];
    copy.length = length;
    return copy;
  };
  it('reads a list once, whatever it says the second time', () => {
    let reads = 0;
    const group = Object.defineProperty([0, 1], 0, { get: () => (reads++ === 0 ? 0 : 7) });
    expect(resolvePlan({ groups: [group] }, 16).groups).toEqual([[0, 1]]);
  });

  it.each<[string, unknown, string]>([
    ['null', null, 'is null'],
    ['a list', [[4, 5]], 'is a list'],
    ['a number', 7, 'is of type number'],
    ['nothing', {}, 'no "groups"'],
    ['groups that are no list', { groups: 'P2' }, '"groups" "P2"'],
    ['a misspelt field', { group: [] }, 'unknown field "group", expected version, layers, groups'],
    ['version 2', { version: 2, groups: [] }, 'version 2, expected 1'],
    ['another layer count', { layers: 32, groups: [] }, 'of 32 layers, but the model has 16'],
    ['no possible layer count', { layers: -1, groups: [] }, '-1 layers'],
    ['a huge layer count', { layers: 1e12, groups: [] }, 'from 1 to 1024'],
    ['a group that is no list', { groups: [4, 5] }, 'group 1 4'],
    ['an empty group', { groups: [[]] }, 'at least two layers'],
    ['a group of one', { groups: [[4]] }, 'at least two layers'],
    ['a gap', { groups: [[4, 6]] }, '6 does not follow 4'],
    ['a descending group', { groups: [[5, 4]] }, '4 does not follow 5'],
    ['a layer twice in a group', { groups: [[4, 4]] }, '4 does not follow 4'],
    [
      'overlapping groups',
      {
        groups: [
          [4, 5],
          [5, 6],
        ],
      },
      'share no layer',
    ],
    [
      'descending groups',
      {
        groups: [
          [6, 7],
          [4, 5],
        ],
      },
      'reach layer 7',
    ],
    ['a layer the model lacks', { groups: [[15, 16]] }, 'last layer of 16 is 15'],
    ['a negative layer', { groups: [[-1, 0]] }, '-1 is no layer index'],
    ['a fractional layer', { groups: [[1.5, 2.5]] }, '1.5 is no layer index'],
    ['NaN', { groups: [[Number.NaN, 1]] }, 'NaN is no layer index'],
    ['a textual layer', { groups: [['4', '5']] }, '"4" is no layer index'],
    ['a negative bypass', { groups: [[4, 5]], bypass: -1 }, '"bypass" -1'],
    ['a fractional bypass', { groups: [[4, 5]], bypass: 0.5 }, '"bypass" 0.5'],
    ['a bypass longer than the model', { groups: [[4, 5]], bypass: 16 }, 'from 0 to 15'],
    ['an unknown bypass mode', { groups: [[4, 5]], bypassMode: 'fast' }, '"bypassMode" "fast"'],
    ['an adapter that is no text', { groups: [], adapter: 1 }, '"adapter" 1'],
    ['evidence that is no object', { groups: [], evidence: [] }, '"evidence" []'],
    ['a cyclic value', cyclic, '"bypass" of type object'],
    ['a bigint', { groups: [[4n, 5n]] }, '4 is no layer index'],
    ['a long list', { groups: [Array.from({ length: 1e5 }, () => 0)] }, 'group 1 of 100000 layers'],
    ['a list that is long and empty', { groups: holed([], 2 ** 32 - 1) }, '4294967295 groups'],
    ['a hole at the end of a group', { groups: [holed([0, 1], 3), [1, 2]] }, 'undefined is no layer index'],
    ['nothing but holes', { groups: [holed([], 3)] }, 'undefined is no layer index'],
    ['a hole instead of a group', { groups: holed([[0, 1]], 2) }, 'group 2 undefined'],
    ['holes in an official config', { cqil_layers: [holed([0, 1], 3)] }, 'undefined is no layer index'],
  ])('refuses %s', (_, input, reason) => {
    const error = refusal(input as PlanInput);
    expect(error.code).toBe('INVALID_PLAN');
    expect(error.message).toContain(reason);
    expect(error.message.length).toBeLessThan(300);
  });
});

describe('official configs', () => {
  const config = { architectures: ['LlamaForCausalLM'], model_type: 'llama', num_hidden_layers: 32, hidden_size: 4096 };

  it('takes cqil_layers and d', () => {
    expect(resolvePlan({ ...config, cqil_layers: pairs(12, 30), d: 0 }, 32)).toEqual(resolvePlan('P2-D0-S12-E30', 32));
    expect(resolvePlan({ ...config, cqil_layers: pairs(12, 30) })).toEqual(resolvePlan('P2-D0-S12-E30', 32));
  });

  it('keeps to the trained arithmetic when there is a bypass', () => {
    expect(resolvePlan({ ...config, cqil_layers: pairs(12, 30), d: 1 })).toMatchObject({
      bypass: 1,
      bypassMode: 'official',
    });
  });

  it('lets single layers run alone', () => {
    expect(resolvePlan({ ...config, cqil_layers: [[0], [1, 2], [3]], d: 0 }).groups).toEqual([[1, 2]]);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['another layer count', { cqil_layers: [], num_hidden_layers: 40 }, 'of 40 layers, but the model has 32'],
    ['a model config without a plan', { hidden_size: 4096 }, 'without "cqil_layers"'],
    ['layers that are no lists', { cqil_layers: [12, 13] }, 'expected a list'],
    ['layers that are no list', { cqil_layers: 'all' }, '"cqil_layers" "all"'],
    ['a bad d', { cqil_layers: [[1, 2]], d: 1.5 }, '"d" 1.5'],
  ])('refuses %s', (_, fields, reason) => {
    expect(refusal({ ...config, ...fields }, 32)).toMatchObject({
      code: 'INVALID_PLAN',
      message: expect.stringContaining(reason),
    });
  });
});

describe('files', () => {
  it('reads plan files, official configs and folders that hold one', () => {
    const plan = resolvePlan('P2-D1-S4-E12', 16);
    expect(resolvePlan(write('plan.json', plan))).toEqual(plan);
    expect(resolvePlan(write('bom', `\uFEFF${JSON.stringify(plan)}`), 16)).toEqual(plan);
    mkdirSync(path.join(folder, 'model'));
    write(path.join('model', 'config.json'), { num_hidden_layers: 16, cqil_layers: pairs(4, 12) });
    expect(resolvePlan(path.join(folder, 'model'), 16)).toEqual(resolvePlan('P2-S4-E12', 16));
  });

  it('says where a file is not valid JSON', () => {
    const error = refusal(write('broken.json', '{\n  "groups": [[4, 5]\n}'));
    expect(error).toMatchObject({ code: 'INVALID_PLAN', message: expect.stringContaining('line 3, column 1') });
    expect(refusal(write('empty.json', '')).message).toContain('not valid JSON');
    expect(refusal('{"groups": [[4').message).toContain('not valid JSON');
  });

  it('names the file in what it refuses', () => {
    expect(refusal(write('misfit.json', { groups: [[4, 6]] })).message).toMatch(/misfit\.json has group 1/);
  });

  it('refuses what cannot be read', () => {
    expect(refusal(path.join(folder, 'none.json'))).toMatchObject({ code: 'FILE_NOT_FOUND' });
    expect(refusal('./none')).toMatchObject({ code: 'FILE_NOT_FOUND' });
    expect(refusal(folder)).toMatchObject({ code: 'FILE_NOT_FOUND', message: expect.stringContaining('config.json') });
    expect(refusal('/dev/zero')).toMatchObject({
      code: 'FILE_NOT_FOUND',
      message: expect.stringContaining('regular file'),
    });
    expect(refusal(write('large.json', ' '.repeat((1 << 20) + 1)))).toMatchObject({
      code: 'INVALID_PLAN',
      message: expect.stringContaining('bytes'),
    });
  });
});

describe('formatting', () => {
  it('reads back every shorthand it writes', () => {
    let seen = 0;
    for (let size = 2; size <= 5; size++) {
      for (let start = 0; start < 12; start++) {
        for (let end = start + 2; end <= 12; end++) {
          const plan = resolvePlan(`P${size}-D${end % 3}-S${start}-E${end}`, 12);
          expect(planShorthand(plan)).toBeDefined();
          expect(resolvePlan(formatPlan(plan), 12)).toEqual(plan);
          seen++;
        }
      }
    }
    expect(seen).toBe(264);
  });

  it('reads back every plan, whatever its groups', () => {
    // All 2^11 ways to join neighbours among 12 layers, as bits.
    for (let joins = 0; joins < 1 << 11; joins++) {
      const stages: number[][] = [[0]];
      for (let layer = 1; layer < 12; layer++) {
        if (joins & (1 << (layer - 1))) stages.at(-1)!.push(layer);
        else stages.push([layer]);
      }
      const plan = resolvePlan(
        {
          groups: stages.filter((stage) => stage.length > 1),
          bypass: joins % 3,
          bypassMode: joins % 2 ? 'official' : 'paper',
        },
        12,
      );
      const text = formatPlan(plan);
      if (!resolvePlan(text, 12).groups.every((group, i) => group.join() === plan.groups[i]!.join())) expect.fail(text);
      expect(resolvePlan(text, 12)).toEqual(plan);
      expect(countStages(plan)).toBe(stages.length);
    }
  });

  it.each<[string, PlanInput, string | undefined]>([
    ['sequential', 'P1', 'sequential'],
    ['the canonical order', 'e12-s4-p2', 'P2-D0-S4-E12'],
    ['the end of the last group', 'P2-S4-E9', 'P2-D0-S4-E8'],
    [
      'no shorthand for a gap between groups',
      {
        groups: [
          [4, 5],
          [8, 9],
        ],
      },
      undefined,
    ],
    [
      'no shorthand for uneven groups',
      {
        groups: [
          [4, 5],
          [6, 7, 8],
        ],
      },
      undefined,
    ],
    ['the official mode', { groups: [[4, 5]], bypass: 1, bypassMode: 'official' }, 'P2-D1-S4-E6-official'],
    ['the mode of a published name', 'LLaMA-7B-S4-E6-P2-D1', 'P2-D1-S4-E6-official'],
    ['no shorthand for an adapter', { groups: [[4, 5]], adapter: 'a' }, undefined],
  ])('writes %s', (_, input, text) => {
    expect(planShorthand(resolvePlan(input, 16))).toBe(text);
  });
});
