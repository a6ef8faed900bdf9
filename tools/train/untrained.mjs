import { closeSync, copyFileSync, openSync, writeSync } from 'node:fs';
import { openCheckpoint } from '../../dist/checkpoint/open.js';
import { quantizeQ8_0 } from '../gguf/q8_0.mjs';

/**
 * Copies a Q8_0 GGUF model and gives its matrices the random values that training started from: the control of what was
 * learnt.
 */
export async function writeUntrained(source, out, seed) {
  copyFileSync(source, out);
  const { config, tensors } = await openCheckpoint(out);
  const normal = gaussian(seed);
  const fd = openSync(out, 'r+');
  for (const { role, rows, cols, offset, byteLength } of tensors) {
    const std = role === 'wo' || role === 'w_down' ? 0.02 / Math.sqrt(2 * config.nLayers) : 0.02;
    const values = Float32Array.from({ length: rows * cols }, () => (rows === 1 ? 1 : std * normal()));
    const data = rows === 1 ? new Uint8Array(values.buffer) : quantizeQ8_0(values);
    if (data.length !== byteLength)
      throw new Error(`${source} holds a ${role} that is neither a norm in F32 nor a matrix in Q8_0`);
    writeSync(fd, data, 0, data.length, offset);
  }
  closeSync(fd);
}

/** Standard normal numbers: Box and Muller's transform of a 32-bit linear congruential sequence. */
function gaussian(seed) {
  let state = seed >>> 0;
  const uniform = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) + 0.5) / 2 ** 32;
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
