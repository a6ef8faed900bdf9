#include <cstring>

#include "ahead_task.h"
#include "call.h"
#include "calls.h"
#include "convert.h"
#include "handles.h"

namespace cqil {

namespace {

// Copied: Electron allows no array buffers outside V8's own memory.
Napi::Value write_floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

// Calls that are computed together; what is borrowed from `asked` stays where it is.
struct Together {
  struct Asked {
    std::shared_ptr<Session> session;
    ForwardRequest request;
  };
  std::vector<Asked> asked;
  std::vector<Call> calls;
};

Napi::Value write_outcome(Napi::Env env, const Call& call) {
  switch (call.request.output) {
    case CQIL_OUTPUT_NONE: return env.Null();
    case CQIL_OUTPUT_SHORTLIST: {
      Napi::Array lists = Napi::Array::New(env, call.shortlists.size());
      for (uint32_t i = 0; i < lists.Length(); i++) lists.Set(i, write_shortlist(env, call.shortlists[i]));
      return lists;
    }
    default: return write_floats(env, call.result);
  }
}

}  // namespace

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
          return wanted ? write_floats(env, values) : env.Null();
        });
  });
}

Napi::Value forward_together_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    if (!info[0].IsArray() || info[0].As<Napi::Array>().Length() == 0)
      throw Error("INVALID_ARGUMENT", "Expected an array of at least one call.");
    const auto given = info[0].As<Napi::Array>();
    const auto together = std::make_shared<Together>();
    for (uint32_t i = 0; i < given.Length(); i++) {
      const Napi::Object one = read_object(given.Get(i), "a call");
      together->asked.push_back(
          {read_open<SessionHandle>(one.Get("session")), read_forward_request(one.Get("request"))});
    }
    for (const Together::Asked& asked : together->asked) {
      asked.session->arm();
      asked.session->ahead().stop();
      together->calls.push_back({*asked.session, asked.request, asked.session->cancel_flag()});
    }
    return Task<std::shared_ptr<Together>>::start(
        env,
        [together] {
          std::vector<Call*> calls;
          for (Call& call : together->calls) calls.push_back(&call);
          Session::run_together(calls);
          // A session that was closed meanwhile is freed on this thread, not on the JavaScript thread.
          for (Together::Asked& asked : together->asked) asked.session.reset();
          return together;
        },
        [](Napi::Env env, const std::shared_ptr<Together>& done) -> Napi::Value {
          Napi::Array outcomes = Napi::Array::New(env, done->calls.size());
          for (uint32_t i = 0; i < outcomes.Length(); i++) {
            const Call& call = done->calls[i];
            Napi::Object outcome = Napi::Object::New(env);
            if (call.failure) outcome.Set("error", reason_of(env, call.failure));
            else outcome.Set("value", write_outcome(env, call));
            outcomes.Set(i, outcome);
          }
          return outcomes;
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
