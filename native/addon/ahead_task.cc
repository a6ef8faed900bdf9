#include "ahead_task.h"

#include "call.h"

namespace cqil {
namespace {

using Deferred = Napi::Promise::Deferred;

// A promise and its outcome. Made with the promise, so that delivering takes no memory.
struct Delivery {
  explicit Delivery(Napi::Env env) : promised(env) {}
  Deferred promised;
  Outcome outcome;
};

// On the JavaScript thread. Without an env there is no JavaScript any more to tell.
void deliver(Napi::Env env, Napi::Function, std::nullptr_t*, Delivery* delivery) {
  const std::unique_ptr<Delivery> owned(delivery);
  if (!env) return;
  const auto& [promised, outcome] = *owned;
  try {
    if (outcome.failure) promised.Reject(reason_of(env, outcome.failure));
    else promised.Resolve(write_shortlist(env, outcome.shortlist));
  } catch (const Napi::Error&) {
    // The thread is being terminated: nobody waits.
  }
}

using Deliveries = Napi::TypedThreadSafeFunction<std::nullptr_t, Delivery, deliver>;

// After which others get the thread of the pool, of which there may be but one: files are read by them too.
constexpr std::chrono::milliseconds kTurn{100};

class AheadTask : public Napi::AsyncWorker {
 public:
  AheadTask(Napi::Env env, const std::shared_ptr<Session>& session, const ForwardRequest& request,
            std::unique_ptr<Delivery> first)
      : Napi::AsyncWorker(env, "cqil"),
        deliveries_(Deliveries::New(env, "cqil", 0, 1)),
        session_(session),
        request_(request),
        first_(std::move(first)) {}
  ~AheadTask() override { deliveries_.Release(); }

 private:
  void Execute() override {
    const auto hand_over = [this](Ahead::Asker asker, const Outcome& outcome) {
      std::unique_ptr<Delivery> delivery(static_cast<Delivery*>(asker));
      delivery->outcome = outcome;
      if (deliveries_.NonBlockingCall(delivery.get()) == napi_ok) static_cast<void>(delivery.release());
    };
    session_->ahead().run(*session_, std::move(request_), first_.release(), hand_over, kTurn);
    session_.reset();  // the last there is of it when it was closed meanwhile
  }

  Deliveries deliveries_;
  std::shared_ptr<Session> session_;
  ForwardRequest request_;
  std::unique_ptr<Delivery> first_;
};

}  // namespace

Napi::Value start_shortlist(Napi::Env env, const std::shared_ptr<Session>& session, const ForwardRequest& request) {
  auto delivery = std::make_unique<Delivery>(env);
  const Napi::Promise promise = delivery->promised.Promise();
  if (session->ahead().ask(*session, request, delivery.get())) {
    static_cast<void>(delivery.release());
  } else if (request.ahead) {
    auto task = std::make_unique<AheadTask>(env, session, request, std::move(delivery));
    task->Queue();
    static_cast<void>(task.release());  // it deletes itself when it has finished
  } else {
    Task<cqil_shortlist>::start(
        env, [session, request] { return session->shortlist(request); }, write_shortlist, delivery->promised);
  }
  return promise;
}

}  // namespace cqil
