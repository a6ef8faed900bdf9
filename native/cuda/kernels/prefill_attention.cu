// Attention of several tokens on the CUDA cores in float32, with the running softmax of attention.cuh.
// Bytes: keys and values of the context once per 48 queries, from L2. FLOPs: 4 per value and query.
// A block takes 48 queries of one key/value head: consecutive tokens, each with all the heads that share it, four
// queries a warp. Keys and then values of 32 positions are unpacked to shared memory; a thread scores one position for
// its warp's four queries, and then sums its own columns of the values, so that each is read once from shared memory
// for four queries.
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

template <int D>
__device__ __forceinline__ void attend_tile(const Step& step, const LaneRange& lanes) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int lane = lanes.first_lane + static_cast<int>(blockIdx.z), kv_head = static_cast<int>(blockIdx.y),
            layer = lanes.first_layer + lane;
  const int sharing = m.n_heads / m.n_kv_heads, n_queries = sharing * step.n_tokens,
            block_first = static_cast<int>(blockIdx.x) * kQueries;
  const Place place = place_of(s, 0);
  const int position = place.position, stride = s.head_stride + kTilePad;
  float* q = shared_floats();                  // [kQueries, head_stride]
  float* tile = q + kQueries * s.head_stride;  // [kPositions, stride]

  // Queries of a token are neighbours, so that the tile's range of positions is short.
  auto query_at = [&](int i) {
    Query query;
    query.there = block_first + i < n_queries;
    const int at = query.there ? block_first + i : n_queries - 1;
    query.token = at / sharing, query.head = kv_head * sharing + at % sharing, query.position = position + at / sharing;
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
    prefill_attention_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  attend_tile<D>(step, lanes);
}

template <int D>
cudaError_t run(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  const DeviceModel& m = step.model;
  const int queries = m.n_heads / m.n_kv_heads * step.n_tokens;
  const LaunchShape shape = {static_cast<uint32_t>((queries + kQueries - 1) / kQueries),
                             static_cast<uint32_t>(m.n_kv_heads),
                             static_cast<uint32_t>(lanes.n_lanes),
                             kThreads,
                             static_cast<uint32_t>(prefill_attention_bytes(step.workspace.head_stride)),
                             false,
                             false};
  return launch(prefill_attention_kernel<D>, shape, stream, step, lanes);
}

}  // namespace

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
  switch (step.kv_dtype) {
    case CQIL_F32: return run<CQIL_F32>(step, lanes, stream);
    case CQIL_F16: return run<CQIL_F16>(step, lanes, stream);
    default: return run<CQIL_Q8_0>(step, lanes, stream);
  }
}

}  // namespace cqil::cuda
