// Hugging Face folder -> GGUF with Q8_0 matrices: node tools/gguf/from_huggingface.mjs FOLDER OUT.gguf (after `npm run
// build:ts`). For the models that tools/train makes: plain LLaMA, bf16 weights, a byte-level BPE vocabulary cut as
// GPT-2's.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { GGUF_NAMES, tensorName } from '../../dist/checkpoint/names.js';
import { openCheckpoint } from '../../dist/checkpoint/open.js';
import { array, bool, f32, ggufFile, text, u32 } from './gguf_writer.mjs';
import { quantizeQ8_0 } from './q8_0.mjs';
import { shapeMetadata } from './shape_metadata.mjs';

const TYPE = { F32: 0, Q8_0: 8 };
const TOKEN = { normal: 1, control: 3 };

const [folder, out] = process.argv.slice(2);
const { config, tensors, files } = await openCheckpoint(folder);
const bytes = files.map((file) => readFileSync(file));
const json = (name) => JSON.parse(readFileSync(path.join(folder, name), 'utf8'));
if (config.architecture !== 'llama' || tensors.some(({ dtype }) => dtype !== 'BF16'))
  throw new Error(`${folder} is no plain LLaMA model in bfloat16`);

writeFileSync(
  out,
  ggufFile({ metadata: { ...modelMetadata(), ...tokenizerMetadata() }, tensors: tensors.map(ggufTensor) }),
);

function ggufTensor({ role, layer, rows, cols, file, offset }) {
  const half = new Uint16Array(
    bytes[file].buffer.slice(bytes[file].byteOffset + offset, bytes[file].byteOffset + offset + 2 * rows * cols),
  );
  let values = new Float32Array(Uint32Array.from(half, (bits) => bits << 16).buffer);
  if (role === 'wq' || role === 'wk') values = interleavePairs(values, cols);
  const name = tensorName(GGUF_NAMES, role, layer);
  if (rows === 1) return { name, type: TYPE.F32, shape: [cols], data: Buffer.from(values.buffer) };
  return { name, type: TYPE.Q8_0, shape: [rows, cols], data: quantizeQ8_0(values) };
}

/**
 * Rows (i, i + headDim / 2) of each head, which RoPE turns together, to rows (2i, 2i + 1), as llama GGUF files keep
 * them.
 */
function interleavePairs(values, cols) {
  const { headDim } = config;
  const ordered = new Float32Array(values.length);
  for (let row = 0; row * cols < values.length; row++) {
    const i = row % headDim;
    const to = row - i + (i < headDim / 2 ? 2 * i : 2 * i - headDim + 1);
    ordered.set(values.subarray(row * cols, (row + 1) * cols), to * cols);
  }
  return ordered;
}

function modelMetadata() {
  return {
    'general.architecture': text('llama'),
    'general.name': text(path.basename(out, '.gguf')),
    'general.license': text('apache-2.0'),
    'general.file_type': u32(7),
    ...shapeMetadata('llama', config),
    'llama.rope.freq_base': f32(json('config.json').rope_theta),
  };
}

function tokenizerMetadata() {
  const { model, added_tokens: added } = json('tokenizer.json');
  const tokens = Object.entries(model.vocab)
    .toSorted(([, a], [, b]) => a - b)
    .map(([token]) => token);
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id));
  const { bos_token_id: bos, eos_token_id: eos } = json('config.json');
  return {
    'tokenizer.ggml.model': text('gpt2'),
    'tokenizer.ggml.pre': text('gpt-2'),
    'tokenizer.ggml.tokens': array('string', tokens),
    'tokenizer.ggml.token_type': array(
      'i32',
      tokens.map((_, id) => (special.has(id) ? TOKEN.control : TOKEN.normal)),
    ),
    'tokenizer.ggml.merges': array(
      'string',
      model.merges.map((pair) => pair.join(' ')),
    ),
    'tokenizer.ggml.bos_token_id': u32(bos),
    'tokenizer.ggml.eos_token_id': u32(eos),
    'tokenizer.ggml.add_bos_token': bool(json('tokenizer_config.json').add_bos_token),
  };
}
