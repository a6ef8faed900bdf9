#include <atomic>

#include "../registry/registry.h"
#include "call.h"
#include "calls.h"
#include "handles.h"

namespace cqil {

Napi::Value compile_program_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    const int32_t n_layers = read_int(read_object(info[0], "shape"), "nLayers");
    return write_program(env, compile_program(read_plan(info[1]), n_layers));
  });
}

Napi::Value place_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&]() -> Napi::Value {
    const PlacementRequest request = read_placement(info[1]);
    const Program program = compile_program(read_plan(info[0]), static_cast<int32_t>(request.sizes.layers.size()));
    Schedule schedule;
    place(program, request.way, request.sizes, request.extent, schedule);
    return write_schedule(env, schedule);
  });
}

namespace {

struct LoadedModel {
  std::shared_ptr<Model> model;
  std::shared_ptr<Departure> departure;
};

LoadedModel loaded(std::unique_ptr<Model> model) {
  auto departure = std::make_shared<Departure>();
  return {share_until_gone(std::move(model), departure), departure};
}

Napi::Value make_model_handle(Napi::Env env, LoadedModel loaded) {
  auto handle = std::make_unique<ModelHandle>();
  handle->reported_bytes = static_cast<int64_t>(loaded.model->merged_bytes());
  Napi::MemoryManagement::AdjustExternalMemory(env, handle->reported_bytes);
  handle->object = std::move(loaded.model);
  handle->departure = std::move(loaded.departure);
  return make_handle(env, std::move(handle));
}

}  // namespace

static Napi::Value load_adapted(Napi::Env env, const Napi::Object& spec) {
  auto base = read_open<ModelHandle>(spec.Get("base"));
  auto adapter = std::make_shared<AdapterSpec>(read_adapter(spec));
  base->ahead().stop();
  return Task<LoadedModel>::start(
      env, [base, adapter] { return loaded(std::make_unique<Model>(base, *adapter)); }, make_model_handle);
}

Napi::Value load_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    const Napi::Object spec = read_object(info[0], "spec");
    if (spec.Has("base")) return load_adapted(env, spec);
    auto request = std::make_shared<ModelRequest>(read_model_request(info[0]));
    return Task<LoadedModel>::start(
        env,
        [request] {
          return loaded(std::make_unique<Model>(std::move(request->weights), find_backend(request->backend),
                                                request->options, std::move(request->joined)));
        },
        make_model_handle);
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
    listener_.NonBlockingCall(
        [loaded](Napi::Env env, Napi::Function listener) { listener.Call({Napi::Number::New(env, loaded)}); });
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
    return start_task(env, [model, progress] { model->read([&](uint64_t bytes) { progress->add(bytes); }); });
  });
}

namespace {

using Deferred = Napi::Promise::Deferred;

// On the JavaScript thread. Without an env there is no JavaScript any more to tell.
void resolve(Napi::Env env, Napi::Function, std::nullptr_t*, Deferred* promised) {
  const std::unique_ptr<Deferred> owned(promised);
  if (env) owned->Resolve(env.Undefined());
}

using Resolution = Napi::TypedThreadSafeFunction<std::nullptr_t, Deferred, resolve>;

// A promise of a model's end, which the last thread that uses it may bring about.
Napi::Value promise_of(Napi::Env env, const std::shared_ptr<Departure>& departure) {
  auto promised = std::make_unique<Deferred>(env);
  const Napi::Promise promise = promised->Promise();
  Resolution resolution = Resolution::New(env, "cqil", 0, 1);
  departure->when_gone([resolution, waiting = promised.get()]() mutable {
    const napi_status status = resolution.NonBlockingCall(waiting);
    if (status != napi_ok) delete waiting;
    if (status != napi_closing) resolution.Release();  // which closing has done
  });
  static_cast<void>(promised.release());
  return promise;
}

}  // namespace

Napi::Value dispose_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    ModelHandle& handle = read_handle<ModelHandle>(info[0]);
    handle.object.reset();
    Napi::MemoryManagement::AdjustExternalMemory(env, -handle.reported_bytes);
    handle.reported_bytes = 0;
    return promise_of(env, handle.departure);
  });
}

}  // namespace cqil
