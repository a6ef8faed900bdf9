// Matrix products of several tokens on tensor cores, y[t, r] = w row r . x row t, to nearly float32: every operand is
// split into bf16 parts, v = hi + lo with lo = bf16(v - hi) and so on, and the products of parts are summed in float32
// from the largest down to those below the last part kept (as in Henry, Tang and Heinecke 2019, arXiv 1904.06376).
//   BF16 weights   1 part, x 2 parts: 2 products; x is kept to 2^-18 relative
//   F32 weights    3 parts, x 3 parts: 6 products, 2^-24
//   others         2 parts, x 2 parts: 3 products, 2^-17
// Tolerance, in norm against float64: 5e-5, and 1e-5 with F32 weights.
// Bytes: the weights once per tile of tokens, x once per tile of rows (from L2). FLOPs: 2 per weight and token, times
// the products above, on tensor cores. A block computes 64 rows by 32 or 128 tokens with eight warps, 32 rows each by a
// quarter of the tokens: at 128 tokens a weight is dequantized once for all of them and a warp's 2 x 4 tiles reuse each
// fragment four or two times. The next tile of weights and x is on its way to registers while tensor cores work on this
// one.
#include "matmul.h"

#include "common/bf16_parts.cuh"
#include "common/dequantize.cuh"
#include "gate_up.cuh"
#include "prefill.h"

