import { openCheckpoint } from '../checkpoint/open.js';
import { loadOpened, shippedModelPath } from '../model/load.js';
import type { Model } from '../model/model.js';
import type { Execution } from '../engine/native.js';
import { publishedPlanNote } from '../model/published_plan.js';
import type { Io } from './io.js';
import type { BackendOptions } from './options.js';
import { readPlan, type PlanOptions } from './plan_option.js';
import { Progress } from './progress.js';

interface OpenOptions extends BackendOptions, PlanOptions {
  plan?: string;
  /**
   * The plans given for a command that makes its sessions with them itself; an empty array for a command that takes no
   * plan. Undefined when none was given: then the user is told of the plan in the model's config.json.
   */
  plans?: readonly string[];
  execution?: Execution;
  context?: number;
  json?: boolean;
}

/** Loads the model of a command line, with a bar while it loads. */
export async function openModel(path: string | undefined, options: OpenOptions, io: Io): Promise<Model> {
  const { plan } = options;
  const checkpoint = await openCheckpoint(path ?? shippedModelPath());
  const asked = plan === undefined ? 'sequential' : readPlan(plan, checkpoint.config.nLayers, options, io);
  const progress = new Progress(io, options.json);
  const warnings: string[] = [];
  try {
    const model = await loadOpened(checkpoint, {
      plan: asked,
      backend: options.backend,
      execution: options.execution,
      threads: options.threads,
      contextLength: options.context,
      kvCache: options.kvCache,
      mmap: options.mmap,
      activations: options.activations,
      onWarning: (warning) => void warnings.push(warning),
      signal: io.signal,
      onProgress: ({ loaded, total }) => progress.update('loading', loaded, total),
    });
    if (model.publishedPlan && (plan ?? options.plans) === undefined)
      io.err(`${publishedPlanNote(model.publishedPlan, `--plan ${model.publishedPlan.folder}`)}\n`);
    return model;
  } finally {
    progress.stop();
    for (const warning of warnings) io.err(`cqil: warning: ${warning}\n`);
  }
}
