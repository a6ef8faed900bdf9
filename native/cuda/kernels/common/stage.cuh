// What the phases stage in shared memory before they multiply: plain vectors, and normalised ones.
// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv 1910.07467).
#pragma once
#include "gemv.cuh"

namespace cqil::cuda {

__device__ __forceinline__ float4 quad_of(const float* from, int i) {
  return load_fresh(reinterpret_cast<const float4*>(from) + i);
}
__device__ __forceinline__ float4 add(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ __forceinline__ float square_sum(const float4& v) {
  return fmaf(v.x, v.x, v.y * v.y) + fmaf(v.z, v.z, v.w * v.w);
}

__device__ __forceinline__ int padded(int n) { return (n + 31) / 32 * 32; }

__device__ __forceinline__ float* lane_row(const DeviceWorkspace& s, float* buffer, int stride, int lane, int token) {
  return buffer + (static_cast<int64_t>(lane) * s.size.batch + token) * stride;
}

// x, or for the MLP x + a_j + b_j, quad i of one lane and token.
__device__ __forceinline__ float4 layer_input(const DeviceWorkspace& s, int lane, int token, bool mlp, int i) {
  float4 h = quad_of(s.x + static_cast<int64_t>(token) * s.dim_stride, i);
  if (!mlp) return h;
  const float* attention_out = lane_row(s, s.attention_out, s.dim_stride, lane, token);
  h = add(h, quad_of(attention_out, i));
  CQIL_NO_UNROLL for (int left = min(s.size.bypass, lane); left > 0; left--) {
    attention_out -= static_cast<int64_t>(s.size.batch) * s.dim_stride;
    h = add(h, quad_of(attention_out, i));
  }
  return h;
}

// weight[4 i …] with zeros from n on: norm weights are not padded.
__device__ __forceinline__ float4 norm_weight(const float* weight, int i, int n) {
  if (4 * i + 4 <= n) return *(reinterpret_cast<const float4*>(weight) + i);
  return make_float4(4 * i < n ? weight[4 * i] : 0.0f, 4 * i + 1 < n ? weight[4 * i + 1] : 0.0f,
                     4 * i + 2 < n ? weight[4 * i + 2] : 0.0f, 0.0f);
}
// The l-th of several vectors of n floats that are staged one behind the other; n is a multiple of 32.
template <int kFormat>
__device__ __forceinline__ Staged<kFormat> staged_at(int l, int n) {
  return Staged<kFormat>::beginning_at(kReduceFloats + l * staged_floats(n));
}
// Behind it, the sums of squares of each kSquaresUnit floats of x before its norm.
template <class Vector>
__device__ __forceinline__ float* squares_of(const Vector& x, int n) {
  return static_cast<float*>(x.end(n));
}

struct Weighted {
  float4 value, weight;
};
__device__ __forceinline__ float4 product(const Weighted& v) {
  return make_float4(v.value.x * v.weight.x, v.value.y * v.weight.y, v.value.z * v.weight.z, v.value.w * v.weight.w);
}

// A quad of a vector to its place, by each thread of a warp that has one: the warp's quads follow each other from a
// multiple of 32 on.
__device__ __forceinline__ void store_quad(const StagedFloats& to, int quad, bool there, const float4& value) {
  if (there) *to.at(quad) = value;
}
__device__ __forceinline__ void store_quad(const StagedFixed& to, int quad, bool there, const float4& value) {
  // The largest magnitude of the block, by bits, so that what is not a number is the largest.
  auto magnitude = [](float v) { return static_cast<int>(bits_from_float(v) & 0x7fffffffu); };
  int largest = max(max(magnitude(value.x), magnitude(value.y)), max(magnitude(value.z), magnitude(value.w)));
  CQIL_UNROLL for (int mask = 1; mask < 8; mask *= 2) largest = max(largest, shuffle_xor(largest, mask));
  const FixedScale scale = fixed_scale(static_cast<uint32_t>(largest));
  uint8_t* block = to.block(quad / 8);
  int32_t sum = there ? store_fixed(block, quad % 8, value, scale.inverse) : 0;
  sum += shuffle_xor(sum, 1);
  sum += shuffle_xor(sum, 2);
  if (there && quad % 4 == 0) StagedFixed::scale(block).sums[quad / 4 % 2] = sum;
  if (there && quad % 8 == 0) StagedFixed::scale(block).scale = scale.scale;
}

// Stages `vectors` vectors of n floats, by all threads of the block: of each quad value times weight as load(vector,
// quad) gives them, and with kSquares of each 128 values the sum of their squares, which the norm needs: its factor
// comes to the product's result, not to the vector, which so needs no second look.
template <int kFormat, bool kSquares, class Load>
__device__ __forceinline__ void stage_vectors(int vectors, int n, Load load) {
  constexpr int kAtOnce = kSquares ? 2 : 3;  // as many as the registers allow
  const int quads = n / 4, units = (quads + kWarpSize - 1) / kWarpSize;
  // Unit `unit` of vector `l`, kWarps units on from one to the next.
  int l = 0, unit = warp_id();
  auto settle = [&] {
    while (unit >= units && l < vectors) unit -= units, l++;
  };
  settle();
  CQIL_NO_UNROLL while (l < vectors) {
    Weighted v[kAtOnce];
    int at_l[kAtOnce], at_unit[kAtOnce];
    CQIL_UNROLL for (int k = 0; k < kAtOnce; k++) {
      at_l[k] = l, at_unit[k] = unit;
      const int quad = min(unit * kWarpSize + lane_id(), quads - 1);
      if (l < vectors) v[k] = load(l, quad);
      unit += kWarps;
      settle();
    }
    CQIL_UNROLL for (int k = 0; k < kAtOnce; k++) {
      if (at_l[k] >= vectors) break;
      const Staged<kFormat> to = staged_at<kFormat>(at_l[k], n);
      const int quad = at_unit[k] * kWarpSize + lane_id();
      const bool there = quad < quads;
      if (kSquares) {
        const float squares = warp_sum(there ? square_sum(v[k].value) : 0.0f);
        if (lane_id() == 0) squares_of(to, n)[at_unit[k]] = squares;
      }
      store_quad(to, quad, there, product(v[k]));
    }
  }
}

// Plain vectors: `count` floats each at from(vector), padded there with zeros to 32, in places for n.
template <int kFormat, class From>
__device__ __forceinline__ void stage_plain(int vectors, int count, int n, From from) {
  stage_vectors<kFormat, false>(vectors, n, [&](int l, int i) {
    return Weighted{4 * i < padded(count) ? quad_of(from(l), i) : make_float4(0, 0, 0, 0), make_float4(1, 1, 1, 1)};
  });
}

// 1 / sqrt(mean + eps); NaN where the mean is not finite, as dividing by an infinite root would leave nothing of the
// vector.
__device__ __forceinline__ float norm_scale(float mean, float eps) {
  const float sum = rounded_sum(mean, eps);
  return sum < INFINITY ? inverse_root(sum) : NAN;
}

// 1 / sqrt(mean(x^2) + eps) of the dim floats that x was staged from.
template <class Vector>
__device__ __forceinline__ float norm_factor(const DeviceModel& m, const DeviceWorkspace& s, const Vector& x) {
  const float* squares = squares_of(x, s.dim_stride);
  float sum = 0;
  for (int unit = lane_id(); unit * kSquaresUnit < s.dim_stride; unit += kWarpSize) sum += squares[unit];
  return norm_scale(divide(warp_sum(sum), static_cast<float>(m.dim)), m.norm_eps);
}

// What the norms of `vectors` vectors are made of; `weight(l)` has dim floats.
template <int kFormat, class Input, class Weight>
__device__ __forceinline__ void stage_norms(const DeviceModel& m, const DeviceWorkspace& s, int vectors, Input input,
                                            Weight weight) {
  stage_vectors<kFormat, true>(vectors, s.dim_stride,
                               [&](int l, int i) { return Weighted{input(l, i), norm_weight(weight(l), i, m.dim)}; });
}

// Stages lanes first ... of a stage at layer first_layer, from token 0's input of their attention or MLP.
template <int kFormat>
__device__ __forceinline__ void stage_lane_norms(const DeviceModel& m, const DeviceWorkspace& s, int first_layer,
                                                 int first, int n, bool mlp) {
  stage_norms<kFormat>(
      m, s, n, [&](int l, int i) { return layer_input(s, first + l, 0, mlp, i); },
      [&](int l) {
        const DeviceLayer& layer = m.layers[first_layer + first + l];
        return mlp ? layer.mlp_norm : layer.attention_norm;
      });
}

// Asks L2 for `bytes` bytes from `at` on, by all threads of the grid that reach it.
__device__ __forceinline__ void prefetch(const void* at, int64_t bytes, int thread, int threads) {
  for (int64_t i = int64_t{128} * thread; i < bytes; i += int64_t{128} * threads)
    prefetch_to_l2(static_cast<const uint8_t*>(at) + i);
}
// What stage_lane_norms will read that no phase writes, by one block.
__device__ __forceinline__ void prefetch_norms(const DeviceModel& m, const LaneRange& lanes, bool mlp) {
  for (int lane = warp_id(); lane < lanes.n_lanes; lane += kWarps) {
    const DeviceLayer& layer = m.layers[lanes.first_layer + lanes.first_lane + lane];
    prefetch(mlp ? layer.mlp_norm : layer.attention_norm, int64_t{4} * m.dim, lane_id(), kWarpSize);
  }
}

// The items of a warp in the lanes of a range, `items` each, and of each item its runs: run_of(lane, item, run).
template <class RunOf>
struct LaneCursor {
  RunOf run_of;
  int lane, end, items, runs;
  int item, turn = 0;

  __device__ __forceinline__ LaneCursor(RunOf run_of, const LaneRange& lanes, int items, int runs)
      : run_of(run_of),
        lane(lanes.first_lane),
        end(lanes.first_lane + lanes.n_lanes),
        items(items),
        runs(runs),
        item(grid_warp()) {
    settle();
  }
  __device__ __forceinline__ bool there() const { return lane < end; }
  __device__ __forceinline__ Run run() const { return run_of(lane, item, turn); }
  __device__ __forceinline__ void next() {
    if (++turn < runs) return;
    turn = 0;
    item += grid_warps();
    settle();
  }
  // Without a division, which takes longer than these few steps.
  __device__ __forceinline__ void settle() {
    while (item >= items && lane < end) item -= items, lane++;
  }
};

// Runs work(lane, item, stream, x, factor) for `items` items of each lane of a range, an item to a warp; stream is at
// the item's first run, x is the lane's vector of n floats, which stage(first lane, lanes) has staged, and factor is
// factor_of(x). run_of(lane, item, i) is run i of `runs`. As many lanes as fit are staged at a time. wait() returns
// when the phase before has ended.
template <int kFormat, class RunOf, class Wait, class Stage, class FactorOf, class Work>
__device__ __forceinline__ void for_lanes(const Step& step, const LaneRange& lanes, int n, int items, int runs,
                                          RunOf run_of, Wait wait, Stage stage, FactorOf factor_of, Work work) {
  const LaneCursor<RunOf> start(run_of, lanes, items, runs);
  RowStream<kFormat, LaneCursor<RunOf>> stream(step, start);
  stream.begin();
  wait();
  int at_once = 1;
  while (at_once < lanes.n_lanes && (at_once + 1) * staged_floats(n) <= step.stage_floats) at_once++;
  int lane = start.lane, item = start.item;
  for (int first = lanes.first_lane; first < start.end; first += at_once) {
    const int count = min(start.end - first, at_once);
    if (first > lanes.first_lane) sync_block();
    stage(first, count);
    sync_block();
    while (lane < first + count) {
      const Staged<kFormat> x = staged_at<kFormat>(lane - first, n);
      const float factor = factor_of(x);
      for (; item < items; item += grid_warps()) work(lane, item, stream, x, factor);
      while (item >= items && lane < start.end) item -= items, lane++;
    }
  }
}

}  // namespace cqil::cuda