namespace cqil::cuda {
namespace {

constexpr int kRowTile = 64, kDepth = 32, kMatmulThreads = 256;
constexpr int kTileStride = kDepth + 8;  // of a tile's rows in bf16: fragments then come from 32 different banks
constexpr int kMaxParts = 3;
constexpr int kFewTokens = 32, kManyTokens = 128;  // of a tile

enum Product : int { kProductQkv, kProductAttentionOut, kProductGateUp, kProductDown, kProductHead };

struct MatmulRun {
  int product;
  LaneRange lanes;
  int n_tokens;  // rows of x
};

constexpr int tile_bytes(int tokens) { return kMaxParts * (kRowTile + tokens) * kTileStride * 2; }

// Where the rows of a block's tile come from. gate_up: rows 0-15 and 32-47 of a tile are gate, the others up, so that a
// thread's accumulators hold both of a pair.
struct TileRow {
  const Matrix* w;
  int row;  // w->rows or more: none
};
__device__ __forceinline__ TileRow tile_row(const Step& step, const MatmulRun& run, int lane, int i) {
  const DeviceModel& m = step.model;
  const int tile = static_cast<int>(blockIdx.x) * kRowTile;
  if (run.product == kProductHead) return {&m.output, tile + i};
  const DeviceLayer& layer = m.layers[run.lanes.first_layer + lane];
  if (run.product == kProductAttentionOut) return {&layer.wo, tile + i};
  if (run.product == kProductDown) return {&layer.w_down, tile + i};
  if (run.product == kProductGateUp) return {i / 16 % 2 ? &layer.w_up : &layer.w_gate, tile / 2 + i / 32 * 16 + i % 16};
  // Each of Q, K and V begins a tile of its own.
  const int q_rows = (layer.wq.rows + kRowTile - 1) / kRowTile * kRowTile,
            kv_rows = (layer.wk.rows + kRowTile - 1) / kRowTile * kRowTile;
  if (tile < q_rows) return {&layer.wq, tile + i};
  if (tile < q_rows + kv_rows) return {&layer.wk, tile - q_rows + i};
  return {&layer.wv, tile - q_rows - kv_rows + i};
}

struct Inputs {
  const float* x;
  int stride;
};
__device__ __forceinline__ Inputs inputs_of(const DeviceWorkspace& s, const MatmulRun& run, int lane) {
  switch (run.product) {
    case kProductQkv:
    case kProductGateUp: return {lane_row(s, s.norm, s.dim_stride, lane, 0), s.dim_stride};
    case kProductAttentionOut: return {lane_row(s, s.attention, s.attention_stride, lane, 0), s.attention_stride};
    case kProductDown: return {lane_row(s, s.gate_up, s.hidden_stride, lane, 0), s.hidden_stride};
    default: return {s.norm, s.dim_stride};
  }
}

// y[token, row] of everything but gate_up to its place; qkv_finish takes Q, K and V from there.
__device__ __forceinline__ void store_product(const Step& step, const MatmulRun& run, int lane, const TileRow& from,
                                              int token, float value) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int row = from.row;
  if (row >= from.w->rows || token >= run.n_tokens) return;
  if (run.product == kProductHead) {
    s.logits[static_cast<int64_t>(token) * m.vocab_size + row] = value;
    return;
  }
  const DeviceLayer& layer = m.layers[run.lanes.first_layer + lane];
  if (run.product == kProductAttentionOut) {
    lane_row(s, s.attention_out, s.dim_stride, lane, token)[row] = layer.bo ? value + layer.bo[row] : value;
  } else if (run.product == kProductDown) {
    lane_row(s, s.mlp_out, s.dim_stride, lane, token)[row] = value;
  } else {
    const int at = row / m.head_dim * s.head_stride + row % m.head_dim, kv_width = m.n_kv_heads * s.head_stride;
    if (from.w == &layer.wq) lane_row(s, s.query, s.query_stride, lane, token)[at] = value;
    else lane_row(s, s.key_value, 2 * kv_width, lane, token)[(from.w == &layer.wv ? kv_width : 0) + at] = value;
  }
}

// kTokens: of a tile. kWeightParts, kInputParts: of each operand.
template <int kTokens, int kWeightParts, int kInputParts>
__device__ __forceinline__ void multiply(const Step& step, const MatmulRun& run, int first_token) {
  constexpr int kTiles = kTokens / 32;                          // of eight tokens, per warp
  constexpr int kRuns = kTokens * kDepth / 8 / kMatmulThreads;  // of eight x values, per thread; 0: half of the threads
                                                                // have one
  constexpr int kLoads = kRuns > 0 ? kRuns : 1;
  constexpr int kRowWords = kTileStride / 2, kWeightWords = kRowTile * kRowWords, kInputWords = kTokens * kRowWords;
  constexpr int kDeepest = kWeightParts > kInputParts ? kWeightParts : kInputParts;
  uint32_t* weights = reinterpret_cast<uint32_t*>(shared_floats());
  uint32_t* inputs = weights + kWeightParts * kWeightWords;

  const int lane = run.lanes.first_lane + static_cast<int>(blockIdx.z);
  const Inputs x = inputs_of(step.workspace, run, lane);
  const int thread = static_cast<int>(threadIdx.x), row_part = warp_id() / 4 * 32,
            token_part = warp_id() % 4 * (kTokens / 4);
  const int g = lane_id() / 4, t = lane_id() % 4;
  const TileRow mine = tile_row(step, run, lane, thread / 4);
  const int depth = tile_row(step, run, lane, 0).w->cols, column = thread % 4 * 8;

  float w_next[8], x_next[kLoads][8];
  auto fetch = [&](int k) {
    CQIL_UNROLL for (int i = 0; i < 8; i++) w_next[i] = 0;
    if (mine.row < mine.w->rows) eight_weights(*mine.w, mine.row, k + column, w_next);
    CQIL_UNROLL for (int j = 0; j < kLoads; j++) {
      const int token = first_token + (thread + j * kMatmulThreads) / 4;
      CQIL_UNROLL for (int i = 0; i < 8; i++) x_next[j][i] = 0;
      // Rows of x are padded with zeros to 32.
      if (token < run.n_tokens && token < first_token + kTokens) {
        const float4* from = reinterpret_cast<const float4*>(x.x + static_cast<int64_t>(token) * x.stride + k + column);
        const float4 a = from[0], b = from[1];
        x_next[j][0] = a.x, x_next[j][1] = a.y, x_next[j][2] = a.z, x_next[j][3] = a.w;
        x_next[j][4] = b.x, x_next[j][5] = b.y, x_next[j][6] = b.z, x_next[j][7] = b.w;
      }
    }
  };

  float sums[2][kTiles][4] = {};
  fetch(0);
  for (int k = 0; k < depth; k += kDepth) {
    sync_block();
    store_parts<kWeightParts>(weights, kWeightWords, thread / 4 * kRowWords + column / 2, w_next);
    CQIL_UNROLL for (int j = 0; j < kLoads; j++) {
      const int row = (thread + j * kMatmulThreads) / 4;
      if (row < kTokens) store_parts<kInputParts>(inputs, kInputWords, row * kRowWords + column / 2, x_next[j]);
    }
    sync_block();
    if (k + kDepth < depth) fetch(k + kDepth);
    CQIL_UNROLL for (int slice = 0; slice < kDepth / 16; slice++) {
      const int word = slice * 8 + t;
      uint32_t b[kInputParts][kTiles][2];
      CQIL_UNROLL for (int part = 0; part < kInputParts; part++) {
        CQIL_UNROLL for (int n = 0; n < kTiles; n++) {
          const uint32_t* at = inputs + part * kInputWords + (token_part + n * 8 + g) * kRowWords + word;
          b[part][n][0] = at[0], b[part][n][1] = at[4];
        }
      }
      CQIL_UNROLL for (int half = 0; half < 2; half++) {
        CQIL_UNROLL for (int part = 0; part < kWeightParts; part++) {
          const uint32_t* at = weights + part * kWeightWords + (row_part + half * 16 + g) * kRowWords + word;
          const uint32_t a[4] = {at[0], at[8 * kRowWords], at[4], at[8 * kRowWords + 4]};
          CQIL_UNROLL for (int input = 0; input < kInputParts; input++) {
            if (part + input < kDeepest)
              CQIL_UNROLL for (int n = 0; n < kTiles; n++) mma_bf16(sums[half][n], a, b[input][n]);
          }
        }
      }
    }
  }

  CQIL_UNROLL for (int n = 0; n < kTiles; n++) {
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      const int token = first_token + token_part + n * 8 + 2 * t + i % 2, row = row_part + g + i / 2 * 8;
      if (run.product == kProductGateUp) {
        const TileRow gate = tile_row(step, run, lane, row);
        if (gate.row < gate.w->rows && token < run.n_tokens)
          lane_row(step.workspace, step.workspace.gate_up, step.workspace.hidden_stride, lane, token)[gate.row] =
              silu_mul(sums[0][n][i], sums[1][n][i]);
        continue;
      }
      CQIL_UNROLL for (int half = 0; half < 2; half++) {
        store_product(step, run, lane, tile_row(step, run, lane, row + half * 16), token, sums[half][n][i]);
      }
    }
  }
}

