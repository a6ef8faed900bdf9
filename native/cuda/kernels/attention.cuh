// Phase attention of one token: softmax(q K^T / sqrt(head_dim)) V over the cache, split over the context so that a long
// one fills the GPU, with the running maximum and sum of Milakov and Gimelshein 2018 (arXiv 1805.02867). Bytes: keys
// and values of the positions attended to, once per kHeads heads that share them. FLOPs: 4 per value and head. A block
// takes one split of one key/value head for one or two of the query heads that share it. In a warp, a group of threads
// with eight values each holds a position's key; four positions per group are in flight, so 96 positions of 128 values
// are one round trip to L2, which was asked for them while the phase before still ran; 256 are the shortest split, as a
// second one costs a meeting of blocks. The block that arrives last at a head's counter combines the splits in
// ascending order: nothing is added by atomics, and the order of sums depends on the number of positions alone.
#pragma once
#include "common/kv_cache.cuh"
#include "common/stage.cuh"

namespace cqil::cuda {

constexpr int kSplitUnit = 256;
constexpr float kLowest = -1e30f;  // below every score, and finite: exp(kLowest - kLowest) is a number

__device__ __forceinline__ int split_length(int positions) {
  const int each = (positions + kMaxSplits - 1) / kMaxSplits;
  return (each + kSplitUnit - 1) / kSplitUnit * kSplitUnit;
}

// On query times key.
__device__ __forceinline__ float attention_scale(const DeviceModel& m) {
  return m.attention_scale ? m.attention_scale : inverse_root(static_cast<float>(m.head_dim));
}

// What one block works on.
struct AttendItem {
  int lane, layer, kv_head;
  int first_head, n_heads;  // query heads
  int first, end;           // positions
  int split, n_splits;
  int counter;  // of the splits that have arrived
};

// A head's keys and values.
struct HeadRows {
  const uint8_t *keys, *values;
};

__device__ __forceinline__ float* partial_at(const DeviceModel& m, const DeviceWorkspace& s, const AttendItem& item,
                                             int h, int split) {
  const int64_t row = (static_cast<int64_t>(item.lane) * m.n_heads + item.first_head + h) * kMaxSplits + split;
  return s.attention_partials + row * (s.head_stride + kPartialHeader);
}

// Softmax state of kHeads heads: eight values of each, their weights' sum and maximum so far.
template <int kHeads>
struct AttendState {
  float values[kHeads][8], sum[kHeads], highest[kHeads];
};

// Positions of the item that this thread's group takes. rows: its head's keys and values. q: [kHeads, head_stride] in
// shared memory.
template <int D, int kHeads>
__device__ __forceinline__ void attend_positions(const DeviceModel& m, const DeviceWorkspace& s, const AttendItem& item,
                                                 const HeadRows& rows, const float* q, int group_size,
                                                 AttendState<kHeads>& state) {
  constexpr int kInFlight = D == CQIL_F32 ? 3 : 4;
  const int groups = kWarpSize / group_size, column = lane_id() % group_size * 8;
  const bool active = column < s.head_stride;
  const float scale = attention_scale(m);
  const int step = kWarps * groups;
  CQIL_NO_UNROLL for (int base = item.first + warp_id() * groups; base < item.end; base += step * kInFlight) {
    KvRun<D> key[kInFlight], value[kInFlight];
    bool there[kInFlight];
    CQIL_UNROLL for (int b = 0; b < kInFlight; b++) {
      const int p = base + b * step + lane_id() / group_size;
      there[b] = p < item.end;
      // A position past the end reads the last one, to be given no weight.
      const int64_t at = static_cast<int64_t>(there[b] ? p : item.end - 1) * cache_row_bytes(D, s.head_stride);
      key[b].load(rows.keys + at, active ? column : 0, s.head_stride);
      value[b].load(rows.values + at, active ? column : 0, s.head_stride);
    }
    float score[kInFlight][kHeads];
    CQIL_UNROLL for (int b = 0; b < kInFlight; b++) {
      float k[8];
      key[b].unpack(k);
      CQIL_UNROLL for (int h = 0; h < kHeads; h++) {
        float dot = 0;
        if (active) {
          const float4* query = reinterpret_cast<const float4*>(q + h * s.head_stride + column);
          const float4 low = query[0], high = query[1];
          dot = add_dot4(add_dot4(0.0f, k[0], k[1], k[2], k[3], low), k[4], k[5], k[6], k[7], high);
        }
        CQIL_NO_UNROLL for (int mask = group_size / 2; mask > 0; mask /= 2) dot += shuffle_xor(dot, mask);
        score[b][h] = there[b] ? rounded_product(dot, scale) : kLowest;
      }
    }
    CQIL_UNROLL for (int h = 0; h < kHeads; h++) {
      float highest = state.highest[h];
      CQIL_UNROLL for (int b = 0; b < kInFlight; b++) highest = fmaxf(highest, score[b][h]);
      const float shrink = expf(state.highest[h] - highest);
      state.highest[h] = highest;
      float sum = 0;
      CQIL_UNROLL for (int i = 0; i < 8; i++) state.values[h][i] *= shrink;
      CQIL_UNROLL for (int b = 0; b < kInFlight; b++) {
        score[b][h] = there[b] ? expf(score[b][h] - highest) : 0.0f;
        sum += score[b][h];
      }
      state.sum[h] = fmaf(state.sum[h], shrink, sum);
    }
    CQIL_UNROLL for (int b = 0; b < kInFlight; b++) {
      float v[8];
      value[b].unpack(v);
      CQIL_UNROLL for (int h = 0; h < kHeads; h++) {
        CQIL_UNROLL for (int i = 0; i < 8; i++) state.values[h][i] = fmaf(score[b][h], v[i], state.values[h][i]);
      }
    }
  }
}

// The groups of a warp become one: afterwards the first holds the sums of all.
template <int kHeads>
__device__ __forceinline__ void join_groups(AttendState<kHeads>& state, int group_size) {
  CQIL_NO_UNROLL for (int mask = group_size; mask < kWarpSize; mask *= 2) {
    CQIL_UNROLL for (int h = 0; h < kHeads; h++) {
      const float other = shuffle_xor(state.highest[h], mask), highest = fmaxf(state.highest[h], other);
      const float mine = expf(state.highest[h] - highest), theirs = expf(other - highest);
      state.highest[h] = highest;
      state.sum[h] = fmaf(state.sum[h], mine, shuffle_xor(state.sum[h], mask) * theirs);
      CQIL_UNROLL for (int i = 0; i < 8; i++) {
        state.values[h][i] = fmaf(state.values[h][i], mine, shuffle_xor(state.values[h][i], mask) * theirs);
      }
    }
  }
}

// Softmax states in memory, [n, stride] with maximum and sum in front of the values, as one: value i, its weights' sum
// and maximum.
struct Joined {
  float value, sum, highest;
};
template <class Load>
__device__ __forceinline__ Joined join_states(const float* states, int n, int stride, int i, Load load) {
  Joined all = {0, 0, kLowest};
  for (int j = 0; j < n; j++) all.highest = fmaxf(all.highest, load(states + j * stride));
  for (int j = 0; j < n; j++) {
    const float weight = expf(load(states + j * stride) - all.highest);
    all.sum = fmaf(weight, load(states + j * stride + 1), all.sum);
    all.value = fmaf(weight, load(states + j * stride + kPartialHeader + i), all.value);
  }
  return all;
}

template <int D, int kHeads>
__device__ __forceinline__ void attend(const Step& step, const AttendItem& item, const HeadRows& rows) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int stride = s.head_stride + kPartialHeader;
  float* q = scratch_floats();                 // [kHeads, head_stride]
  float* states = q + kHeads * s.head_stride;  // [kHeads, kWarps, stride]
  const float* query = lane_row(s, s.query, s.query_stride, item.lane, 0) + item.first_head * s.head_stride;
  sync_block();  // shared memory may still be read by the item before
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * s.head_stride; i += kThreads)
    q[i] = i < item.n_heads * s.head_stride ? load_fresh(query + i) : 0.0f;
  sync_block();

  int group_size = 4;
  while (group_size * 8 < s.head_stride) group_size *= 2;
  AttendState<kHeads> state;
  CQIL_UNROLL for (int h = 0; h < kHeads; h++) {
    state.sum[h] = 0, state.highest[h] = kLowest;
    CQIL_UNROLL for (int i = 0; i < 8; i++) state.values[h][i] = 0;
  }
  attend_positions<D, kHeads>(m, s, item, rows, q, group_size, state);
  join_groups<kHeads>(state, group_size);
  const int column = lane_id() * 8;
  if (lane_id() < group_size && column < s.head_stride) {
    CQIL_UNROLL for (int h = 0; h < kHeads; h++) {
      float* to = states + (h * kWarps + warp_id()) * stride;
      to[0] = state.highest[h], to[1] = state.sum[h];
      CQIL_UNROLL for (int i = 0; i < 8; i++) to[kPartialHeader + column + i] = state.values[h][i];
    }
  }
  sync_block();

  float* out = lane_row(s, s.attention, s.attention_stride, item.lane, 0) + item.first_head * m.head_dim;
  for (int at = static_cast<int>(threadIdx.x); at < item.n_heads * s.head_stride; at += kThreads) {
    const int h = at / s.head_stride, i = at % s.head_stride;
    const Joined all =
        join_states(states + h * kWarps * stride, kWarps, stride, i, [](const float* from) { return *from; });
    if (item.n_splits == 1) {
      if (i < m.head_dim) out[h * m.head_dim + i] = divide(all.value, all.sum);
      continue;
    }
    float* to = partial_at(m, s, item, h, item.split);
    if (i == 0) to[0] = all.highest, to[1] = all.sum;
    to[kPartialHeader + i] = all.value;
  }
  if (item.n_splits == 1) return;

  fence();
  sync_block();
  uint32_t* last = reinterpret_cast<uint32_t*>(reduce_floats());
  if (threadIdx.x == 0) {
    *last = arrive(s.attention_arrivals + item.counter, 1) == static_cast<uint32_t>(item.n_splits - 1);
    if (*last) s.attention_arrivals[item.counter] = 0;  // for the next token
  }
  sync_block();
  if (!*last) return;
  fence();
  for (int at = static_cast<int>(threadIdx.x); at < item.n_heads * m.head_dim; at += kThreads) {
    const int h = at / m.head_dim, i = at % m.head_dim;
    const Joined all = join_states(partial_at(m, s, item, h, 0), item.n_splits, stride, i,
                                   [](const float* from) { return load_fresh(from); });
    out[h * m.head_dim + i] = divide(all.value, all.sum);
  }
}

