import { getLlama } from 'node-llama-cpp';

/** Starts node-llama-cpp on the CPU; once per process, because it first tries its library in a process of its own. */
export function startPeer(threads) {
  return getLlama({ gpu: false, build: 'never', maxThreads: threads, logLevel: 'error', skipDownload: true });
}

/**
 * Opens a GGUF file. `exact` asks for the peer's most exact arithmetic: no flash attention and an F32 KV cache (its
 * default of F16 alone moves log-probabilities by up to 2e-2).
 */
export async function openModel(llama, { model: modelPath, threads, contextLength, exact }) {
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: contextLength,
    batchSize: Math.min(contextLength, 512),
    threads,
    ...(exact ? { flashAttention: false, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32' } : {}),
  });
  return { model, sequence: context.getSequence() };
}
