// What lib/ranks calls to run ranks: it opens an exchange, reads which share of a model a rank loads, and does a
// follower's work.
#include "../exchange/exchanges.h"
#include "call.h"
#include "calls.h"
#include "handles.h"

namespace cqil {
namespace {

std::chrono::nanoseconds read_patience(const Napi::Object& from) {
  return std::chrono::milliseconds(read_int(from, "patience"));
}

Split read_split(const Napi::Object& from) {
  const std::string name = read_string(from, "split");
  if (name == "lanes") return Split::kLanes;
  if (name == "hybrid") return Split::kHybrid;
  if (name == "tensor") return Split::kTensor;
  throw Error("INVALID_ARGUMENT", "split is not lanes, hybrid or tensor.");
}

}  // namespace

void read_rank(const Napi::Object& from, ModelRequest& request) {
  RankSpec rank = {};
  rank.split = read_split(from);
  const Napi::Array ratios = read_array(from, "ratios");
  for (uint32_t i = 0; i < ratios.Length(); i++) rank.ratios.push_back(ratios.Get(i).ToNumber().Int32Value());
  rank.plan = read_plan(from.Get("plan"));
  request.joined = {read_open<ExchangeHandle>(from.Get("exchange")), read_patience(from)};
  rank.rank = request.joined.exchange->state().rank;
  request.weights.rank = std::move(rank);
}

namespace {

std::shared_ptr<Exchange> end_of(const Napi::CallbackInfo& info) {
  return read_open<ExchangeHandle>(read_object(info.This(), "this").Get("handle"));
}

Napi::Value meet(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto exchange = end_of(info);
    const auto patience = std::chrono::milliseconds(info[0].ToNumber().Int64Value());
    return start_task(env, [exchange, patience] { exchange->meet(patience); });
  });
}

Napi::Value abort(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    const std::string why = info[1].ToString().Utf8Value();
    end_of(info)->abort(info[0].ToNumber().Int32Value(), why.c_str());
    return env.Undefined();
  });
}

Napi::Value close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    read_handle<ExchangeHandle>(read_object(info.This(), "this").Get("handle")).object.reset();
    return env.Undefined();
  });
}

}  // namespace

Napi::Value open_exchange(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    const Napi::Object spec = read_object(info[0], "spec");
    const std::string kind = read_string(spec, "kind");
    const cqil_exchange* table = find_exchange(kind.c_str());
    if (!table) throw Error("INVALID_ARGUMENT", "There is no exchange " + kind + ".");
    cqil_exchange_options options = {};
    options.rank = read_int(spec, "rank");
    options.size = read_int(spec, "size");
    const std::string address = options.rank > 0 ? read_string(spec, "address") : "";
    options.address = options.rank > 0 ? address.c_str() : nullptr;
    auto handle = std::make_unique<ExchangeHandle>();
    handle->object = std::make_shared<Exchange>(*table, options);
    Napi::Object end = Napi::Object::New(env);
    end.Set("address", Napi::String::New(env, handle->object->state().address));
    end.Set("handle", make_handle(env, std::move(handle)));
    end.Set("meet", Napi::Function::New(env, meet, "meet"));
    end.Set("abort", Napi::Function::New(env, abort, "abort"));
    end.Set("close", Napi::Function::New(env, close, "close"));
    return end;
  });
}

Napi::Value follow_leader(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    auto model = read_open<ModelHandle>(info[0]);
    return start_task(env, [model] { model->follow(); });
  });
}

}  // namespace cqil
