#include "walk.h"

#include <algorithm>

namespace cqil::cuda {
namespace {

constexpr const char* kComputing = "it computed";

void record(const Event& event, cudaStream_t stream) { check(cudaEventRecord(event.get(), stream), kComputing); }
void wait(cudaStream_t stream, const Event& event) { check(cudaStreamWaitEvent(stream, event.get(), 0), kComputing); }

// As launched after waiting for another stream: that launch begins when all it waits for has ended.
Step after_wait(Step step) {
  step.overlaps = false;
  return step;
}

void attend(const Session& session, const Step& step, const LaneRange& lanes, cudaStream_t stream,
            bool waited = false) {
  session.products->qkv(waited ? after_wait(step) : step, lanes, stream);
  check(launch_attention(step, lanes, stream), kComputing);
  session.products->attention_out(step, lanes, stream);
}

void stage_wide(const Session& session, const Step& step, const cqil_phase& phase) {
  const LaneRange lanes = {phase.first_layer, 0, phase.n_lanes};
  cudaStream_t const stream = session.stream.get();
  attend(session, step, lanes, stream);
  session.products->gate_up(step, lanes, stream);
  session.products->down(step, lanes, stream);
}

// Fork to the lanes' streams and join again; lane 0 stays on the session's own. Between, lanes meet only at a bypass,
// where lane j's MLP reads the attention outputs of the lanes before it.
void stage_in_lanes(const Session& session, const Step& step, const cqil_phase& phase) {
  if (phase.n_lanes == 1) return stage_wide(session, step, phase);
  cudaStream_t const main = session.stream.get();
  auto stream_of = [&](int32_t lane) {
    return lane == 0 ? main : session.lane_streams[static_cast<size_t>(lane - 1)].get();
  };
  record(session.forked, main);
  for (int32_t lane = 0; lane < phase.n_lanes; lane++) {
    cudaStream_t const stream = stream_of(lane);
    if (lane > 0) wait(stream, session.forked);
    attend(session, step, {phase.first_layer, lane, 1}, stream, lane > 0);
    if (session.program.bypass > 0) record(session.attended[static_cast<size_t>(lane)], stream);
  }
  for (int32_t lane = 0; lane < phase.n_lanes; lane++) {
    cudaStream_t const stream = stream_of(lane);
    for (int32_t before = std::max(0, lane - session.program.bypass); before < lane; before++)
      wait(stream, session.attended[static_cast<size_t>(before)]);
    const bool waited = lane > 0 && session.program.bypass > 0;
    session.products->gate_up(waited ? after_wait(step) : step, {phase.first_layer, lane, 1}, stream);
    session.products->down_apart(step, {phase.first_layer, lane, 1}, stream);
    if (lane > 0) record(session.done[static_cast<size_t>(lane)], stream);
  }
  for (int32_t lane = 1; lane < phase.n_lanes; lane++) wait(main, session.done[static_cast<size_t>(lane)]);
  check(launch_join(after_wait(step), phase.n_lanes, main), kComputing);
}

void stage_traced(const Session& session, const Step& step, const cqil_phase& phase, float* trace) {
  const LaneRange lanes = {phase.first_layer, 0, phase.n_lanes};
  const DeviceSession& device = step.session;
  cudaStream_t const stream = session.stream.get();
  attend(session, step, lanes, stream);
  session.products->gate_up(step, lanes, stream);
  session.products->down_apart(step, lanes, stream);
  const size_t row = static_cast<size_t>(step.model.dim) * sizeof(float);
  const size_t stride = static_cast<size_t>(device.dim_stride) * sizeof(float);
  for (int32_t lane = 0; lane < phase.n_lanes; lane++) {
    const int64_t first = static_cast<int64_t>(lane) * device.size.batch * device.dim_stride;
    const float* const parts[] = {device.x, device.attention_out + first, device.mlp_out + first};
    float* to = trace + static_cast<int64_t>(phase.first_layer + lane) * 3 * step.n_tokens * step.model.dim;
    for (const float* part : parts) {
      check(cudaMemcpy2DAsync(to, row, part, stride, row, static_cast<size_t>(step.n_tokens), cudaMemcpyDeviceToHost,
                              stream),
            kComputing);
      to += static_cast<int64_t>(step.n_tokens) * step.model.dim;
    }
  }
  check(launch_join(step, phase.n_lanes, stream), kComputing);
}

template <class Stage>
void walk(const Session& session, const Step& step, const cqil_forward* request, Stage stage) {
  check(launch_embed(step, session.stream.get()), kComputing);
  for (const cqil_phase& phase : session.phases) {
    if (phase.kind != CQIL_QKV) continue;  // a stage's first; the other four follow it
    stage(phase);
    if (request && cqil_cancelled(request)) return;
  }
}

}  // namespace

void walk_wide(const Session& session, const Step& step, const cqil_forward* request) {
  walk(session, step, request, [&](const cqil_phase& phase) { stage_wide(session, step, phase); });
}

void walk_lanes(const Session& session, const Step& step, const cqil_forward* request) {
  walk(session, step, request, [&](const cqil_phase& phase) { stage_in_lanes(session, step, phase); });
}

void walk_traced(const Session& session, const Step& step, const cqil_forward& request) {
  walk(session, step, &request, [&](const cqil_phase& phase) { stage_traced(session, step, phase, request.result); });
}

}  // namespace cqil::cuda
