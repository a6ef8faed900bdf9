// Attention of several tokens on the CUDA cores in float32, with the running softmax of attention.cuh.
// Bytes: keys and values of the context once per 48 queries, from L2. FLOPs: 4 per value and query.
// A block takes 48 queries of one text and key/value head: consecutive tokens, each with all the heads that share it,
// four queries a warp. Keys and then values of 32 positions are unpacked to shared memory; a thread scores one position
// for its warp's four queries, and then sums its own columns of the values, so that each is read once from shared
// memory for four queries.
#include "prefill_attention.h"

#include "attention.cuh"
#include "prefill.h"
#include "common/weights.cuh"

namespace cqil::cuda {
namespace {

constexpr int kPerWarp = 4, kQueries = kPerWarp * kWarps, kPositions = 32;
constexpr int kColumns = 8;  // of a head's values, most per thread: head_stride / 32

constexpr int kTilePad = 4;  // floats after a row of the tile: quads of eight rows then lie in different banks

struct Query {
  int token, head, position;
  bool there;
};

// kPositions rows of keys or values from `first` on as float32; zeros from `end` on.
template <int D>
__device__ __forceinline__ void unpack_tile(float* tile, const uint8_t* rows, int first, int end,
                                            const DeviceWorkspace& s) {
  const int runs = s.head_stride / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kPositions * runs; i += kThreads) {
    const int p = i / runs, column = i % runs * 8;
    float v[8] = {};
    if (first + p < end) {
      KvRun<D> run;
      run.load(rows + static_cast<int64_t>(first + p) * cache_row_bytes(D, s.head_stride), column, s.head_stride);
      run.unpack(v);
    }
    float4* to = reinterpret_cast<float4*>(tile + p * (s.head_stride + kTilePad) + column);
    to[0] = make_float4(v[0], v[1], v[2], v[3]);
    to[1] = make_float4(v[4], v[5], v[6], v[7]);
  }
}

// The row that a tile belongs to: the last one that begins with it or before it.
__device__ __forceinline__ DeviceRow row_of_tile(const DeviceWorkspace& s, const CacheRows& rows, int tile) {
  const DeviceRow* all = s.inputs->rows + rows.first;
  int low = 0, high = rows.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (load_fresh(&all[middle].first_tile) <= tile) low = middle;
    else high = middle - 1;
  }
  return {load_fresh(&all[low].first_token), load_fresh(&all[low].n_tokens), load_fresh(&all[low].first_tile)};
}

