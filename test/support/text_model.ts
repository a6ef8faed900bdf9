import { writeRandomModel } from './random_model.js';

/** Ids of the model that `writeTextModel` writes. */
export const TEXT_VOCAB = 300;

/** A random model of six layers with a vocabulary, which texts can be generated with, as a GGUF file. */
export function writeTextModel(file: string, contextLength: number): void {
  writeRandomModel(file, {
    format: 'gguf',
    vocabulary: true,
    shape: { nLayers: 6, vocabSize: TEXT_VOCAB, contextLength },
    seed: 3,
  });
}
