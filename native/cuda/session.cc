#include "session.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/cut_shape.h"

namespace cqil::cuda {
namespace {

// Positions whose angles are computed at once: a pause of well under a millisecond now and then.
constexpr int32_t kRopeChunk = 256;

SessionSize size_of(const cqil_program& program, const cqil_cache_options& options) {
  return {options.context_length, options.kv_dtype, std::min<int32_t>(options.context_length, CQIL_MAX_BATCH),
          program.max_lanes,      program.bypass,   program.bypass_residual};
}

}  // namespace

Session::Session(Model& model, const cqil_program& program, const cqil_cache_options& options)
    : model(model),
      shared(shared_plan(model.shape, program.max_lanes, model.device.shared_bytes)),
      n_phases(program.n_phases) {
  if (options.kv_dtype != CQIL_F32 && options.kv_dtype != CQIL_F16 && options.kv_dtype != CQIL_Q8_0)
    throw Failure(CQIL_INVALID_ARGUMENT, "The KV cache cannot be kept in dtype " +
                                             std::to_string(static_cast<int>(options.kv_dtype)) +
                                             "; expected F32, F16 or Q8_0.");
  if (!cut_sums_fit(model.weights.device(), program.max_lanes))
    throw Failure(CQIL_INVALID_ARGUMENT,
                  "A group of " + std::to_string(program.max_lanes) +
                      " layers is too large for the CUDA backend; expected smaller groups or backend cpu.");
  const SessionSize size = size_of(program, options);
  const SessionLayout layout = session_layout(model.shape, size);
  const auto cache = static_cast<uint64_t>(layout.cache_bytes), arena = static_cast<uint64_t>(layout.arena_bytes);
  const uint64_t free = free_bytes();
  if (cache + arena > free)
    throw Failure(CQIL_OUT_OF_MEMORY, "A session of " + std::to_string(size.context) + " positions takes " +
                                          megabytes(cache) + " on the GPU for keys and values and " + megabytes(arena) +
                                          " for activations, and " + megabytes(free) +
                                          " are free; expected a shorter contextLength or a smaller kvCache.");
  stream = make_stream();
  cache_ = device_array<uint8_t>(static_cast<size_t>(layout.cache_bytes));
  arena_ = device_array<uint8_t>(static_cast<size_t>(layout.arena_bytes));
  const char* const doing = "a session was made";
  check(cudaMemsetAsync(cache_.get(), 0, static_cast<size_t>(layout.cache_bytes), stream.get()), doing);
  check(cudaMemsetAsync(arena_.get(), 0, static_cast<size_t>(layout.arena_bytes), stream.get()), doing);
  device = bind_session(model.shape, size, cache_.get(), arena_.get());
  if (device.ids != device.position + 1 || device.targets != device.ids + CQIL_MAX_BATCH)
    throw Failure(CQIL_INTERNAL, "The kernels lay out a session's inputs in another order than the host sends them.");
  products.emplace(model.library.get(), model.weights, device, stream.get());
  const auto bytes = static_cast<size_t>(n_phases) * sizeof(cqil_phase);
  phases = device_array<cqil_phase>(static_cast<size_t>(n_phases));
  check(cudaMemcpyAsync(phases.get(), program.phases, bytes, cudaMemcpyHostToDevice, stream.get()), doing);

  inputs = pinned_array<Inputs>(1);
  logits = pinned_array<float>(static_cast<size_t>(model.shape.vocab_size));
  shortlist = pinned_array<cqil_shortlist>(1);
  forked = make_event();
  for (int32_t lane = 0; lane < program.max_lanes; lane++) {
    attended.push_back(make_event());
    done.push_back(make_event());
    if (lane > 0) lane_streams.push_back(make_stream());
  }
  check(cudaStreamSynchronize(stream.get()), doing);
}

Session::~Session() { drain(); }

void Session::drain() const {
  if (stream) cudaStreamSynchronize(stream.get());
  for (const Stream& lane : lane_streams) cudaStreamSynchronize(lane.get());
  cudaGetLastError();
}

void Session::fill_rope(int32_t end) {
  const int64_t half = model.shape.head_dim / 2;
  while (rope_filled_ < end) {
    const int32_t n = std::min(kRopeChunk, device.size.context - rope_filled_);
    const auto count = static_cast<size_t>(n * half);
    rope_.resize(2 * count);
    // Angles in double: position times frequency in float32 is off by position * 2^-24 radians.
    for (int64_t p = 0; p < n; p++) {
      for (int64_t i = 0; i < half; i++) {
        const double angle = static_cast<double>(rope_filled_ + p) * model.shape.rope_frequencies[i];
        const auto at = static_cast<size_t>(p * half + i);
        rope_[at] = static_cast<float>(std::cos(angle) * model.shape.rope_attention_factor);
        rope_[count + at] = static_cast<float>(std::sin(angle) * model.shape.rope_attention_factor);
      }
    }
    float* const tables[] = {device.rope_cos, device.rope_sin};
    for (size_t i = 0; i < 2; i++)
      check(cudaMemcpyAsync(tables[i] + rope_filled_ * half, rope_.data() + i * count, count * sizeof(float),
                            cudaMemcpyHostToDevice, stream.get()),
            "RoPE angles were copied to it");
    check(cudaStreamSynchronize(stream.get()), "RoPE angles were copied to it");
    rope_filled_ += n;
  }
}

}  // namespace cqil::cuda
