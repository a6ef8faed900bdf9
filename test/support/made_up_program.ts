import type { Phase, Program } from '../../lib/engine/native.js';

/** The program of consecutive stages of these sizes, as the engine compiles it. */
export function programOf(sizes: readonly number[], bypass = 0): Program {
  const phases: Phase[] = [{ kind: 'embed', stage: -1, layers: [] }];
  let first = 0;
  for (const [stage, size] of sizes.entries()) {
    const layers = Array.from({ length: size }, (_, i) => first + i);
    first += size;
    for (const kind of ['qkv', 'attention', 'attention_out', 'gate_up', 'down'] as const)
      phases.push({ kind, stage, layers });
  }
  phases.push({ kind: 'head', stage: -1, layers: [] });
  return { phases, stages: sizes.length, layerPhases: sizes.length * 5, bypass, bypassMode: 'paper' };
}
