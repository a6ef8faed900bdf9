// What the kernels offer to the host: the device's view of a model and a workspace, and one launch function per phase.
// A launch function only enqueues: it never allocates or synchronises, so all of them may be captured in a graph, and
// what changes from one token to the next (DeviceInputs: whose it is, its id, its position) is read from device memory,
// so that the graph can be replayed.
//
// Order of one forward over step.n_tokens tokens, for a program's phases:
//   launch_embed;  per stage: launch_qkv, launch_attention, launch_attention_out, launch_gate_up, launch_down;
//   launch_head
// `wide` passes all lanes of a stage at once. `lanes` passes one lane at a time, each on a stream of its own, with
// launch_down_apart in place of launch_down and launch_join once all lanes are there; with bypass > 0 launch_gate_up of
// a lane waits for launch_attention_out of the lanes before it. Lanes share no scratch. `persistent` is launch_token.
// With one token the three give the same bits: a value is summed in an order that depends on its length alone.
//
// With several tokens the matrix products run on tensor cores with each float32 operand split into bf16 parts
// (matmul.cu). Relative to float64, in norm: one token 1e-5; several tokens 5e-5, and 1e-5 with F32 weights. With
// several tokens, the bits of what one gives depend on its text alone, neither on how many tokens there are nor on
// whose they are.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "../../backend/backend.h"
#include "../platform.h"

namespace cqil::cuda {

// Weights as the kernels read them: rows at 16-byte boundaries, and scales that would break the alignment of 16-byte
// loads in a plane of their own. pack.h brings a tensor of the file into this form.
struct Matrix {
  const uint8_t* data;     // [rows, row_bytes], 16-byte aligned
  const uint16_t* scales;  // f16 [rows, cols / 32] for Q8_0 and Q4_0, [rows, cols / 256] for Q6_K, rows padded to 16
                           // bytes; null for the others
  int64_t row_bytes;       // packed_layout().row_bytes
  int32_t rows, cols;
  int32_t dtype;  // cqil_dtype
};

// Vectors are float32, aligned to 16 bytes, with at least their own length; absent ones are null.
struct DeviceLayer {
  const float* attention_norm;  // [dim]
  const float *bq, *bk, *bv, *bo;
  const float *q_norm, *k_norm;  // [head_dim]
  const float* mlp_norm;         // [dim]
  Matrix wq, wk, wv, wo, w_gate, w_up, w_down;
};

struct DeviceModel {
  int32_t dim, hidden_dim, head_dim, n_heads, n_kv_heads, n_layers, vocab_size;
  float norm_eps;
  int32_t rope_interleaved;
  int32_t sliding_window;  // positions a query looks back, itself included; 0: all
  float embedding_scale;
  float attention_scale;      // 0: 1 / sqrt(head_dim)
  const DeviceLayer* layers;  // device memory, [n_layers]
  Matrix token_embedding, output;
  int32_t heads_per_kv;    // n_heads / n_kv_heads
  uint32_t pairs_inverse;  // 2^32 / (head_dim / 2), rounded up
  int32_t format;  // the cqil_dtype of all matrices of the layers where it is one, -1 elsewhere: there are kernels for
                   // each
  int32_t head_norms;    // 1 where layers have q_norm or k_norm, else 0
  int32_t gate_up_runs;  // 1; 2 where w_gate and w_up of some layer have different formats, and so go one by one
  const float* output_norm;
};

// One text's keys and values: all that a cache holds on the device.
struct DeviceCache {
  uint8_t *keys, *values;  // [n_layers, n_kv_heads, context, cache_row_bytes()]; padding is zero
  int32_t context;         // positions
  int32_t kv_dtype;        // CQIL_F32, CQIL_F16 or CQIL_Q8_0
};

// A token of a forward, and what is wanted after it.
struct DeviceToken {
  DeviceCache cache;  // of its text
  int32_t position;   // < cache.context
  int32_t id;         // in [0, vocab_size)
  int32_t target;     // for launch_scores
  int32_t listed;     // entries of the shortlist, 0 … CQIL_MAX_SHORTLIST, for launch_select and launch_token
};

// A text's tokens among those of a forward of several tokens.
struct DeviceRow {
  int32_t first_token, n_tokens;
  int32_t first_tile;  // attention_tiles() of the rows before it in its CacheRows
};

// Rows whose caches have one format.
struct CacheRows {
  int32_t first, count;  // of DeviceInputs::rows
  int32_t tiles;         // attention_tiles() of all of them together
};

// Everything that differs from one forward to the next, in device memory. The host sends it by one copy: all of it, or
// the first token where there is only one. Kernels find a text's cache and position by this alone, so a graph that is
// replayed serves all caches of one format. With the pointers in the graph, every text would need a graph of its own,
// captured and kept; to change them before a replay would cost a call for each launch.
struct DeviceInputs {
  DeviceToken tokens[CQIL_MAX_BATCH];
  // Read where there are several tokens:
  int32_t heads[CQIL_MAX_BATCH];  // tokens whose logits are wanted
  DeviceRow rows[CQIL_MAX_BATCH];
};

// What a workspace is made for.
struct WorkspaceSize {
  int32_t batch;  // most tokens of a forward, 1 … CQIL_MAX_BATCH
  int32_t max_lanes;
  int32_t bypass;           // D
  int32_t bypass_residual;  // 1: "official"
};

// Everything a workspace holds on the device. Strides are in floats and multiples of 32; padding is zero from the
// initial memset on and stays zero. Rows of per-lane buffers: lane * batch + token.
struct DeviceWorkspace {
  WorkspaceSize size;
  int32_t dim_stride, hidden_stride;
  int32_t head_stride;       // head_dim in whole blocks of 32
  int32_t query_stride;      // n_heads * head_stride
  int32_t attention_stride;  // n_heads * head_dim, padded

