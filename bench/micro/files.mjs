import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { readGguf } from '../../dist/checkpoint/gguf.js';
import { openCheckpoint } from '../../dist/checkpoint/open.js';
import { readSafetensors } from '../../dist/checkpoint/safetensors.js';
import { syntheticCheckpoint } from '../../dist/checkpoint/synthetic.js';
import { shippedModelPath } from '../../dist/model/load.js';
import { compilePlan } from '../../dist/model/model.js';
import { resolvePlan } from '../../dist/plan/plan.js';
import { writeRandomGguf } from '../peers/random_gguf.mjs';

/** Headers, out of the page cache, and plans; no weight is read. */
export async function fileTasks() {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'cqil-bench-'));
  const gguf = path.join(folder, 'model.gguf');
  writeRandomGguf(gguf, 'smollm2-135m', 'Q4_0');
  const shipped = shippedModelPath();
  const { config } = syntheticCheckpoint('llama-7b', 'F16');
  const plan = resolvePlan('P2-S12-E30', config.nLayers);
  const tasks = [
    { name: 'GGUF header, 49k vocabulary', run: () => readGguf(gguf) },
    {
      name: 'safetensors header, an adapter',
      run: () => readSafetensors(path.join(path.dirname(shipped), 'adapters/P2-D0-S2-E22/adapter_model.safetensors')),
    },
    { name: 'open the shipped model', run: () => openCheckpoint(shipped) },
    { name: 'resolve a plan, 32 layers', run: () => resolvePlan('P2-S12-E30', config.nLayers) },
    { name: 'compile a plan, 32 layers', run: () => compilePlan(config, plan) },
  ];
  return { tasks, close: () => rmSync(folder, { recursive: true }) };
}
