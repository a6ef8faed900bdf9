#include "runner.h"

#include <algorithm>

namespace cqil::cuda {
namespace {

constexpr const char* kComputing = "it computed";

void record(const Event& event, cudaStream_t stream) { check(cudaEventRecord(event.get(), stream), kComputing); }
void wait(cudaStream_t stream, const Event& event) { check(cudaStreamWaitEvent(stream, event.get(), 0), kComputing); }

class Runner {
 public:
  Runner(const Workspace& workspace, const Step& step, const cqil_forward& request, const Batch& batch)
      : workspace_(workspace), step_(step), request_(request), batch_(batch) {}

  void run(bool stoppable, const std::function<void()>& head) {
    const cqil_schedule& schedule = request_.schedule;
    for (int32_t i = 0; i < schedule.n_steps; i++) {
      const cqil_step& step = schedule.steps[i];
      const Launch launch = launch_of(step);
      if (step.op == CQIL_OP_HEAD) head();
      else compute(step, launch);
      if (step.n_crews > 1 && step.op == CQIL_OP_ATTENTION_OUT && workspace_.device.size.bypass > 0)
        record(workspace_.attended[static_cast<size_t>(step.first_lane)], launch.stream);
      if (stoppable && step.ends_stage && cqil_cancelled(&request_)) return;
    }
  }

 private:
  struct Launch {
    Step step;
    cudaStream_t stream;
  };

  cudaStream_t stream_of(int32_t crew) const {
    return crew == 0 ? workspace_.stream.get() : workspace_.lane_streams[static_cast<size_t>(crew - 1)].get();
  }

  // What a step is launched with, once its stream has been told to wait for all that the step reads. A launch that
  // follows such a wait begins when all it waits for has ended.
  Launch launch_of(const cqil_step& step) {
    if (step.n_crews == 1) {
      joined_ = joined_ || n_crews_ > 1;
      join();
      Launch launch = {step_, stream_of(0)};
      if (joined_) launch.step.overlaps = false;
      if (step.op != CQIL_OP_RECORD) joined_ = false;  // it launches no kernel
      return launch;
    }
    const bool forks = n_crews_ == 1;
    if (forks) fork(step.n_crews);
    Launch launch = {step_, stream_of(step.crew)};
    const int32_t first = step.first_lane - step.waits_for;
    for (int32_t lane = first; lane < step.first_lane; lane++)
      wait(launch.stream, workspace_.attended[static_cast<size_t>(lane)]);
    const bool begins = step.op == CQIL_OP_QKV && step.crew > 0;
    if (begins || step.waits_for > 0) launch.step.overlaps = false;
    return launch;
  }

  void fork(int32_t n_crews) {
    record(workspace_.forked, stream_of(0));
    for (int32_t crew = 1; crew < n_crews; crew++) wait(stream_of(crew), workspace_.forked);
    n_crews_ = n_crews;
  }
  void join() {
    for (int32_t crew = 1; crew < n_crews_; crew++) {
      record(workspace_.done[static_cast<size_t>(crew)], stream_of(crew));
      wait(stream_of(0), workspace_.done[static_cast<size_t>(crew)]);
    }
    n_crews_ = 1;
  }

  void compute(const cqil_step& step, const Launch& launch) const {
    const LaneRange lanes = {step.first_layer, step.first_lane, step.n_lanes};
    const Products& products = *workspace_.products;
    switch (step.op) {
      case CQIL_OP_EMBED: return check(launch_embed(launch.step, launch.stream), kComputing);
      case CQIL_OP_QKV: return products.qkv(launch.step, lanes, launch.stream);
      case CQIL_OP_ATTENTION: return check(launch_attention(launch.step, lanes, launch.stream), kComputing);
      case CQIL_OP_ATTENTION_OUT: return products.attention_out(launch.step, lanes, launch.stream);
      case CQIL_OP_GATE_UP: return products.gate_up(launch.step, lanes, launch.stream);
      case CQIL_OP_DOWN: return products.down(launch.step, lanes, launch.stream);
      case CQIL_OP_DOWN_APART: return products.down_apart(launch.step, lanes, launch.stream);
      case CQIL_OP_RECORD: return record_lanes(step, launch.stream);
      case CQIL_OP_JOIN: return check(launch_join(launch.step, step.n_lanes, launch.stream), kComputing);
      case CQIL_OP_ATTENTION_POST_NORM:  // models with these are refused
      case CQIL_OP_MLP_POST_NORM:
      case CQIL_OP_SHARE_ATTENTION:  // ranks are refused, too
      case CQIL_OP_REDUCE:
      case CQIL_OP_HEAD: return;
    }
  }

  void record_lanes(const cqil_step& step, cudaStream_t stream) const {
    for (const RowPlace& place : batch_.rows)
      if (place.row->output == CQIL_OUTPUT_TRACE) record_row(step, place, stream);
  }

  // Each lane's x, a_j and m_j to the row's result [n_layers, 3, n_ids, dim] in host memory.
  void record_row(const cqil_step& step, const RowPlace& place, cudaStream_t stream) const {
    const DeviceWorkspace& device = step_.workspace;
    const int64_t n_ids = place.row->n_ids, dim = step_.model.dim,
                  x_at = place.first_token * int64_t{device.dim_stride};
    const size_t width = static_cast<size_t>(dim) * sizeof(float);
    const size_t stride = static_cast<size_t>(device.dim_stride) * sizeof(float);
    for (int32_t lane = 0; lane < step.n_lanes; lane++) {
      const int64_t at = int64_t{lane} * device.size.batch * device.dim_stride + x_at;
      const float* const parts[] = {device.x + x_at, device.attention_out + at, device.mlp_out + at};
      float* to = place.row->result + int64_t{step.first_layer + lane} * 3 * n_ids * dim;
      for (const float* part : parts) {
        check(cudaMemcpy2DAsync(to, width, part, stride, width, static_cast<size_t>(n_ids), cudaMemcpyDeviceToHost,
                                stream),
              kComputing);
        to += n_ids * dim;
      }
    }
  }

  const Workspace& workspace_;
  const Step& step_;
  const cqil_forward& request_;
  const Batch& batch_;
  int32_t n_crews_ = 1;  // that are on their way, each on its own stream
  bool joined_ = false;  // crews have joined since the last kernel of everybody
};

}  // namespace

void run(const Workspace& workspace, const Step& step, const cqil_forward& request, const Batch& batch, bool stoppable,
         const std::function<void()>& head) {
  Runner(workspace, step, request, batch).run(stoppable, head);
}

}  // namespace cqil::cuda