  DeviceInputs* inputs;  // [1] set by the host before a forward

  // cos and sin of position * frequency times the attention factor, [positions, head_dim / 2] each, filled by the host
  // at least up to the last position used. They are in memory of their own, which grows to the longest cache used.
  float *rope_cos, *rope_sin;

  float* x;          // [batch, dim_stride] the residual stream
  float* norm;       // [max_lanes, batch, dim_stride] normalised inputs, when there are several tokens
  float* query;      // [max_lanes, batch, query_stride] heads head_stride apart
  float* key_value;  // [max_lanes, batch, 2, n_kv_heads * head_stride] K and V before the cache, when several tokens
  float* attention;  // [max_lanes, batch, attention_stride] heads head_dim apart
  float* attention_out;        // [max_lanes, batch, dim_stride] a_j
  float* gate_up;              // [max_lanes, batch, hidden_stride]
  float* mlp_out;              // [max_lanes, batch, dim_stride] m_j of launch_down_apart
  float* logits;               // [min(batch, CQIL_MAX_LOGIT_ROWS), vocab_size]
  float* scores;               // [CQIL_MAX_BATCH] of launch_scores, nats
  cqil_shortlist* shortlists;  // [CQIL_MAX_BATCH] of launch_select and launch_token

  // Scratch of the kernels: zero before the first use, left zero where that matters.
  float* attention_partials;
  uint32_t* attention_arrivals;
  float* select_partials;
  uint32_t* grid_arrivals;
};

// Bytes of device memory, and pointers into it: the host allocates it at 256-byte alignment and sets it to zero.
int64_t cache_bytes(const cqil_shape& shape, int32_t context, cqil_dtype kv_dtype);
DeviceCache bind_cache(const cqil_shape& shape, int32_t context, cqil_dtype kv_dtype, void* memory);
int64_t workspace_bytes(const cqil_shape& shape, const WorkspaceSize& size);
// Fills every pointer but those to the tables of RoPE.
DeviceWorkspace bind_workspace(const cqil_shape& shape, const WorkspaceSize& size, void* memory);

struct Step {
  DeviceModel model;
  DeviceWorkspace workspace;
  int32_t n_tokens;         // 1 … size.batch; known to the host, the same at every replay of a graph
  cqil_dtype kv_dtype;      // of the cache, where there is one token
  CacheRows rows[3];        // where there are several tokens, by the format of their caches: F32, F16, Q8_0
  int32_t multiprocessors;  // of the device: one block each where a launch walks its work

