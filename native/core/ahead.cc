#include "ahead.h"

#include <new>

#include "session.h"

namespace cqil {
namespace {

Outcome run_one(Session& session, const ForwardRequest& request, const CancelFlag* cancel) {
  Outcome outcome;
  try {
    outcome.shortlist = session.shortlist(request, cancel);
  } catch (...) {
    outcome.failure = std::current_exception();
  }
  return outcome;
}

}  // namespace

bool Ahead::Guess::is(const Session& of, const ForwardRequest& wanted) const {
  return session == &of && wanted.output == request.output && wanted.position == request.position &&
         wanted.ids == request.ids && wanted.count == request.count;
}

void Ahead::run(Session& session, ForwardRequest request, Asker asker, const Deliver& deliver,
                std::chrono::milliseconds longest) {
  const auto end = std::chrono::steady_clock::now() + longest;
  Outcome outcome = run_one(session, request, nullptr);
  for (;;) {
    // Before anybody hears of the outcome and asks for what follows.
    const std::shared_ptr<Guess> guess =
        std::chrono::steady_clock::now() < end ? try_begin(session, request, outcome) : nullptr;
    deliver(asker, outcome);
    if (!guess) return;
    outcome = run_one(session, guess->request, &guess->cancel);
    std::unique_lock<std::mutex> lock(mutex_);
    if (guess_ != guess) return;  // given up
    if (guess->asked) {
      guess_.reset();
      lock.unlock();
      asker = guess->asker;
      request = std::move(guess->instead ? *guess->instead : guess->request);  // a copy might find no memory
      if (guess->instead) outcome = run_one(session, request, nullptr);
    } else if (outcome.failure) {  // whoever asks for it will see
      return guess_.reset();
    } else {
      guess->shortlist = outcome.shortlist;
      guess->done = true;
      return;
    }
  }
}

// Without memory for a guess there is none.
std::shared_ptr<Ahead::Guess> Ahead::try_begin(const Session& session, const ForwardRequest& request,
                                               const Outcome& outcome) {
  try {
    return begin(session, request, outcome);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

std::shared_ptr<Ahead::Guess> Ahead::begin(const Session& session, const ForwardRequest& request,
                                           const Outcome& outcome) {
  if (!request.ahead || outcome.failure) return nullptr;
  const auto guess = std::make_shared<Guess>();
  guess->session = &session;
  guess->request = request;
  guess->request.position += static_cast<int32_t>(request.ids.size());
  guess->request.ids = {outcome.shortlist.ids[0]};
  if (guess->request.position >= session.context_length()) return nullptr;
  std::lock_guard<std::mutex> lock(mutex_);
  guess_ = guess;
  return guess;
}

bool Ahead::ask(const Session& session, const ForwardRequest& request, Asker asker) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!guess_ || guess_->asked) return false;
  const bool right = guess_->is(session, request);
  if (guess_->done && right) return false;  // take() has it
  if (guess_->done || guess_->session != &session) {
    give_up();
    return false;
  }
  if (right) {
    guess_->request.ahead = request.ahead;
  } else {
    guess_->instead = request;
    guess_->cancel = true;
  }
  guess_->asked = true;
  guess_->asker = asker;
  return true;
}

std::optional<cqil_shortlist> Ahead::take(const Session& session, const ForwardRequest& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!guess_ || !guess_->done || !guess_->is(session, request)) return std::nullopt;
  const std::shared_ptr<Guess> guess = std::move(guess_);
  return guess->shortlist;
}

void Ahead::stop_but(const CancelFlag* cancel) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (guess_ && !guess_->asked && &guess_->cancel != cancel) give_up();
}

void Ahead::cancel(const Session& session) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!guess_ || guess_->session != &session) return;
  if (guess_->asked) guess_->cancel = true;
  else give_up();
}

void Ahead::give_up() {
  guess_->cancel = true;
  guess_.reset();
}

}  // namespace cqil
