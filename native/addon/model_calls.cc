#include <atomic>

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
  base->ahead().stop();
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

namespace {

// Tells a JavaScript function, from any thread, how many bytes have been read so far. The function must not throw.
class Progress {
 public:
  explicit Progress(const Napi::Function& listener)
      : listener_(Napi::ThreadSafeFunction::New(listener.Env(), listener, "cqil", 0, 1)) {}
  ~Progress() { listener_.Release(); }
  Progress(const Progress&) = delete;

  void add(uint64_t bytes) {
    const auto loaded = static_cast<double>(loaded_ += bytes);
    listener_.NonBlockingCall([loaded](Napi::Env env, Napi::Function listener) { listener.Call({Napi::Number::New(env, loaded)}); });
  }

 private:
  Napi::ThreadSafeFunction listener_;
  std::atomic<uint64_t> loaded_{0};
};

}  // namespace

Napi::Value read_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto model = read_open<ModelHandle>(info[0]);
    if (!info[1].IsFunction()) throw Error("INVALID_ARGUMENT", "Expected a function to tell how far reading is.");
    auto progress = std::make_shared<Progress>(info[1].As<Napi::Function>());
    return Task<bool>::start(
        env,
        [model, progress] {
          model->read([&](uint64_t bytes) { progress->add(bytes); });
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