  // Parts of shared memory, as shared_plan() gives them: what vectors are staged in, and the bytes of weights on their
  // way to a warp.
  int32_t stage_floats, ring_bytes;
  // Launches of one token may begin before the one before them in their stream has ended: it must be a launch of one
  // token too, and the device of compute capability 9.0 or newer.
  bool overlaps;
};

// How the shared memory of a block is divided, for workspaces of max_lanes lanes on a device that gives a block
// `most_bytes` of it. stage_floats 0: it is too little for the shape.
struct SharedPlan {
  int32_t stage_floats, ring_bytes;
};
SharedPlan shared_plan(const cqil_shape& shape, int32_t max_lanes, int64_t most_bytes);
// Bytes of shared memory of a block of a launch of this step.
uint32_t shared_bytes(const Step& step);

// Layers first_layer + lane for lanes first_lane … first_lane + n_lanes - 1 of one stage; first_layer is lane 0's.
struct LaneRange {
  int32_t first_layer, first_lane, n_lanes;
};

// Raises the kernels' shared memory limits on the current device to all that it gives a block (opt-in); once per
// device, before anything else.
cudaError_t prepare_kernels(int32_t shared_bytes);

// True when the kernels can run this shape: even head_dim of 2 … 256, n_heads a multiple of n_kv_heads.
bool shape_supported(const cqil_shape& shape);
// What of a model follows from its shape, which is supported; its weights and their formats are left to be filled in.
DeviceModel device_model(const cqil_shape& shape);

// x = the tokens' rows of the token embedding.
cudaError_t launch_embed(const Step& step, cudaStream_t stream);
// query of each lane, and each token's row of its cache, in each lane's layer.
cudaError_t launch_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// attention = softmax(q K^T / sqrt(head_dim)) V.
cudaError_t launch_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// attention_out = a_j.
cudaError_t launch_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// gate_up = SiLU(W_gate h) * (W_up h), h = norm of x + a_j + b_j.
cudaError_t launch_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// x += every a_j [+ b_j], then every W_down gate_up. All lanes of a stage: first_lane is 0.
cudaError_t launch_down(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// mlp_out = W_down gate_up; x stays. launch_join then adds attention_out and mlp_out of lanes 0 … n_lanes - 1 to x, to
// the bits of launch_down. A trace copies x, attention_out and mlp_out between the two.
cudaError_t launch_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t launch_join(const Step& step, int32_t n_lanes, cudaStream_t stream);
// logits rows 0 … n_rows - 1 = those of the tokens in DeviceInputs::heads from first_head on, or of the only token;
// n_rows <= min(batch, CQIL_MAX_LOGIT_ROWS).
cudaError_t launch_head(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream);
// After launch_head of the same rows:
// scores[first_head + i] = log-probability of the target of the row's token by logits row i.
cudaError_t launch_scores(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream);
// shortlists[first_head + i] = log-sum-exp and the highest of logits row i, as many as the row's token wants; left
// alone where it wants none.
cudaError_t launch_select(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream);
// Blocks that attention takes for n_tokens of one text and one key/value head.
int32_t attention_tiles(const DeviceModel& model, int32_t n_tokens);

// One token through the whole program by one cooperative kernel (n_tokens is 1): every phase of `phases` (device
// memory, a copy of cqil_program.phases), all lanes wide, a grid barrier between phases. with_logits false
// leaves the head out; with_shortlist does launch_select's work too. The grid is one block per multiprocessor; fails
// with cudaErrorCooperativeLaunchTooLarge where they cannot all be resident.
struct TokenRun {
  const cqil_phase* phases;
  int32_t n_phases;
  bool with_logits, with_shortlist;
};
// Whether there is a kernel for it: where DeviceModel::format is F32, F16, BF16, Q8_0 or Q4_0, and the output's too.
bool token_supported(const DeviceModel& model);
cudaError_t launch_token(const Step& step, const TokenRun& run, cudaStream_t stream);
// n barriers of the grid and nothing else, to measure what one costs.
cudaError_t launch_barriers(const Step& step, int32_t n, cudaStream_t stream);

}  // namespace cqil::cuda