// The parts that a tile's weights need; gate and up share a tile, so the finer of the two decides.
__device__ __forceinline__ int weight_parts(int dtype) { return dtype == CQIL_BF16 ? 1 : dtype == CQIL_F32 ? 3 : 2; }

template <int kTokens>
__global__ void __launch_bounds__(kMatmulThreads, 2)
    matmul_kernel(const __grid_constant__ Step step, const __grid_constant__ MatmulRun run) {
  const int lane = run.lanes.first_lane + static_cast<int>(blockIdx.z);
  const int first = weight_parts(tile_row(step, run, lane, 0).w->dtype),
            other = weight_parts(tile_row(step, run, lane, 16).w->dtype);
  const int parts = first > other ? first : other;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  if (parts == 1) return multiply<kTokens, 1, 2>(step, run, first_token);
  if (parts == 2) return multiply<kTokens, 2, 2>(step, run, first_token);
  // Three parts of 128 tokens would not fit the registers.
  for (int i = 0; i < kTokens && first_token + i < run.n_tokens; i += kFewTokens)
    multiply<kFewTokens, 3, 3>(step, run, first_token + i);
}

uint32_t tiles(int64_t n, int64_t tile) { return static_cast<uint32_t>((n + tile - 1) / tile); }

cudaError_t run_matmul(const Step& step, const MatmulRun& run, uint32_t row_tiles, int n_lanes, cudaStream_t stream) {
  const bool few = run.n_tokens <= kFewTokens;
  const int tokens = few ? kFewTokens : kManyTokens;
  const LaunchShape shape = {row_tiles,
                             tiles(run.n_tokens, tokens),
                             static_cast<uint32_t>(n_lanes),
                             kMatmulThreads,
                             static_cast<uint32_t>(tile_bytes(tokens)),
                             false,
                             false};
  return few ? launch(matmul_kernel<kFewTokens>, shape, stream, step, run)
             : launch(matmul_kernel<kManyTokens>, shape, stream, step, run);
}

}  // namespace

cudaError_t prepare_matmul() {
  const cudaError_t status = allow_shared_bytes(matmul_kernel<kFewTokens>, tile_bytes(kFewTokens));
  return status == cudaSuccess ? allow_shared_bytes(matmul_kernel<kManyTokens>, tile_bytes(kManyTokens)) : status;
}

cudaError_t matmul_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  const DeviceModel& m = step.model;
  const uint32_t rows = tiles(static_cast<int64_t>(m.n_heads) * m.head_dim, kRowTile) +
                        2 * tiles(static_cast<int64_t>(m.n_kv_heads) * m.head_dim, kRowTile);
  return run_matmul(step, {kProductQkv, lanes, step.n_tokens}, rows, lanes.n_lanes, stream);
}

cudaError_t prefill_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  return run_matmul(step, {kProductAttentionOut, lanes, step.n_tokens}, tiles(step.model.dim, kRowTile), lanes.n_lanes,
                    stream);
}

cudaError_t matmul_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  return run_matmul(step, {kProductGateUp, lanes, step.n_tokens}, tiles(step.model.hidden_dim, kRowTile / 2),
                    lanes.n_lanes, stream);
}

cudaError_t prefill_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  return run_matmul(step, {kProductDown, lanes, step.n_tokens}, tiles(step.model.dim, kRowTile), lanes.n_lanes, stream);
}

cudaError_t matmul_head(const Step& step, int32_t n_rows, cudaStream_t stream) {
  return run_matmul(step, {kProductHead, {0, 0, 1}, n_rows}, tiles(step.model.vocab_size, kRowTile), 1, stream);
}

}  // namespace cqil::cuda
