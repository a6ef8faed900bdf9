import { randomFillSync } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { chooseActivations, roundedShare } from '../../dist/engine/activations.js';
import { GGUF_NAMES, tensorName } from '../../dist/checkpoint/names.js';
import { describeMachine } from '../../dist/engine/machine.js';
import { syntheticCheckpoint } from '../../dist/checkpoint/synthetic.js';
import { array, ggufHeader, pad, text } from '../../tools/gguf/gguf_writer.mjs';
import { FORMATS, fillRandom } from '../../tools/gguf/random_blocks.mjs';
import { shapeMetadata } from '../../tools/gguf/shape_metadata.mjs';

/** Formats that can be written. */
export const DTYPES = Object.keys(FORMATS);

/**
 * Writes a llama GGUF file of a published shape with random weights that keep activations finite; good for speed only.
 * Returns { config, weightBytes, activations }: bytes of weights that one decoded token reads, and the activations that
 * can be chosen, the default first.
 */
export function writeRandomGguf(file, shapeName, dtype) {
  const { config, tensors } = syntheticCheckpoint(shapeName, dtype);
  const described = tensors.map(({ role, layer, rows, cols, dtype: type, byteLength }) => ({
    name: tensorName(GGUF_NAMES, role, layer),
    type: FORMATS[type].code,
    shape: rows === 1 ? [cols] : [rows, cols],
    byteLength,
  }));
  const fd = openSync(file, 'w');
  writeSync(fd, ggufHeader({ metadata: metadataOf(config), tensors: described }));
  for (const tensor of tensors) writeSync(fd, pad(fillRandom(randomFillSync(Buffer.alloc(tensor.byteLength)), tensor)));
  closeSync(fd);
  const read = tensors.filter(({ role }) => role !== 'token_embedding' || config.tiedEmbeddings);
  const unsaid = chooseActivations('auto', 'cpu', tensors, describeMachine);
  const applicable = ['float32', ...['bf16', 'int8'].filter((format) => roundedShare(format, tensors) > 0)];
  const activations = [unsaid, ...applicable.filter((format) => format !== unsaid)];
  return { config, weightBytes: read.reduce((total, { byteLength }) => total + byteLength, 0), activations };
}

function metadataOf(config) {
  const tokens = Array.from(
    { length: config.vocabSize },
    (_, i) =>
      ['<unk>', '<s>', '</s>'][i] ?? (i < 259 ? `<0x${(i - 3).toString(16).toUpperCase().padStart(2, '0')}>` : `t${i}`),
  );
  const kinds = tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
  return {
    'general.architecture': text('llama'),
    ...shapeMetadata('llama', config),
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.tokens': array('string', tokens),
    'tokenizer.ggml.scores': array(
      'f32',
      tokens.map((_, i) => -i),
    ),
    'tokenizer.ggml.token_type': array('i32', kinds),
  };
}
