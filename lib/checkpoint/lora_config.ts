import { Fields, show } from './fields.js';
import { HUGGINGFACE_NAMES } from './names.js';
import { PROJECTIONS } from './types.js';

/** What adapter_config.json says, as far as it changes the arithmetic. */
export interface LoraConfig {
  rank: number;
  alpha: number;
  /** α / r; rank-stabilized, α / √r (Kalajdzievski 2023). */
  scale: number;
  /**
   * Whether a module of a layer has an update; undefined where the configuration says it in a way that is not evaluated
   * here.
   */
  selects(module: string, layer: number): boolean | undefined;
}

/**
 * Fields whose presence in any form means a computation other than W + scale · B · A of whole projections; what to call
 * each.
 */
const REFUSED: Record<string, string> = {
  use_dora: 'DoRA ("use_dora")',
  use_qalora: 'QALoRA ("use_qalora")',
  rank_pattern: 'ranks that differ between modules ("rank_pattern")',
  alpha_pattern: 'scales that differ between modules ("alpha_pattern")',
  modules_to_save: 'whole modules beside the low-rank updates ("modules_to_save")',
  fan_in_fan_out: 'transposed weights ("fan_in_fan_out")',
  lora_bias: 'biases ("lora_bias")',
  layer_replication: 'repeated layers ("layer_replication")',
  trainable_token_indices: 'embeddings of single tokens ("trainable_token_indices")',
  target_parameters: 'parameters that are no modules ("target_parameters")',
  alora_invocation_tokens: 'activation by tokens ("alora_invocation_tokens")',
};

/** Fields that change training, bookkeeping or how modules are found, not what a finished adapter computes. */
const HARMLESS = new Set([
  'peft_type',
  'peft_version',
  'task_type',
  'base_model_name_or_path',
  'revision',
  'auto_mapping',
  'parent_library',
  'inference_mode',
  'r',
  'lora_alpha',
  'lora_dropout',
  'bias',
  'target_modules',
  'exclude_modules',
  'layers_to_transform',
  'layers_pattern',
  'init_lora_weights',
  'loftq_config',
  'eva_config',
  'corda_config',
  'lora_ga_config',
  'megatron_config',
  'megatron_core',
  'runtime_config',
  'qalora_group_size',
  'ensure_weight_tying',
  'use_rslora',
]);

/** How training may have begun without changing the weights the adapter is added to. */
const SOUND_STARTS: readonly unknown[] = [undefined, true, false, 'gaussian', 'eva', 'orthogonal'];

/**
 * Reads adapter_config.json and refuses by name what the engine would compute otherwise. Throws INVALID_CHECKPOINT or
 * UNSUPPORTED_MODEL.
 */
export function readLoraConfig(json: unknown, source: string, nLayers: number): LoraConfig {
  const fields = Fields.ofJson(json, source);
  if (!fields.has('peft_type') && (fields.has('fine_tune_type') || fields.has('lora_parameters')))
    throw fields.unsupported('describes an adapter of MLX; PEFT LoRA adapters are supported');
  const type = fields.string('peft_type');
  if (type !== 'LORA') throw fields.unsupported(`describes an adapter of type ${show(type)}; "LORA" is supported`);
  for (const [key, name] of Object.entries(REFUSED)) {
    if (isSet(fields.raw(key)))
      throw fields.unsupported(`asks for ${name}; LoRA with one rank and one scale, W + scale · B · A, is supported`);
  }
  for (const key of Object.keys(json as object)) {
    if (!HARMLESS.has(key) && !Object.hasOwn(REFUSED, key) && isSet(fields.raw(key))) {
      throw fields.unsupported(
        `has ${show(key)}: ${show(fields.raw(key))}, which this version does not know, so it cannot tell what that ` +
          'changes',
      );
    }
  }
  const bias = fields.string('bias', 'none');
  if (bias !== 'none')
    throw fields.unsupported(`has "bias": ${show(bias)}; adapters without biases ("none") are supported`);
  const start = fields.raw('init_lora_weights');
  if (!SOUND_STARTS.includes(start))
    throw fields.unsupported(
      `has "init_lora_weights": ${show(start)}, which starts from changed weights; LoRA beside the model's own ` +
        'weights is supported',
    );
  const rank = fields.integer('r', { min: 1, max: 2 ** 16 });
  const alpha = fields.number('lora_alpha', { min: -1e6, max: 1e6 });
  const targets = readTargets(fields);
  const layers = readLayers(fields, nLayers);
  // Python's regular expressions and exclusions are not evaluated: then the tensors say which modules there are.
  const exact = targets !== undefined && !isSet(fields.raw('exclude_modules'));
  return {
    rank,
    alpha,
    scale: alpha / (fields.boolean('use_rslora', false) ? Math.sqrt(rank) : rank),
    selects: (module, layer) => {
      if (layers && !layers.has(layer)) return false;
      return exact ? targets.some((target) => module === target || module.endsWith(`.${target}`)) : undefined;
    },
  };
}

function isSet(value: unknown): boolean {
  return (
    value !== undefined && value !== false && !(typeof value === 'object' && Object.keys(value as object).length === 0)
  );
}

/** The modules listed, or undefined when they are given by a pattern. */
function readTargets(fields: Fields): string[] | undefined {
  const targets = fields.raw('target_modules');
  if (targets === undefined || typeof targets === 'string') return undefined;
  if (!Array.isArray(targets) || targets.length === 0 || !targets.every((target) => typeof target === 'string')) {
    throw fields.invalid(`has "target_modules": ${show(targets)}; a list of module names is expected`);
  }
  const known = PROJECTIONS.map((role) => HUGGINGFACE_NAMES.roles[role].replace(/^.*\.(\w+)\.weight$/, '$1'));
  for (const target of targets as string[]) {
    if (!known.includes(target.slice(target.lastIndexOf('.') + 1)))
      throw fields.unsupported(`has ${show(target)} in "target_modules"; supported are ${known.join(', ')}`);
  }
  return targets as string[];
}

/** The layers listed, or undefined for all. */
function readLayers(fields: Fields, nLayers: number): Set<number> | undefined {
  const value = fields.raw('layers_to_transform');
  if (!isSet(value)) return undefined;
  const layers: unknown[] = Array.isArray(value) ? value : [value];
  for (const layer of layers) {
    if (!Number.isSafeInteger(layer) || (layer as number) < 0)
      throw fields.invalid(`has "layers_to_transform" with ${show(layer)}; layer indices are expected`);
    if ((layer as number) >= nLayers)
      throw fields.invalid(
        `has "layers_to_transform" with ${show(layer)}, but the model has ${nLayers} layers: the adapter belongs ` +
          'to another model',
      );
  }
  return new Set(layers as number[]);
}
