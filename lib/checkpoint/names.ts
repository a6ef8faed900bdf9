import type { TensorRole } from './types.js';

/** How a file format names a model's tensors. */
export interface NameScheme {
  roles: Record<TensorRole, string>;
  /** What stands before the layer's number in the name of a layer's tensor; a dot follows the number. */
  layerPrefix: string;
  /** A prefix some files leave out of every name. */
  optionalPrefix: string;
  /** Names of tensors that are derived from the configuration. */
  derived: RegExp;
}

export const HUGGINGFACE_NAMES: NameScheme = {
  roles: {
    token_embedding: 'embed_tokens.weight',
    output_norm: 'norm.weight',
    output: 'lm_head.weight',
    attention_norm: 'input_layernorm.weight',
    wq: 'self_attn.q_proj.weight',
    wk: 'self_attn.k_proj.weight',
    wv: 'self_attn.v_proj.weight',
    wo: 'self_attn.o_proj.weight',
    bq: 'self_attn.q_proj.bias',
    bk: 'self_attn.k_proj.bias',
    bv: 'self_attn.v_proj.bias',
    bo: 'self_attn.o_proj.bias',
    q_norm: 'self_attn.q_norm.weight',
    k_norm: 'self_attn.k_norm.weight',
    mlp_norm: 'post_attention_layernorm.weight',
    w_gate: 'mlp.gate_proj.weight',
    w_up: 'mlp.up_proj.weight',
    w_down: 'mlp.down_proj.weight',
  },
  layerPrefix: 'layers.',
  optionalPrefix: 'model.',
  derived: /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/,
};

export const GGUF_NAMES: NameScheme = {
  roles: {
    token_embedding: 'token_embd.weight',
    output_norm: 'output_norm.weight',
    output: 'output.weight',
    attention_norm: 'attn_norm.weight',
    wq: 'attn_q.weight',
    wk: 'attn_k.weight',
    wv: 'attn_v.weight',
    wo: 'attn_output.weight',
    bq: 'attn_q.bias',
    bk: 'attn_k.bias',
    bv: 'attn_v.bias',
    bo: 'attn_output.bias',
    q_norm: 'attn_q_norm.weight',
    k_norm: 'attn_k_norm.weight',
    mlp_norm: 'ffn_norm.weight',
    w_gate: 'ffn_gate.weight',
    w_up: 'ffn_up.weight',
    w_down: 'ffn_down.weight',
  },
  layerPrefix: 'blk.',
  optionalPrefix: '',
  derived: /^rope_freqs\.weight$|\.attn_rot_embd$/,
};

const SINGLE_ROLES: ReadonlySet<TensorRole> = new Set(['token_embedding', 'output_norm', 'output']);

/** What a tensor's name says it is. */
export type NamedTensor =
  | { kind: 'model'; role: TensorRole; layer: number }
  | { kind: 'unknown-in-layer' }
  | { kind: 'irrelevant' };

/** Reads names of one scheme. */
export function nameReader(scheme: NameScheme): (name: string) => NamedTensor {
  const roleOf = new Map(Object.entries(scheme.roles).map(([role, suffix]) => [suffix, role as TensorRole]));
  const layerName = new RegExp(`^${escape(scheme.layerPrefix)}(0|[1-9]\\d{0,8})\\.(.+)$`);
  return (name) => {
    if (scheme.derived.test(name)) return { kind: 'irrelevant' };
    const bare = name.startsWith(scheme.optionalPrefix) ? name.slice(scheme.optionalPrefix.length) : name;
    const inLayer = layerName.exec(bare);
    const role = roleOf.get(inLayer ? inLayer[2]! : bare);
    if (inLayer)
      return role && !SINGLE_ROLES.has(role)
        ? { kind: 'model', role, layer: Number(inLayer[1]) }
        : { kind: 'unknown-in-layer' };
    return role && SINGLE_ROLES.has(role) ? { kind: 'model', role, layer: -1 } : { kind: 'irrelevant' };
  };
}

/** The usual name of a tensor in a scheme. */
export function tensorName(scheme: NameScheme, role: TensorRole, layer: number): string {
  const prefix = role === 'output' ? '' : scheme.optionalPrefix;
  return layer < 0 ? prefix + scheme.roles[role] : `${prefix}${scheme.layerPrefix}${layer}.${scheme.roles[role]}`;
}

function escape(text: string): string {
  return text.replaceAll('.', '\\.');
}
