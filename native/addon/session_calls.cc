#include <cstring>

#include "ahead_task.h"
#include "call.h"
#include "calls.h"
#include "convert.h"
#include "handles.h"

namespace cqil {

Napi::Value create_session(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto model = read_open<ModelHandle>(info[0]);
    const Napi::Object options = read_object(info[1], "options");
    auto handle = std::make_unique<SessionHandle>();
    handle->object = std::make_shared<Session>(
        std::move(model), read_plan(options.Get("plan")), read_execution(options.Get("execution")),
        read_int(options, "contextLength"), read_kv_dtype(options.Get("kvCache")));
    if (!options.Get("settled").IsUndefined()) {
      const Napi::Object settled = read_object(options.Get("settled"), "settled");
      handle->object->settle(read_execution(settled.Get("execution")), read_int(settled, "threads"));
    }
    handle->reported_bytes = static_cast<int64_t>(handle->object->cache_bytes());
    Napi::MemoryManagement::AdjustExternalMemory(env, handle->reported_bytes);
    return make_handle(env, std::move(handle));
  });
}

Napi::Value forward_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto session = read_open<SessionHandle>(info[0]);
    auto request = std::make_shared<ForwardRequest>(read_forward_request(info[1]));
    const bool wanted = request->output != CQIL_OUTPUT_NONE;
    session->arm();
    if (request->output == CQIL_OUTPUT_SHORTLIST) return start_shortlist(env, session, *request);
    session->ahead().stop();
    return Task<std::vector<float>>::start(
        env, [session, request] { return session->forward(*request); },
        [wanted](Napi::Env env, std::vector<float> values) -> Napi::Value {
          if (!wanted) return env.Null();
          // Copied: Electron allows no array buffers outside V8's own memory.
          Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
          if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
          return array;
        });
  });
}

Napi::Value timeline_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto session = read_open<SessionHandle>(info[0]);
    auto request = std::make_shared<ForwardRequest>(read_forward_request(info[1]));
    session->arm();
    session->ahead().stop();
    return Task<Timeline>::start(
        env, [session, request] { return session->timeline(*request); },
        [](Napi::Env env, Timeline timeline) -> Napi::Value {
          constexpr size_t kNumbers = 4;
          Napi::Float64Array spans = Napi::Float64Array::New(env, timeline.spans.size() * kNumbers);
          for (size_t i = 0; i < timeline.spans.size(); i++) {
            const cqil_span& span = timeline.spans[i];
            const double row[kNumbers] = {static_cast<double>(span.step), static_cast<double>(span.thread),
                                          static_cast<double>(span.begin_ns), static_cast<double>(span.end_ns)};
            std::memcpy(spans.Data() + i * kNumbers, row, sizeof row);
          }
          Napi::Object out = Napi::Object::New(env);
          out.Set("spans", spans);
          out.Set("schedule", write_schedule(env, timeline.schedule));
          return out;
        });
  });
}

Napi::Value cancel_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    if (is_handle<ModelHandle>(info[0])) {
      if (const auto& model = read_handle<ModelHandle>(info[0]).object) model->stop_reading();
    } else if (const auto& session = read_handle<SessionHandle>(info[0]).object) {
      session->cancel();
    }
    return env.Undefined();
  });
}

Napi::Value close_session(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&]() -> Napi::Value {
    SessionHandle& handle = read_handle<SessionHandle>(info[0]);
    const auto settled = handle.object ? handle.object->settled() : std::nullopt;
    if (handle.object) handle.object->cancel();
    handle.object.reset();
    Napi::MemoryManagement::AdjustExternalMemory(env, -handle.reported_bytes);
    handle.reported_bytes = 0;
    if (!settled) return env.Null();
    Napi::Object found = Napi::Object::New(env);
    found.Set("execution", execution_name(settled->execution));
    found.Set("threads", settled->threads);
    return found;
  });
}

}  // namespace cqil
