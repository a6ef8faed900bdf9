import { describe, expect, it } from 'vitest';
import type { ExplainedSchedule } from '../lib/cli/schedule_table.js';
import type { Program } from '../lib/engine/native.js';
import { cqil } from './support/cli.js';

const PLAN = 'P2-D1-S4-E22';

async function json<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await cqil([...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as T;
}

describe('schedules on the command line, of the model that ships', () => {
  it('say who computes what', async () => {
    const { stdout } = await cqil(['plan', 'explain', PLAN, '--threads', '2', '--backend', 'cpu']);
    expect(stdout).toMatch(/with 2 threads, wide:[^]*^4-12 +4-21 +2 layers +all 2 threads +5$/m);
    expect(stdout).toMatch(/with 2 threads, lanes:[^]*^4-12 +4-21 +2 layers +2 threads, a lane each +3$/m);
    const four = await cqil(['plan', 'explain', 'P4-S4-E12', '--threads', '2', '--backend', 'cpu']);
    expect(four.stdout).toContain('2 threads, up to 2 lanes each');
    const gpu = await cqil(['plan', 'explain', PLAN, '--backend', 'cuda']);
    expect(gpu.stdout).toMatch(/on a GPU, lanes:[^]*^4-12 +4-21 +2 layers +2 streams +6$/m);
  });

  it('are the steps that the engine executes', async () => {
    const { program } = await json<{ program: Program }>('inspect', '--plan', PLAN);
    const { schedules } = await json<{ schedules: ExplainedSchedule[] }>('plan', 'explain', PLAN, '--threads', '2');
    expect(schedules.map(({ execution }) => execution)).toEqual(['wide', 'lanes']);
    const [wide, lanes] = schedules.map(({ steps }) => steps);
    expect(wide!.map(({ phase }) => phase)).toEqual(program.phases.map((_, i) => i));
    for (const [i, { layers }] of program.phases.entries()) {
      const parts = lanes!.filter(({ phase, kind }) => phase === i && kind !== 'join');
      expect(parts.flatMap((step) => step.layers)).toEqual(layers);
    }
    const joins = lanes!.filter(({ kind }) => kind === 'join');
    expect(joins.map((step) => step.layers.length)).toEqual(Array.from({ length: 9 }, () => 2));
  });

  it('have one execution where nothing is grouped', async () => {
    const { schedules } = await json<{ schedules: ExplainedSchedule[] }>('inspect');
    expect(schedules.map(({ execution }) => execution)).toEqual(['wide']);
    expect((await cqil(['plan', 'explain', 'sequential', '--layers', '8'])).stdout).not.toContain('wide');
  });
});
