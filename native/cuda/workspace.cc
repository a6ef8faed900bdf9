#include "workspace.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/cut_shape.h"

namespace cqil::cuda {
namespace {

// Positions whose angles are computed at once: a pause of well under a millisecond now and then.
constexpr int32_t kRopeChunk = 256;

constexpr const char* kMaking = "a workspace was made";
constexpr const char* kTurning = "RoPE angles were copied to it";

}  // namespace

Workspace::Workspace(Model& model, const cqil_program& program)
    : model(model),
      shared(shared_plan(model.shape, program.max_lanes, model.device.shared_bytes)),
      n_phases(program.n_phases) {
  if (!cut_sums_fit(model.weights.device(), program.max_lanes))
    throw Failure(CQIL_INVALID_ARGUMENT,
                  "A group of " + std::to_string(program.max_lanes) +
                      " layers is too large for the CUDA backend; expected smaller groups or backend cpu.");
  const WorkspaceSize size = {CQIL_MAX_BATCH, program.max_lanes, program.bypass, program.bypass_residual};
  const auto bytes = static_cast<size_t>(workspace_bytes(model.shape, size));
  const uint64_t free = free_bytes();
  if (bytes > free)
    throw Failure(CQIL_OUT_OF_MEMORY, "Activations of groups of " + std::to_string(program.max_lanes) +
                                          " layers take " + megabytes(bytes) + " on the GPU, and " + megabytes(free) +
                                          " are free; expected smaller groups, a smaller model or backend cpu.");
  stream = make_stream();
  arena_ = device_array<uint8_t>(bytes);
  check(cudaMemsetAsync(arena_.get(), 0, bytes, stream.get()), kMaking);
  device = bind_workspace(model.shape, size, arena_.get());
  products.emplace(model.library.get(), model.weights, device, stream.get());
  phases = device_array<cqil_phase>(static_cast<size_t>(n_phases));
  check(cudaMemcpyAsync(phases.get(), program.phases, static_cast<size_t>(n_phases) * sizeof(cqil_phase),
                        cudaMemcpyHostToDevice, stream.get()),
        kMaking);

  inputs = pinned_array<DeviceInputs>(1);
  logits = pinned_array<float>(static_cast<size_t>(model.shape.vocab_size));
  scores = pinned_array<float>(CQIL_MAX_BATCH);
  shortlists = pinned_array<cqil_shortlist>(CQIL_MAX_BATCH);
  forked = make_event();
  for (int32_t lane = 0; lane < program.max_lanes; lane++) {
    attended.push_back(make_event());
    done.push_back(make_event());
    if (lane > 0) lane_streams.push_back(make_stream());
  }
  check(cudaStreamSynchronize(stream.get()), kMaking);
}

Workspace::~Workspace() { drain(); }

Step Workspace::step(const Batch& batch) const {
  Step step = {};
  step.model = model.weights.device();
  step.workspace = device;
  step.n_tokens = batch.n_tokens;
  step.kv_dtype = batch.kv_dtype;
  std::copy(std::begin(batch.of_format), std::end(batch.of_format), step.rows);
  step.multiprocessors = model.device.multiprocessors;
  step.stage_floats = shared.stage_floats, step.ring_bytes = shared.ring_bytes;
  return step;
}

void Workspace::drain() const {
  if (stream) cudaStreamSynchronize(stream.get());
  for (const Stream& lane : lane_streams) cudaStreamSynchronize(lane.get());
  cudaGetLastError();
}

// Graphs hold the addresses of the old tables, so they are captured anew whenever a cache comes that is longer than all
// before.
void Workspace::make_rope_room(int32_t positions) {
  const auto half = static_cast<size_t>(model.shape.head_dim / 2);
  const size_t room = static_cast<size_t>(positions) * half, filled = static_cast<size_t>(rope_filled_) * half;
  DeviceArray<float> rope = device_array<float>(2 * room);
  for (size_t i = 0; filled > 0 && i < 2; i++)
    check(cudaMemcpyAsync(rope.get() + i * room, i == 0 ? device.rope_cos : device.rope_sin, filled * sizeof(float),
                          cudaMemcpyDeviceToDevice, stream.get()),
          kTurning);
  check(cudaStreamSynchronize(stream.get()), kTurning);
  for (auto& of_execution : graphs_)
    for (auto& of_output : of_execution)
      for (TokenGraph& graph : of_output) graph.exec.reset();
  rope_ = std::move(rope);
  device.rope_cos = rope_.get();
  device.rope_sin = rope_.get() + room;
  rope_room_ = positions;
}

void Workspace::fill_rope(int32_t context, int32_t end) {
  if (context > rope_room_) make_rope_room(context);
  const int64_t half = model.shape.head_dim / 2;
  while (rope_filled_ < end) {
    const int32_t n = std::min(kRopeChunk, rope_room_ - rope_filled_);
    const auto count = static_cast<size_t>(n * half);
    staging_.resize(2 * count);
    // Angles in double: position times frequency in float32 is off by position * 2^-24 radians.
    for (int64_t p = 0; p < n; p++) {
      for (int64_t i = 0; i < half; i++) {
        const double angle = static_cast<double>(rope_filled_ + p) * model.shape.rope_frequencies[i];
        const auto at = static_cast<size_t>(p * half + i);
        staging_[at] = static_cast<float>(std::cos(angle) * model.shape.rope_attention_factor);
        staging_[count + at] = static_cast<float>(std::sin(angle) * model.shape.rope_attention_factor);
      }
    }
    float* const tables[] = {device.rope_cos, device.rope_sin};
    for (size_t i = 0; i < 2; i++)
      check(cudaMemcpyAsync(tables[i] + rope_filled_ * half, staging_.data() + i * count, count * sizeof(float),
                            cudaMemcpyHostToDevice, stream.get()),
            kTurning);
    check(cudaStreamSynchronize(stream.get()), kTurning);
    rope_filled_ += n;
  }
}

}  // namespace cqil::cuda