// wait() returns when the phase before has ended. Only the newest position is that phase's.
template <int D, class Wait>
__device__ __forceinline__ void attention_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const Place place = place_of(s, 0);
  const int position = place.position, row_bytes = cache_row_bytes(D, s.head_stride);
  const int first = m.sliding_window > 0 && position + 1 > m.sliding_window ? position + 1 - m.sliding_window : 0;
  const int length = split_length(position + 1 - first);
  const int n_splits = position + 1 - first <= length ? 1 : (position + 1 - first + length - 1) / length;
  const int sharing = m.heads_per_kv;
  // Heads that share keys are taken together where there are blocks enough for that: it changes no bit.
  const bool pairs =
      sharing > 1 && lanes.n_lanes * m.n_kv_heads * ((sharing + 1) / 2) * n_splits >= static_cast<int>(gridDim.x);
  const int heads_at_once = pairs ? 2 : 1, parts = pairs ? (sharing + 1) / 2 : sharing;
  const int per_lane = m.n_kv_heads * parts * n_splits;
  auto item_at = [&](int i) {
    AttendItem item;
    item.lane = lanes.first_lane;
    for (; i >= per_lane; i -= per_lane) item.lane++;
    item.layer = lanes.first_layer + item.lane;
    item.n_splits = n_splits;
    item.split = n_splits == 1 ? 0 : i % n_splits;
    const int group = n_splits == 1 ? i : i / n_splits;
    item.kv_head = parts == 1 ? group : group / parts;
    const int part = group - item.kv_head * parts;
    item.first_head = item.kv_head * sharing + part * heads_at_once;
    item.n_heads = sharing - part * heads_at_once < heads_at_once ? sharing - part * heads_at_once : heads_at_once;
    item.first = first + item.split * length;
    item.end = item.first + length < position + 1 ? item.first + length : position + 1;
    item.counter = item.lane * m.n_heads + item.first_head;
    return item;
  };
  const int items = lanes.n_lanes * per_lane, block = static_cast<int>(blockIdx.x);
  if (block < items) {
    const AttendItem item = item_at(block);
    const int64_t at = cache_offset(m, place, item.layer, item.kv_head, item.first, row_bytes),
                  bytes = static_cast<int64_t>(item.end - item.first) * row_bytes;
    prefetch(place.keys + at, bytes, static_cast<int>(threadIdx.x), kThreads);
    prefetch(place.values + at, bytes, static_cast<int>(threadIdx.x), kThreads);
  }
  wait();
  for (int i = block; i < items; i += static_cast<int>(gridDim.x)) {
    const AttendItem item = item_at(i);
    const int64_t at = cache_offset(m, place, item.layer, item.kv_head, 0, row_bytes);
    const HeadRows rows = {place.keys + at, place.values + at};
    if (pairs) attend<D, 2>(step, item, rows);
    else attend<D, 1>(step, item, rows);
  }
}

}  // namespace cqil::cuda
