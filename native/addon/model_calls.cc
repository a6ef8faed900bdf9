#include "../backend/registry.h"
#include "call.h"
#include "calls.h"
#include "handles.h"

namespace cqil {

Napi::Value compile_program_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    std::vector<double> frequencies;
    const cqil_shape shape = read_shape(read_object(info[0], "shape"), frequencies);
    return write_program(env, compile_program(read_plan(info[1]), shape.n_layers));
  });
}

static Napi::Value load_adapted(Napi::Env env, const Napi::Object& spec) {
  auto base = read_open<ModelHandle>(spec.Get("base"));
  auto adapter = std::make_shared<AdapterSpec>(read_adapter(spec));
  return Task<std::shared_ptr<Model>>::start(
      env, [base, adapter] { return std::make_shared<Model>(base, *adapter); },
      [](Napi::Env env, std::shared_ptr<Model> model) {
        auto handle = std::make_unique<ModelHandle>();
        handle->reported_bytes = static_cast<int64_t>(model->merged_bytes());
        Napi::MemoryManagement::AdjustExternalMemory(env, handle->reported_bytes);
        handle->object = std::move(model);
        return make_handle(env, std::move(handle));
      });
}

Napi::Value load_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    const Napi::Object spec = read_object(info[0], "spec");
    if (spec.Has("base")) return load_adapted(env, spec);
    auto request = std::make_shared<ModelRequest>(read_model_request(info[0]));
    return Task<std::shared_ptr<Model>>::start(
        env,
        [request] {
          return std::make_shared<Model>(std::move(request->weights), find_backend(request->backend), request->options);
        },
        [](Napi::Env env, std::shared_ptr<Model> model) {
          auto handle = std::make_unique<ModelHandle>();
          handle->object = std::move(model);
          return make_handle(env, std::move(handle));
        });
  });
}

Napi::Value prefetch_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto model = read_open<ModelHandle>(info[0]);
    const auto from = static_cast<uint64_t>(std::max<int64_t>(0, info[1].ToNumber().Int64Value()));
    const auto to = static_cast<uint64_t>(std::max<int64_t>(0, info[2].ToNumber().Int64Value()));
    return Task<bool>::start(
        env,
        [model, from, to] {
          model->prefetch(from, to);
          return true;
        },
        [](Napi::Env env, bool) { return env.Undefined(); });
  });
}

Napi::Value dispose_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    ModelHandle& handle = read_handle<ModelHandle>(info[0]);
    handle.object.reset();
    Napi::MemoryManagement::AdjustExternalMemory(env, -handle.reported_bytes);
    handle.reported_bytes = 0;
    return env.Undefined();
  });
}

}  // namespace cqil
