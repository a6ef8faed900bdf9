#include <algorithm>

#include "kernels/launch.h"
#include "kernels/common/limits.h"

namespace cqil::cuda {
namespace {

// The pieces of an allocation, one after the other at 256 bytes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<uint8_t*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* base_;
  int64_t bytes_ = 0;
};

int32_t whole(int64_t n, int64_t unit) { return static_cast<int32_t>((n + unit - 1) / unit * unit); }

DeviceCache lay_out(const cqil_shape& shape, int32_t context, cqil_dtype kv_dtype, Arena& arena) {
  const int64_t row = cache_row_bytes(kv_dtype, whole(shape.head_dim, 32));
  const int64_t bytes = static_cast<int64_t>(shape.n_layers) * shape.n_kv_heads * context * row;
  DeviceCache cache = {};
  cache.keys = arena.take<uint8_t>(bytes);
  cache.values = arena.take<uint8_t>(bytes);
  cache.context = context, cache.kv_dtype = kv_dtype;
  return cache;
}

DeviceWorkspace lay_out(const cqil_shape& shape, const WorkspaceSize& size, Arena& arena) {
  DeviceWorkspace s = {};
  s.size = size;
  s.dim_stride = whole(shape.dim, 32);
  s.hidden_stride = whole(shape.hidden_dim, 32);
  s.head_stride = whole(shape.head_dim, 32);
  s.query_stride = shape.n_heads * s.head_stride;
  s.attention_stride = whole(static_cast<int64_t>(shape.n_heads) * shape.head_dim, 32);

  const int64_t rows = size.batch, lane_rows = static_cast<int64_t>(size.max_lanes) * size.batch;

  s.inputs = arena.take<DeviceInputs>(1);
  s.scores = arena.take<float>(CQIL_MAX_BATCH);
  s.shortlists = arena.take<cqil_shortlist>(CQIL_MAX_BATCH);
  s.x = arena.take<float>(rows * s.dim_stride);
  s.norm = arena.take<float>(lane_rows * s.dim_stride);
  s.query = arena.take<float>(lane_rows * s.query_stride);
  s.key_value = arena.take<float>(lane_rows * 2 * shape.n_kv_heads * s.head_stride);
  s.attention = arena.take<float>(lane_rows * s.attention_stride);
  s.attention_out = arena.take<float>(lane_rows * s.dim_stride);
  s.gate_up = arena.take<float>(lane_rows * s.hidden_stride);
  s.mlp_out = arena.take<float>(lane_rows * s.dim_stride);
  const int64_t logit_rows = size.batch < CQIL_MAX_LOGIT_ROWS ? size.batch : CQIL_MAX_LOGIT_ROWS;
  s.logits = arena.take<float>(logit_rows * shape.vocab_size);
  const int64_t heads = static_cast<int64_t>(size.max_lanes) * shape.n_heads;
  s.attention_partials = arena.take<float>(heads * kMaxSplits * (s.head_stride + kPartialHeader));
  s.attention_arrivals = arena.take<uint32_t>(heads);
  s.select_partials = arena.take<float>(logit_rows * kSelectSlices * kSelectStride);
  s.grid_arrivals = arena.take<uint32_t>(kSelectArrivals + logit_rows);
  return s;
}

}  // namespace

int64_t cache_bytes(const cqil_shape& shape, int32_t context, cqil_dtype kv_dtype) {
  Arena arena(nullptr);
  lay_out(shape, context, kv_dtype, arena);
  return arena.bytes();
}

DeviceCache bind_cache(const cqil_shape& shape, int32_t context, cqil_dtype kv_dtype, void* memory) {
  Arena arena(memory);
  return lay_out(shape, context, kv_dtype, arena);
}

int64_t workspace_bytes(const cqil_shape& shape, const WorkspaceSize& size) {
  Arena arena(nullptr);
  lay_out(shape, size, arena);
  return arena.bytes();
}

DeviceWorkspace bind_workspace(const cqil_shape& shape, const WorkspaceSize& size, void* memory) {
  Arena arena(memory);
  return lay_out(shape, size, arena);
}

bool shape_supported(const cqil_shape& shape) {
  return shape.head_dim >= 2 && shape.head_dim <= 256 && shape.head_dim % 2 == 0 && shape.n_kv_heads > 0 &&
         shape.n_heads % shape.n_kv_heads == 0 && shape.dim > 0;
}

DeviceModel device_model(const cqil_shape& shape) {
  DeviceModel m = {};
  m.dim = shape.dim, m.hidden_dim = shape.hidden_dim, m.head_dim = shape.head_dim;
  m.n_heads = shape.n_heads, m.n_kv_heads = shape.n_kv_heads, m.n_layers = shape.n_layers,
  m.vocab_size = shape.vocab_size;
  m.norm_eps = shape.norm_eps, m.rope_interleaved = shape.rope_interleaved;
  m.embedding_scale = shape.formula.embedding_scale ? shape.formula.embedding_scale : 1.0f;
  m.attention_scale = shape.formula.attention_scale;
  const auto pairs = static_cast<uint64_t>(shape.head_dim / 2);
  m.heads_per_kv = shape.n_heads / shape.n_kv_heads;
  m.pairs_inverse = static_cast<uint32_t>(((uint64_t{1} << 32) + pairs - 1) / pairs);
  return m;
}

SharedPlan shared_plan(const cqil_shape& shape, int32_t max_lanes, int64_t most_bytes) {
  const int64_t room = (most_bytes - kReduceFloats * 4 - kWarps * int64_t{kLeastRing}) / 4;
  const int32_t dim = staged_floats(whole(shape.dim, 32)), hidden = staged_floats(whole(shape.hidden_dim, 32));
  const int32_t attention = staged_floats(whole(static_cast<int64_t>(shape.n_heads) * shape.head_dim, 32));
  const auto select = static_cast<int32_t>(select_floats(shape.vocab_size) - kWarps * kLeastRing / 4);
  const int32_t least =
      std::max({staged_floats(kPieceFloats), dim + whole(shape.head_dim, 32), attention, whole(select, 32)});
  if (room < least) return {};
  // As many lanes' vectors as fit, and the rest for the rings.
  const int64_t each = std::max({dim, attention, hidden <= room ? hidden : 0});
  const int64_t stage = std::max<int64_t>(least, std::min<int64_t>(max_lanes, room / each) * each);
  const int64_t ring = (most_bytes - kReduceFloats * 4 - stage * 4) / kWarps / 16 * 16;
  return {static_cast<int32_t>(stage), static_cast<int32_t>(std::min<int64_t>(kMostRing, ring))};
}

uint32_t shared_bytes(const Step& step) {
  return static_cast<uint32_t>((kReduceFloats + step.stage_floats) * 4 + kWarps * step.ring_bytes);
}

}  // namespace cqil::cuda
