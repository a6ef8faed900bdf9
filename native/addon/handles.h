// What JavaScript holds of native objects: tagged externals. Closing is idempotent; a handle used after that, or of the
// wrong kind, is a coded error. What is never closed is freed with the handle.
#pragma once
#include <napi.h>

#include <memory>

#include "../core/departure.h"
#include "../core/error.h"
#include "../core/exchange.h"
#include "../core/model.h"
#include "../core/session.h"

namespace cqil {

struct ModelHandle {
  static constexpr napi_type_tag kTag = {0x6371696c6d6f6465, 0x8f0a4c1db2e75a31};
  static constexpr const char* kName = "model";
  std::shared_ptr<Model> object;
  std::shared_ptr<Departure> departure;  // of the model: work in flight may outlive the handle's part in it
  int64_t reported_bytes = 0;  // of merged weights, told to V8's garbage collector; mapped files are no memory of ours
};

struct SessionHandle {
  static constexpr napi_type_tag kTag = {0x6371696c73657373, 0x2d9be4076fc81a55};
  static constexpr const char* kName = "session";
  std::shared_ptr<Session> object;
  int64_t reported_bytes = 0;  // told to V8's garbage collector
};

struct ExchangeHandle {
  static constexpr napi_type_tag kTag = {0x6371696c65786368, 0x51b7c02fd94e8a63};
  static constexpr const char* kName = "exchange";
  std::shared_ptr<Exchange> object;
};

template <class Handle>
Napi::Value make_handle(Napi::Env env, std::unique_ptr<Handle> handle) {
  auto external = Napi::External<Handle>::New(env, handle.get(), [](Napi::Env, Handle* h) { delete h; });
  handle.release();
  external.TypeTag(&Handle::kTag);
  return external;
}

template <class Handle>
bool is_handle(const Napi::Value& value) {
  return value.IsExternal() && value.As<Napi::External<Handle>>().CheckTypeTag(&Handle::kTag);
}

template <class Handle>
Handle& read_handle(const Napi::Value& value) {
  if (!is_handle<Handle>(value))
    throw Error("INVALID_ARGUMENT", std::string("Expected a native ") + Handle::kName + ".");
  return *value.As<Napi::External<Handle>>().Data();
}

// The object behind a handle that is still open.
template <class Handle>
auto read_open(const Napi::Value& value) {
  auto object = read_handle<Handle>(value).object;
  if (!object) throw Error("DISPOSED", std::string("The ") + Handle::kName + " is closed.");
  return object;
}

}  // namespace cqil
