import type { Command } from 'commander';
import { measureSimilarity, similarityWindow } from '../analysis/similarity/measure_similarity.js';
import type { Similarity } from '../analysis/similarity/similarity.js';
import type { Tokenizer } from '../tokenizer/index.js';
import { drawHeatMap } from './heat_map.js';
import { printJson, type Io } from './io.js';
import { openModel } from './open_model.js';
import { addBackendOptions, addJsonOption, addModelArgument, integer, type BackendOptions } from './options.js';
import { Progress } from './progress.js';
import { formatTable } from './table.js';
import { readText } from './text_file.js';

const DEFAULT_TOKENS = 4096;
/** More characters than most texts have per token, so that one attempt at encoding a long text is usually enough. */
const CHARACTERS_PER_TOKEN = 8;

interface Options extends BackendOptions {
  file: string;
  tokens: number;
  json?: boolean;
}

/** `cqil inspect similarity`. */
export function addSimilarity(inspect: Command, io: Io): void {
  const command = inspect
    .command('similarity')
    .description("show how alike the inputs of a model's layers are on a text, and what each layer adds");
  addModelArgument(command)
    .requiredOption('--file <path>', 'the text to run the model on, UTF-8')
    .option(
      '--tokens <n>',
      'take at most this number of tokens from the start of the text',
      integer(2, 1 << 24),
      DEFAULT_TOKENS,
    );
  addJsonOption(addBackendOptions(command))
    .addHelpText(
      'after',
      `
Layers whose inputs are nearly alike lose little when they share one: look for dark blocks on the diagonal. Columns of the table, as
means over tokens: next, the cosine of a layer's input with the next layer's; norm, the length of its input; delta, attention and mlp,
the lengths of what the layer and its two blocks add, relative to that; influence, 1 - cosine of its input and output.
The text is cut into windows, each with an empty context, whose first token is not counted.`,
    )
    .action((path: string | undefined, options: Options) => similarity(path, options, io));
}

async function similarity(path: string | undefined, options: Options, io: Io): Promise<void> {
  const text = await readText(options.file);
  await using model = await openModel(path, { ...options, plans: [] }, io);
  const ids = await firstTokens(model.tokenizer, text, options.tokens, io.signal);
  const progress = new Progress(io, options.json);
  let measured: Similarity;
  try {
    measured = await measureSimilarity(model, ids, {
      signal: io.signal,
      onProgress: (done, total) => progress.update('similarity', done, total),
    });
  } finally {
    progress.stop();
  }
  const { nLayers } = model.config;
  const window = similarityWindow(model);
  if (options.json) return printJson(io, { file: options.file, layers: nLayers, window, ...measured });
  io.out(`${nLayers} layers, ${measured.tokens} tokens of ${options.file} in windows of ${window}

${drawHeatMap(measured.inputCosine)}
${formatTable(['layer', 'next', 'norm', 'delta', 'attention', 'mlp', 'influence'], layerRows(measured))}`);
}

function layerRows(measured: Similarity): string[][] {
  return measured.inputCosine.map((row, layer) => [
    String(layer),
    row[layer + 1]?.toFixed(3) ?? '',
    ...[measured.inputNorm, measured.deltaRatio, measured.attentionRatio, measured.mlpRatio, measured.influence].map(
      (values) => values[layer]!.toFixed(3),
    ),
  ]);
}

/** The first `count` tokens of a text, without encoding all of a long one. */
export async function firstTokens(
  tokenizer: Tokenizer,
  text: string,
  count: number,
  signal: AbortSignal,
): Promise<number[]> {
  for (let length = CHARACTERS_PER_TOKEN * count; ; length *= 2) {
    const ids = await tokenizer.encodeSliced(text.slice(0, length), { parseSpecialTokens: false, signal });
    if (ids.length > count || length >= text.length) return ids.slice(0, count);
  }
}
