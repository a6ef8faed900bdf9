import type { CacheIdentity } from '../util/cache_file.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { digest } from '../util/digest.js';
import { pick } from '../util/pick.js';
import type { MachineInfo } from './native.js';
import type { TimedPlacement } from './placement.js';

/**
 * What a time measured on this machine depends on: the machine, this build of the engine, what computes, and the
 * model's shape and formats, but not its values.
 */
export function timingIdentity(
  machine: MachineInfo,
  placement: TimedPlacement,
  checkpoint: Pick<Checkpoint, 'config' | 'tensors'>,
): CacheIdentity {
  return {
    version: 1,
    ...pick(machine, ['arch', 'cpu', 'cores', 'isa', 'build']),
    ...pick(placement, ['backend', 'threads', 'kvCache', 'activations']),
    ...((placement.ranks?.length ?? 1) > 1 && pick(placement, ['ranks', 'split'])),
    model: shapeDigest(checkpoint),
  };
}

const SHAPE = [
  'dim',
  'hiddenDim',
  'headDim',
  'nHeads',
  'nKvHeads',
  'nLayers',
  'vocabSize',
  'ropeDim',
  'formula',
  'layers',
  'tiedEmbeddings',
] as const;

/** A digest that models of one shape in the same formats share. */
function shapeDigest({ config, tensors }: Pick<Checkpoint, 'config' | 'tensors'>): string {
  const formats = tensors.map(({ role, layer, dtype }) => `${layer} ${role} ${dtype}`).sort();
  return digest({ ...pick(config, SHAPE), formats });
}
