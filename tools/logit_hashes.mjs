// Hashes of what the CPU backend computes, so that a change that should move no bit can show that it moves none:
//   node tools/logit_hashes.mjs --out FILE        before the change
//   node tools/logit_hashes.mjs --compare FILE    after it, and after `npm run build`
// Small random models of every weight format and formula, and the model that ships, under every format of activations
// and of the KV cache that applies, with plans of all kinds. Each row of FILE is computed in every execution, with
// several numbers of threads and splits of the prompt, which must agree. Bits may differ between instruction sets.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../dist/index.mjs';
import { ggufFile, text, u32 } from './gguf/gguf_writer.mjs';
import { FORMATS, fillRandom } from './gguf/random_blocks.mjs';
import { shapeMetadata } from './gguf/shape_metadata.mjs';

const { values: given } = parseArgs({ options: { out: { type: 'string' }, compare: { type: 'string' } } });
if (!given.out === !given.compare) throw new Error('--out FILE or --compare FILE is expected.');

const BLOCKS = { dim: 256, hiddenDim: 512, headDim: 32, nHeads: 8, nKvHeads: 2, nLayers: 6, vocabSize: 300 };
const ODD = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 6, nKvHeads: 3, nLayers: 6, vocabSize: 101 };
const CONTEXT = 96;
const INT8 = ['Q8_0', 'Q4_0', 'Q4_K', 'Q6_K'];
const KV_CACHES = { float32: ['f32', 'f16', 'q8_0'], bf16: ['f16'], int8: ['f16', 'q8_0'] };
const TOKENS = 32;
const PIECES = [1, 7, TOKENS - 8];
/** Executions and the pieces in which the prompt is given. */
const WAYS = [
  ['wide', [TOKENS]],
  ['wide', PIECES],
  ['lanes', PIECES],
  ['auto', [TOKENS]],
];
/** Threads, and the bytes of a layer up to which one of them computes it (CQIL_ALONE_BYTES). */
const THREADS = [
  [1, undefined],
  [2, undefined],
  [3, 0],
];
const PLANS = [
  'sequential',
  ...['P2-D0', 'P2-D1', 'P4-D0', 'P4-D1', 'P4-D2'].map((groups) => `${groups}-S1-E5`),
  ...[1, 2].map((bypass) => ({ version: 1, layers: 6, groups: [[1, 2, 3, 4]], bypass, bypassMode: 'official' })),
  {
    version: 1,
    layers: 6,
    groups: [
      [0, 1],
      [2, 3, 4],
    ],
    bypass: 1,
    bypassMode: 'official',
  },
];

const folder = mkdtempSync(path.join(tmpdir(), 'cqil-hashes-'));
process.env.CQIL_CACHE_DIR = path.join(folder, 'cache');
const rows = {};
const disagreeing = [];
const began = performance.now();
try {
  for (const dtype of Object.keys(FORMATS)) {
    const activations = ['float32', ...(INT8.includes(dtype) ? ['int8'] : []), ...(dtype === 'BF16' ? ['bf16'] : [])];
    await hashModel(dtype, randomGguf(dtype, BLOCKS), activations, PLANS);
    if (FORMATS[dtype].weights === 1) await hashModel(`${dtype} odd`, randomGguf(dtype, ODD), activations, PLANS);
  }
  const plans = [PLANS[0], PLANS[2], PLANS[7]];
  await hashModel('qwen2', randomGguf('F16', { ...ODD, architecture: 'qwen2', biases: true }), ['float32'], plans);
  await hashModel('qwen3', randomGguf('Q8_0', { ...BLOCKS, architecture: 'qwen3' }), ['float32', 'int8'], plans);
  await hashModel('window', randomGguf('Q4_0', { ...BLOCKS, window: 9 }), ['float32', 'int8'], plans);
  const shipped = fileURLToPath(new URL('../models/stories-24l/', import.meta.url));
  const tuned = path.join(shipped, 'plans', 'P2-D0-S2-E22.json');
  const all = ['sequential', 'P2-D0-S2-E22', 'P4-D1-S2-E22', tuned];
  await hashModel('shipped', path.join(shipped, 'stories-24l-q8_0.gguf'), ['float32', 'int8'], all);
} finally {
  rmSync(folder, { recursive: true });
}

const seconds = ((performance.now() - began) / 1000).toFixed(1);
console.log(`${Object.keys(rows).length} rows in ${seconds} s`);
for (const row of disagreeing) console.log(`computed differently in different ways: ${row}`);
let differing = 0;
if (given.out) writeFileSync(given.out, `${JSON.stringify(rows, null, 1)}\n`);
else {
  const before = JSON.parse(readFileSync(given.compare, 'utf8'));
  for (const row of new Set([...Object.keys(before), ...Object.keys(rows)])) {
    const moved = ['prefill', 'decode', 'score', 'shortlist', 'trace', 'logits'].filter(
      (output) => before[row]?.[output] !== rows[row]?.[output],
    );
    if (moved.length === 0) continue;
    differing++;
    console.log(`${row}: ${!rows[row] ? 'gone' : !before[row] ? 'new' : `differs in ${moved.join(', ')}`}`);
  }
  console.log(differing === 0 ? 'All as before.' : `${differing} rows differ.`);
}
process.exitCode = disagreeing.length + differing === 0 ? 0 : 1;

