import { CqilError } from '../errors.js';
import { show } from './fields.js';
import { expectedTensors, rowsAndCols, tensorBytes, type ExpectedTensor, type LayerOptions } from './layout.js';
import { nameReader, tensorName, type NamedTensor, type NameScheme } from './names.js';
import { DTYPE_BLOCK, type DType, type ModelConfig, type TensorInfo } from './types.js';

/** A tensor as its file's header describes it, whatever the format. */
export interface StoredTensor {
  name: string;
  /** The format's own name of the element type. */
  type: string;
  /** Outermost dimension first. */
  shape: number[];
  /** Index into the files. */
  file: number;
  /** Bytes from the start of the file. */
  offset: number;
}

/** Tensors in a file at most: more than a model with the most layers has. */
export const MAX_TENSORS = 2 ** 16;

export interface StoredFile {
  path: string;
  size: number;
}

/**
 * The tensors the model needs, in the order of the forward pass: each present exactly once, of the shape its config
 * demands, of a type the engine reads, inside its file and overlapping no other. Tensors that are no part of the model
 * are left out. Throws INVALID_CHECKPOINT or UNSUPPORTED_MODEL naming the tensor.
 */
export function tensorTable(
  stored: readonly StoredTensor[],
  files: readonly StoredFile[],
  names: NameScheme,
  config: ModelConfig,
  options: LayerOptions,
): TensorInfo[] {
  const expected = new Map(expectedTensors(config, options).map((tensor) => [keyOf(tensor), tensor]));
  const found = new Map<string, TensorInfo>();
  const read = nameReader(names);
  for (const tensor of stored.flatMap((whole) => partsOf(whole, read(whole.name), files[whole.file]!, expected))) {
    const path = files[tensor.file]!.path;
    const { named } = tensor;
    const empty = tensor.shape.includes(0);
    if (named.kind === 'irrelevant') continue;
    if (named.kind === 'unknown-in-layer') {
      if (empty) continue;
      throw new CqilError(
        'UNSUPPORTED_MODEL',
        `${path} has the tensor ${show(tensor.name)}, which no layer of architecture ${config.architecture} has.`,
      );
    }
    const want = expected.get(keyOf(named));
    if (!want) {
      // As in transformers, tied embeddings win over an output projection that was stored all the same.
      if (named.role === 'output' || empty) continue;
      throw invalid(
        path,
        `has the tensor ${show(tensor.name)}, which its configuration (${config.nLayers} layers) does not provide for`,
      );
    }
    const twin = found.get(keyOf(named));
    if (twin)
      throw invalid(path, `has the tensor ${show(tensor.name)} as well as ${show(twin.name)}, which mean the same`);
    found.set(keyOf(named), describe(tensor, want, files[tensor.file]!));
  }
  const tensors = [...expected.values()].map((want) => {
    const tensor = found.get(keyOf(want));
    if (!tensor)
      throw invalid(
        files[0]!.path,
        `has no tensor "${tensorName(names, want.role, want.layer)}" of shape ${shapeText(want.shape)}`,
      );
    return tensor;
  });
  refuseOverlap(tensors, files);
  return tensors;
}

/** A stored tensor and what it is; of one that holds several matrices, each of them. */
function partsOf(
  tensor: StoredTensor,
  named: NamedTensor,
  file: StoredFile,
  expected: ReadonlyMap<string, ExpectedTensor>,
): Array<StoredTensor & { named: Exclude<NamedTensor, { kind: 'fused' }> }> {
  if (named.kind !== 'fused') return [{ ...tensor, named }];
  const wanted = named.roles.map((role) => expected.get(keyOf({ role, layer: named.layer })));
  if (wanted.includes(undefined))
    return [{ ...tensor, named: { kind: 'model', role: named.roles[0]!, layer: named.layer } }];
  const rows = wanted.map((want) => want!.shape[0]!);
  const whole = [rows.reduce((sum, n) => sum + n, 0), wanted[0]!.shape[1]!];
  expectShape(tensor, whole, file);
  const dtype = supportedType(tensor, file);
  expectWholeBlocks(tensor, dtype, whole[1]!, file);
  let { offset } = tensor;
  return named.roles.map((role, i) => {
    const part = {
      ...tensor,
      shape: [rows[i]!, whole[1]!],
      offset,
      named: { kind: 'model', role, layer: named.layer } as const,
    };
    offset += tensorBytes(dtype, rows[i]!, whole[1]!);
    return part;
  });
}

function keyOf({ role, layer }: { role: string; layer: number }): string {
  return `${layer} ${role}`;
}

function describe(tensor: StoredTensor, want: ExpectedTensor, file: StoredFile): TensorInfo {
  const { name, shape, offset } = tensor;
  expectShape(tensor, want.shape, file);
  const dtype = supportedType(tensor, file);
  const [rows, cols] = rowsAndCols(shape);
  const block = DTYPE_BLOCK[dtype];
  if (shape.length === 1 && block.weights > 1) {
    throw new CqilError(
      'UNSUPPORTED_MODEL',
      `${file.path} has the vector ${show(name)} in ${dtype}; F32, F16 or BF16 is expected.`,
    );
  }
  expectWholeBlocks(tensor, dtype, cols, file);
  const byteLength = tensorBytes(dtype, rows, cols);
  if (offset + byteLength > file.size) {
    throw invalid(
      file.path,
      `is ${file.size} bytes long, but its tensor ${show(name)} needs bytes ${offset} to ${offset + byteLength}; ` +
        'it is truncated or corrupted',
    );
  }
  return { name, role: want.role, layer: want.layer, dtype, rows, cols, file: tensor.file, offset, byteLength };
}

function expectShape({ name, shape }: StoredTensor, want: readonly number[], file: StoredFile): void {
  if (shape.length === want.length && shape.every((size, i) => size === want[i])) return;
  throw invalid(file.path, `has tensor ${show(name)} of shape ${shapeText(shape)}; ${shapeText(want)} is expected`);
}

function expectWholeBlocks({ name }: StoredTensor, dtype: DType, cols: number, file: StoredFile): void {
  const { weights } = DTYPE_BLOCK[dtype];
  if (cols % weights === 0) return;
  throw invalid(
    file.path,
    `has tensor ${show(name)} with rows of ${cols} weights in ${dtype}; a multiple of ${weights} is expected`,
  );
}

function supportedType(tensor: StoredTensor, file: StoredFile): DType {
  if (Object.hasOwn(DTYPE_BLOCK, tensor.type)) return tensor.type as DType;
  const known = Object.keys(DTYPE_BLOCK).join(', ');
  throw new CqilError(
    'UNSUPPORTED_MODEL',
    `${file.path} has tensor ${show(tensor.name)} of type ${show(tensor.type)}; supported are ${known}.`,
  );
}

function refuseOverlap(tensors: readonly TensorInfo[], files: readonly StoredFile[]): void {
  const ordered = tensors.toSorted((a, b) => a.file - b.file || a.offset - b.offset);
  for (let i = 1; i < ordered.length; i++) {
    const [before, after] = [ordered[i - 1]!, ordered[i]!];
    if (before.file === after.file && before.offset + before.byteLength > after.offset) {
      throw invalid(
        files[after.file]!.path,
        `has tensors ${show(before.name)} and ${show(after.name)} overlapping at byte ${after.offset}`,
      );
    }
  }
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

function invalid(path: string, problem: string): CqilError {
  return new CqilError('INVALID_CHECKPOINT', `${path} ${problem}.`);
}