template <int D>
__device__ __forceinline__ void attend_tile(const Step& step, const LaneRange& lanes, const CacheRows& rows) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int lane = lanes.first_lane + static_cast<int>(blockIdx.z), kv_head = static_cast<int>(blockIdx.y),
            layer = lanes.first_layer + lane;
  const DeviceRow row = row_of_tile(s, rows, static_cast<int>(blockIdx.x));
  const int sharing = m.n_heads / m.n_kv_heads, n_queries = sharing * row.n_tokens,
            block_first = (static_cast<int>(blockIdx.x) - row.first_tile) * kQueries;
  const Place place = place_of(s, row.first_token);
  const int position = place.position, stride = s.head_stride + kTilePad;
  float* q = shared_floats();                  // [kQueries, head_stride]
  float* tile = q + kQueries * s.head_stride;  // [kPositions, stride]

  // Queries of a token are neighbours, so that the tile's range of positions is short.
  auto query_at = [&](int i) {
    Query query;
    query.there = block_first + i < n_queries;
    const int at = query.there ? block_first + i : n_queries - 1;
    query.token = row.first_token + at / sharing, query.head = kv_head * sharing + at % sharing;
    query.position = position + at / sharing;
    return query;
  };
  auto first_of = [&](int last) {
    return m.sliding_window > 0 && last + 1 > m.sliding_window ? last + 1 - m.sliding_window : 0;
  };
  for (int i = static_cast<int>(threadIdx.x); i < kQueries * s.head_stride; i += kThreads) {
    const Query query = query_at(i / s.head_stride);
    q[i] = lane_row(s, s.query, s.query_stride, lane, query.token)[query.head * s.head_stride + i % s.head_stride];
  }

  const int warp_first = warp_id() * kPerWarp, columns = s.head_stride / kWarpSize;
  const float scale = attention_scale(m);
  float values[kPerWarp][kColumns] = {}, sum[kPerWarp] = {}, highest[kPerWarp], weight[kPerWarp];
  CQIL_UNROLL for (int j = 0; j < kPerWarp; j++) highest[j] = kLowest;
  const int64_t at = cache_offset(m, place, layer, kv_head, 0, cache_row_bytes(D, s.head_stride));
  const uint8_t* keys = place.keys + at;
  const uint8_t* cached = place.values + at;
  const int end = query_at(kQueries - 1).position + 1;
  for (int first = first_of(query_at(0).position) / kPositions * kPositions; first < end; first += kPositions) {
    sync_block();
    unpack_tile<D>(tile, keys, first, end, s);
    sync_block();
    float score[kPerWarp] = {};
    for (int i = 0; i < s.head_stride / 4; i++) {
      const float4 k = reinterpret_cast<const float4*>(tile + lane_id() * stride)[i];
      CQIL_UNROLL for (int j = 0; j < kPerWarp; j++) {
        const float4 x = reinterpret_cast<const float4*>(q + (warp_first + j) * s.head_stride)[i];
        score[j] = add_dot4(score[j], k.x, k.y, k.z, k.w, x);
      }
    }
    CQIL_UNROLL for (int j = 0; j < kPerWarp; j++) {
      const int last = query_at(warp_first + j).position, p = first + lane_id();
      const bool seen = p <= last && p >= first_of(last);
      const float best = fmaxf(highest[j], warp_max(seen ? score[j] * scale : kLowest));
      const float shrink = expf(highest[j] - best);
      weight[j] = seen ? expf(score[j] * scale - best) : 0.0f;
      highest[j] = best;
      sum[j] = sum[j] * shrink + weight[j];
      CQIL_UNROLL for (int c = 0; c < kColumns; c++) values[j][c] *= shrink;
    }
    sync_block();
    unpack_tile<D>(tile, cached, first, end, s);
    sync_block();
    for (int p = 0; p < kPositions; p++) {
      float w[kPerWarp];
      CQIL_UNROLL for (int j = 0; j < kPerWarp; j++) w[j] = shuffle(weight[j], p);
      CQIL_UNROLL for (int c = 0; c < kColumns; c++) {
        if (c < columns) {
          const float v = tile[p * stride + c * kWarpSize + lane_id()];
          CQIL_UNROLL for (int j = 0; j < kPerWarp; j++) values[j][c] = fmaf(w[j], v, values[j][c]);
        }
      }
    }
  }
  CQIL_UNROLL for (int j = 0; j < kPerWarp; j++) {
    const float total = warp_sum(sum[j]);
    const Query query = query_at(warp_first + j);
    float* out = lane_row(s, s.attention, s.attention_stride, lane, query.token) + query.head * m.head_dim;
    CQIL_UNROLL for (int c = 0; c < kColumns; c++) {
      const int i = c * kWarpSize + lane_id();
      if (query.there && i < m.head_dim) out[i] = divide(values[j][c], total);
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_attention_kernel(const __grid_constant__ Step step, LaneRange lanes, CacheRows rows) {
  attend_tile<D>(step, lanes, rows);
}

template <int D>
cudaError_t run(const Step& step, const LaneRange& lanes, const CacheRows& rows, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  const LaunchShape shape = {static_cast<uint32_t>(rows.tiles),
                             static_cast<uint32_t>(step.model.n_kv_heads),
                             static_cast<uint32_t>(lanes.n_lanes),
                             kThreads,
                             static_cast<uint32_t>(prefill_attention_bytes(step.workspace.head_stride)),
                             false,
                             false};
  return launch(prefill_attention_kernel<D>, shape, stream, step, lanes, rows);
}

}  // namespace

int32_t attention_tiles(const DeviceModel& model, int32_t n_tokens) {
  return (model.n_heads / model.n_kv_heads * n_tokens + kQueries - 1) / kQueries;
}

int32_t prefill_attention_bytes(int32_t head_stride) {
  return (kQueries * head_stride + kPositions * (head_stride + kTilePad)) * 4;
}

cudaError_t prepare_prefill_attention() {
  const int32_t most = prefill_attention_bytes(kColumns * kWarpSize);
  cudaError_t status = allow_shared_bytes(prefill_attention_kernel<CQIL_F32>, most);
  if (status == cudaSuccess) status = allow_shared_bytes(prefill_attention_kernel<CQIL_F16>, most);
  if (status == cudaSuccess) status = allow_shared_bytes(prefill_attention_kernel<CQIL_Q8_0>, most);
  return status;
}

cudaError_t prefill_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  cudaError_t status = run<CQIL_F32>(step, lanes, step.rows[0], stream);
  if (status == cudaSuccess) status = run<CQIL_F16>(step, lanes, step.rows[1], stream);
  return status == cudaSuccess ? run<CQIL_Q8_0>(step, lanes, step.rows[2], stream) : status;
}

}  // namespace cqil::cuda
