import type { TensorRole } from './types.js';

/** How a file format names a model's tensors. */
export interface NameScheme {
  roles: Partial<Record<TensorRole, string>>;
  /** Names of tensors that hold several of a layer's matrices, the rows of one after those of another. */
  fused: Record<string, readonly TensorRole[]>;
  /** What stands before the layer's number in the name of a layer's tensor; a dot follows the number. */
  layerPrefix: string;
  /** A prefix some files leave out of every name. */
  optionalPrefix: string;
  /** What stands before every name where the model is part of a larger one. */
  wholePrefixes?: readonly string[];
  /** Names of tensors that are derived from the configuration. */
  derived: RegExp;
}

/** Every role of LLaMA's. */
type PlainScheme = NameScheme & { roles: Record<Exclude<TensorRole, 'attention_post_norm' | 'mlp_post_norm'>, string> };

export const HUGGINGFACE_NAMES: PlainScheme = {
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
  fused: {},
  layerPrefix: 'layers.',
  optionalPrefix: 'model.',
  derived: /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/,
};

export const GGUF_NAMES: PlainScheme = {
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
  fused: {},
  layerPrefix: 'blk.',
  optionalPrefix: '',
  derived: /^rope_freqs\.weight$|\.attn_rot_embd$/,
};

/** Gemma 2 and 3: the norm after attention has the name of llama's norm before the MLP. */
export const HUGGINGFACE_POST_NORM_NAMES: NameScheme = {
  ...HUGGINGFACE_NAMES,
  roles: {
    ...HUGGINGFACE_NAMES.roles,
    attention_post_norm: 'post_attention_layernorm.weight',
    mlp_norm: 'pre_feedforward_layernorm.weight',
    mlp_post_norm: 'post_feedforward_layernorm.weight',
  },
};

export const GGUF_POST_NORM_NAMES: NameScheme = {
  ...GGUF_NAMES,
  roles: {
    ...GGUF_NAMES.roles,
    attention_post_norm: 'post_attention_norm.weight',
    mlp_post_norm: 'post_ffw_norm.weight',
  },
};

export const HUGGINGFACE_FUSED_NAMES: NameScheme = {
  ...HUGGINGFACE_NAMES,
  fused: {
    'self_attn.qkv_proj.weight': ['wq', 'wk', 'wv'],
    'mlp.gate_up_proj.weight': ['w_gate', 'w_up'],
  },
};

/** Phi 3: the gate stands in front of what other models keep under this name alone. */
export const GGUF_FUSED_NAMES: NameScheme = {
  ...GGUF_NAMES,
  roles: { ...GGUF_NAMES.roles, w_gate: undefined, w_up: undefined },
  fused: { 'attn_qkv.weight': ['wq', 'wk', 'wv'], 'ffn_up.weight': ['w_gate', 'w_up'] },
  derived: /^rope_(freqs|factors_long|factors_short)\.weight$/,
};

const SINGLE_ROLES: ReadonlySet<TensorRole> = new Set(['token_embedding', 'output_norm', 'output']);

/** What a tensor's name says it is. */
export type NamedTensor =
  | { kind: 'model'; role: TensorRole; layer: number }
  | { kind: 'fused'; roles: readonly TensorRole[]; layer: number }
  | { kind: 'unknown-in-layer' }
  | { kind: 'irrelevant' };

/** Reads names of one scheme. */
export function nameReader(scheme: NameScheme): (name: string) => NamedTensor {
  const roleOf = new Map(
    Object.entries(scheme.roles).flatMap(([role, suffix]) => (suffix ? [[suffix, role as TensorRole] as const] : [])),
  );
  const layerName = new RegExp(`^${escape(scheme.layerPrefix)}(0|[1-9]\\d{0,8})\\.(.+)$`);
  return (name) => {
    if (scheme.derived.test(name)) return { kind: 'irrelevant' };
    const whole = scheme.wholePrefixes?.find((prefix) => name.startsWith(prefix)) ?? '';
    const own = name.slice(whole.length);
    const bare = own.startsWith(scheme.optionalPrefix) ? own.slice(scheme.optionalPrefix.length) : own;
    const inLayer = layerName.exec(bare);
    const role = roleOf.get(inLayer ? inLayer[2]! : bare);
    if (inLayer && Object.hasOwn(scheme.fused, inLayer[2]!))
      return { kind: 'fused', roles: scheme.fused[inLayer[2]!]!, layer: Number(inLayer[1]) };
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
  const fused = Object.keys(scheme.fused).find((name) => scheme.fused[name]!.includes(role));
  const name = fused ?? scheme.roles[role];
  return layer < 0 ? `${prefix}${name}` : `${prefix}${scheme.layerPrefix}${layer}.${name}`;
}

function escape(text: string): string {
  return text.replaceAll('.', '\\.');
}
