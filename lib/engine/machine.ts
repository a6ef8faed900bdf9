import type { Checkpoint } from '../checkpoint/types.js';
import { MAX_THREADS } from './load_options.js';
import { loadNative, type CudaInfo, type MachineInfo } from './native.js';
import { expectOption } from '../util/options.js';

/** Below this, joining threads after every phase costs more than they save. */
const ONE_THREAD_BYTES = 4 * 2 ** 20;
/**
 * On Zen 5, for a token of layers of 0.42, 0.47, 0.85 and 1.06 MB, two threads take 1.2, 0.9, 0.8 and 0.7 times as long
 * as one where nothing else runs, and 1.2 to 1.6, 1.0 to 1.2, 1.0 and 0.85 times in a generation, whose JavaScript has
 * no processor of its own beside them.
 */
const ALONE_BYTES = 512 * 2 ** 10;

/** What this machine has. */
export function describeMachine(): MachineInfo {
  return loadNative().describeMachine();
}

/** Whether CUDA can be used, with what, and why not. */
export async function describeCuda(): Promise<CudaInfo> {
  return loadNative().describeCuda();
}

/** Read bandwidth in GB/s of `threads` threads, each streaming over `bytesPerThread` bytes. */
export async function measureBandwidth(threads: number, bytesPerThread: number): Promise<number> {
  return loadNative().measureBandwidth(threads, bytesPerThread);
}

/** Threads of the CPU backend unless they are given. */
export function defaultThreads({ tensors }: Pick<Checkpoint, 'tensors'>): number {
  const total = tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  return total < ONE_THREAD_BYTES ? 1 : Math.min(describeMachine().cores, MAX_THREADS);
}

/**
 * Bytes of a layer, its weights and what is cached of it, up to which one thread computes it for a token: to meet the
 * others after each of its phases would take longer. CQIL_ALONE_BYTES sets another limit, and with 0 every layer is
 * shared.
 */
export function aloneBytes(): number {
  const bytes = Number(process.env.CQIL_ALONE_BYTES ?? ALONE_BYTES);
  expectOption(
    'CQIL_ALONE_BYTES',
    process.env.CQIL_ALONE_BYTES,
    Number.isSafeInteger(bytes) && bytes >= 0,
    'an integer, 0 or more',
  );
  return bytes;
}