/** Adds rows for one file; every way to compute a row must give it the same hashes. */
async function hashModel(name, file, activationFormats, plans) {
  for (const activations of activationFormats) {
    for (const [threads, alone] of THREADS) {
      if (alone === undefined) delete process.env.CQIL_ALONE_BYTES;
      else process.env.CQIL_ALONE_BYTES = String(alone);
      const model = await loadModel(file, { backend: 'cpu', threads, activations, onWarning: () => {} });
      for (const plan of plans) {
        await model.prepare(plan);
        for (const kvCache of name === 'shipped' ? ['f16'] : KV_CACHES[activations]) {
          const row = `${name}, ${activations}, kv ${kvCache}, ${planName(plan)}`;
          for (const [execution, pieces] of WAYS) {
            const session = model.createSession({ plan, kvCache, execution, contextLength: CONTEXT });
            const hashes = await hashSession(session, model.config.vocabSize, pieces);
            session.close();
            rows[row] ??= hashes;
            if (JSON.stringify(hashes) !== JSON.stringify(rows[row])) {
              disagreeing.push(`${row}: ${execution}, ${threads} threads, alone ${alone ?? 'default'}, ${pieces}`);
            }
          }
        }
      }
      await model.dispose();
    }
  }
}

/** The first 12 digits of SHA-256 of what each kind of call gives, one after another on the same text. */
async function hashSession(session, vocabSize, pieces) {
  const next = pseudoRandom(7);
  const ids = Int32Array.from({ length: CONTEXT }, () => next() % vocabSize);
  const hashes = {};
  const keep = (output, parts) => {
    const hash = createHash('sha256');
    for (const part of parts) hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
    hashes[output] = hash.digest('hex').slice(0, 12);
  };
  let at = 0;
  const take = (count) => ids.subarray(at, (at += count));
  let last;
  for (const count of pieces) last = await session.prefill(take(count));
  keep('prefill', [last]);
  const decoded = [];
  for (let i = 0; i < 3; i++) decoded.push(await session.decode(take(1)[0]));
  keep('decode', decoded);
  keep('score', [await session.score(take(9))]);
  keep('trace', [await session.trace(take(5))]);
  keep('logits', [await session.logits(take(4))]);
  const lists = [await session.shortlist(take(3), 20, { ahead: true })];
  for (let i = 0; i < 3; i++) lists.push(await session.shortlist([lists.at(-1).ids[0]], 20, { ahead: i < 2 }));
  keep(
    'shortlist',
    lists.flatMap(({ ids: listed, logits, logSumExp }) => [listed, logits, Float64Array.of(logSumExp)]),
  );
  return hashes;
}

function planName(plan) {
  if (typeof plan === 'string') return plan.endsWith('.json') ? path.basename(plan) : plan;
  return `${plan.groups.map((group) => group.join('+')).join(' ')} D${plan.bypass} ${plan.bypassMode}`;
}

/** A GGUF file of a model with weights of one format. */
function randomGguf(dtype, { architecture = 'llama', biases = false, window, ...shape }) {
  const { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocabSize } = shape;
  const next = pseudoRandom(11);
  const matrix = (name, rows, cols) => {
    const { code, weights, blockBytes } = FORMATS[dtype];
    const words = Uint32Array.from({ length: Math.ceil((rows * (cols / weights) * blockBytes) / 4) }, next);
    const bytes = Buffer.from(words.buffer, 0, rows * (cols / weights) * blockBytes);
    return { name: `${name}.weight`, type: code, shape: [rows, cols], data: fillRandom(bytes, { dtype, rows, cols }) };
  };
  const vector = (name, length, mean) => ({
    name,
    type: FORMATS.F32.code,
    shape: [length],
    data: Buffer.from(Float32Array.from({ length }, () => mean + (next() / 2 ** 32 - 0.5) / 2).buffer),
  });
  const [qDim, kvDim] = [nHeads * headDim, nKvHeads * headDim];
  const layers = Array.from({ length: nLayers }, (_, layer) => {
    const at = (name) => `blk.${layer}.${name}`;
    return [
      vector(at('attn_norm.weight'), dim, 1),
      matrix(at('attn_q'), qDim, dim),
      matrix(at('attn_k'), kvDim, dim),
      matrix(at('attn_v'), kvDim, dim),
      ...(biases ? [vector(at('attn_q.bias'), qDim, 0), vector(at('attn_k.bias'), kvDim, 0)] : []),
      ...(biases ? [vector(at('attn_v.bias'), kvDim, 0)] : []),
      ...(architecture === 'qwen3' ? ['attn_q_norm.weight', 'attn_k_norm.weight'] : []).map((name) =>
        vector(at(name), headDim, 1),
      ),
      matrix(at('attn_output'), dim, qDim),
      vector(at('ffn_norm.weight'), dim, 1),
      matrix(at('ffn_gate'), hiddenDim, dim),
      matrix(at('ffn_up'), hiddenDim, dim),
      matrix(at('ffn_down'), dim, hiddenDim),
    ];
  });
  const tensors = [matrix('token_embd', vocabSize, dim), ...layers.flat(), vector('output_norm.weight', dim, 1)];
  if (dtype !== 'F16') tensors.push(matrix('output', vocabSize, dim));
  const metadata = {
    'general.architecture': text(architecture),
    ...shapeMetadata(architecture, { ...shape, contextLength: CONTEXT, normEps: 1e-5 }),
    ...(window === undefined ? {} : { [`${architecture}.attention.sliding_window`]: u32(window) }),
  };
  const file = path.join(folder, 'model.gguf');
  writeFileSync(file, ggufFile({ metadata, tensors }));
  return file;
}

/** Whole numbers below 2^32: xorshift (Marsaglia 2003). */
function pseudoRandom(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0);
  };
}
