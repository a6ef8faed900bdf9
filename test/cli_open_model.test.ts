import { expect, it, vi } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { cqil } from './support/cli.js';

vi.mock('../lib/checkpoint/open.js', { spy: true });

it("the model's headers are read once, also where a plan gets another mode", async () => {
  const args = ['generate', '-p', 'Once', '-n', '1', '--plan', 'P2-D1-S4-E12', '--bypass-mode', 'official', '--json'];
  const { code, stdout } = await cqil(args);
  expect({ code, plan: (JSON.parse(stdout) as { plan: string }).plan }).toEqual({
    code: 0,
    plan: 'P2-D1-S4-E12-official',
  });
  expect(openCheckpoint).toHaveBeenCalledTimes(1);
});
