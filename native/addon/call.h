// The two ways a native function runs: at once, or on a worker thread behind a promise. Both turn the core's exceptions
// into JavaScript errors; nothing else in the addon does.
#pragma once
#include <napi.h>

#include <exception>
#include <functional>
#include <memory>
#include <new>

#include "../core/error.h"
#include "convert.h"

namespace cqil {

// Runs body, which may touch JavaScript values, and throws its failure as a coded JavaScript error.
template <class Body>
auto call(Napi::Env env, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& error) {
    throw to_js_error(env, error.code(), error.what());
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw to_js_error(env, "OUT_OF_MEMORY", "Out of memory.");
  } catch (const std::exception& error) {
    throw to_js_error(env, "INTERNAL", error.what());
  }
}

// The JavaScript error of what was thrown on another thread.
inline Napi::Value reason_of(Napi::Env env, const std::exception_ptr& failure) {
  try {
    call(env, [&] { std::rethrow_exception(failure); });
  } catch (const Napi::Error& error) {
    return error.Value();
  }
  return env.Undefined();
}

// Work for a thread of libuv's pool: work() touches no JavaScript value; finish(env, result) runs back on the
// JavaScript thread and makes the promise's value.
template <class Result>
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;
  using Finish = std::function<Napi::Value(Napi::Env, Result)>;

  static Napi::Value start(Napi::Env env, Work work, Finish finish) {
    return start(env, std::move(work), std::move(finish), Napi::Promise::Deferred::New(env));
  }
  static Napi::Value start(Napi::Env env, Work work, Finish finish, const Napi::Promise::Deferred& deferred) {
    std::unique_ptr<Task> task(new Task(env, std::move(work), std::move(finish), deferred));
    task->Queue();
    static_cast<void>(task.release());  // it deletes itself when it has finished
    return deferred.Promise();
  }

 private:
  Task(Napi::Env env, Work work, Finish finish, const Napi::Promise::Deferred& deferred)
      : Napi::AsyncWorker(env, "cqil"), deferred_(deferred), work_(std::move(work)), finish_(std::move(finish)) {}

  void Execute() override {
    try {
      result_ = work_();
    } catch (const Error& error) {
      code_ = error.code();
      SetError(error.what());
    } catch (const std::bad_alloc&) {
      code_ = "OUT_OF_MEMORY";
      SetError("Out of memory.");
    } catch (const std::exception& error) {
      SetError(error.what());
    }
    work_ = nullptr;  // what it captured may be large, and need not wait for the JavaScript thread
  }

  void OnOK() override {
    try {
      deferred_.Resolve(call(Env(), [this] { return finish_(Env(), std::move(result_)); }));
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    }
  }

  void OnError(const Napi::Error& error) override {
    deferred_.Reject(to_js_error(Env(), code_, error.Message()).Value());
  }

  Napi::Promise::Deferred deferred_;
  Work work_;
  Finish finish_;
  Result result_{};
  const char* code_ = "INTERNAL";
};

// A task without a result: its promise resolves to undefined.
inline Napi::Value start_task(Napi::Env env, std::function<void()> work) {
  return Task<bool>::start(
      env,
      [work = std::move(work)] {
        work();
        return true;
      },
      [](Napi::Env env, bool) { return env.Undefined(); });
}

}  // namespace cqil
