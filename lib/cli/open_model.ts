import { loadModel } from '../load.js';
import type { Model } from '../model.js';
import type { Execution } from '../native.js';
import type { Io } from './io.js';
import type { BackendOptions } from './options.js';
import { Progress } from './progress.js';

interface OpenOptions extends BackendOptions {
  plan?: string;
  execution?: Execution;
  context?: number;
  json?: boolean;
}

/** Loads the model of a command line, with a bar while it loads. */
export async function openModel(path: string | undefined, options: OpenOptions, io: Io): Promise<Model> {
  const progress = new Progress(io, options.json);
  try {
    return await loadModel(path, {
      plan: options.plan,
      backend: options.backend,
      execution: options.execution,
      threads: options.threads,
      contextLength: options.context,
      kvCache: options.kvCache,
      activations: options.activations,
      signal: io.signal,
      onProgress: ({ loaded, total }) => progress.update('loading', loaded, total),
    });
  } finally {
    progress.stop();
  }
}
