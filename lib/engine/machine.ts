import type { Checkpoint } from '../checkpoint/types.js';
import { MAX_THREADS } from './load_options.js';
import { loadNative } from './addon.js';
import type { BackendLimits, CudaInfo, MachineInfo } from './native.js';
import { expectOption } from '../util/options.js';

/** Below this, joining threads after every phase costs more than they save. */
const ONE_THREAD_BYTES = 4 * 2 ** 20;

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
 * Limits of the CPU backend. CQIL_ALONE_BYTES sets another `aloneBytes`, and with 0 every layer is shared.
 */
export function cpuLimits(): BackendLimits {
  const { limits } = describeMachine();
  const aloneBytes = Number(process.env.CQIL_ALONE_BYTES ?? limits.aloneBytes);
  expectOption(
    'CQIL_ALONE_BYTES',
    process.env.CQIL_ALONE_BYTES,
    Number.isSafeInteger(aloneBytes) && aloneBytes >= 0,
    'an integer, 0 or more',
  );
  return { ...limits, aloneBytes };
}
