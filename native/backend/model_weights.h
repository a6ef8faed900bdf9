// A model in memory: its tensors, its shape, and where its formula differs from LLaMA's.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cqil_dtype {
  CQIL_F32 = 0,
  CQIL_F16,
  CQIL_BF16,
  CQIL_Q8_0,
  CQIL_Q4_0,
  CQIL_Q4_K,
  CQIL_Q5_K,
  CQIL_Q6_K,
  CQIL_DTYPE_COUNT
} cqil_dtype;

// A matrix [rows, cols], row-major, rows packed without gaps, any alignment. A vector has one row. data null: absent.
typedef struct cqil_tensor {
  const void* data;
  cqil_dtype dtype;
  int64_t rows;
  int64_t cols;
} cqil_tensor;

// What the gate of an MLP goes through.
typedef enum cqil_activation {
  CQIL_SILU = 0,   // g / (1 + exp(-g))
  CQIL_GELU_TANH,  // g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))
  CQIL_ACTIVATION_COUNT
} cqil_activation;

// Where a model's formula differs from LLaMA's, which is all zeros. What can be folded into weights or sizes is, and
// does not stand here: offsets of norms' weights, multipliers of logits and of what blocks add to x.
typedef struct cqil_formula {
  cqil_activation activation;
  float embedding_scale;  // on rows of the token embedding; 0: as they are
  float attention_scale;  // on q K^T; 0: 1 / sqrt(head_dim)
  float attention_cap;    // a scaled score s becomes cap * tanh(s / cap); 0: stays
  float logit_cap;        // and a logit; 0: stays
} cqil_formula;

typedef struct cqil_shape {
  int32_t dim;
  int32_t hidden_dim;
  int32_t head_dim;
  int32_t n_heads;
  int32_t n_kv_heads;
  int32_t n_layers;
  int32_t vocab_size;
  float norm_eps;                  // of norms of x, and of x and what the bypass adds to it
  float own_norm_eps;              // of norms of heads and of what a block computes
  int32_t rope_dim;                // the first values of a head, which RoPE turns; even
  int32_t n_ropes;                 // at least 1
  const double* rope_frequencies;  // [n_ropes, rope_dim / 2] radians per position
  double rope_attention_factor;    // on cos and sin
  int32_t rope_interleaved;        // pairs (2i, 2i+1) instead of (i, i + rope_dim/2)
  cqil_formula formula;
} cqil_shape;

// Where a layer keeps positions as they are.
#define CQIL_NO_ROPE -1

typedef struct cqil_layer {
  int32_t window;              // positions a query looks back, itself included; 0: all
  int32_t rope;                // which frequencies of the shape turn its heads, or CQIL_NO_ROPE
  cqil_tensor attention_norm;  // [dim]
  cqil_tensor wq;              // [n_heads * head_dim, dim]
  cqil_tensor wk;              // [n_kv_heads * head_dim, dim]
  cqil_tensor wv;              // [n_kv_heads * head_dim, dim]
  cqil_tensor wo;              // [dim, n_heads * head_dim]
  cqil_tensor bq, bk, bv, bo;  // biases of the four above, each optional
  cqil_tensor q_norm, k_norm;  // [head_dim], RMSNorm of each head before RoPE, optional
  cqil_tensor mlp_norm;        // [dim]
  cqil_tensor w_gate;          // [hidden_dim, dim]
  cqil_tensor w_up;            // [hidden_dim, dim]
  cqil_tensor w_down;          // [dim, hidden_dim]
  // [dim], RMSNorm of what a block has computed, before it counts as a_j or m_j; every layer of a model has both or
  // none.
  cqil_tensor attention_post_norm, mlp_post_norm;
} cqil_layer;

// One-row tensors (norms, biases) are float32; matrices are any dtype. All must outlive the backend's model, except
// what its prepare() has moved. A backend with a prepare() reads none of them before a workspace is made.
typedef struct cqil_weights {
  cqil_shape shape;
  cqil_tensor token_embedding;  // [vocab_size, dim]
  cqil_tensor output_norm;      // [dim]
  cqil_tensor output;           // [vocab_size, dim]; the token embedding again when tied
  const cqil_layer* layers;     // [n_layers]
} cqil_weights;

#ifdef __cplusplus
}
#endif
