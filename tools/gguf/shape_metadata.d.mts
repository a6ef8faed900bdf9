import type { GgufEntry } from './gguf_writer.mjs';

interface Shape {
  dim: number;
  hiddenDim: number;
  headDim: number;
  nHeads: number;
  nKvHeads: number;
  nLayers: number;
  vocabSize: number;
  contextLength: number;
  normEps: number;
}

export function shapeMetadata(architecture: string, config: Shape): Record<string, GgufEntry>;
