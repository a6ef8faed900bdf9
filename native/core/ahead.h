// Decoding ahead: the forward of the likeliest token begins while whoever asked for the last one has yet to hear of it,
// to choose, and to ask for the next. A caller who takes the likeliest token finds it under way, and threads or devices
// do not wait for callers.
#pragma once
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "forward_request.h"

namespace cqil {

class Session;

// What came of a forward: its shortlist, or why there is none.
struct Outcome {
  cqil_shortlist shortlist = {};
  std::exception_ptr failure;
};

// A model, and those adapted from it, take turns with their forwards: at most one is ahead of its request.
class Ahead {
 public:
  using Asker = void*;  // whoever waits for an outcome; only handed back
  using Deliver = std::function<void(Asker, const Outcome&)>;

  // Runs a request of a shortlist and delivers its outcome. If the request says so, then runs the forward that would
  // follow, and goes on in the same way where that has been asked for by its end; where it has not, keeps what came of
  // it, and returns. Begins nothing more after `longest`: others may be waiting for the thread. Does not throw, nor
  // does deliver().
  void run(Session& session, ForwardRequest request, Asker asker, const Deliver& deliver,
           std::chrono::milliseconds longest);
  // Whether run() takes the request: it is what run() is at, or comes at once instead, if it is of the same session.
  // Its outcome goes to asker then. Anything else that is ahead is given up. From any thread.
  bool ask(const Session& session, const ForwardRequest& request, Asker asker);
  // What was kept of a request of a shortlist: as good as running it.
  std::optional<cqil_shortlist> take(const Session& session, const ForwardRequest& request);
  // Gives up what is ahead and not asked for; a forward under way ends at its next stage. From any thread.
  void stop() { stop_but(nullptr); }
  // Stops what is ahead, except the forward with this cancel flag.
  void stop_but(const CancelFlag* cancel);
  // Stops what is ahead of this session, asked for or not. From any thread.
  void cancel(const Session& session);

 private:
  struct Guess {
    const Session* session;
    ForwardRequest request;
    CancelFlag cancel{false};
    bool asked = false;
    std::optional<ForwardRequest> instead;  // what was asked for, if not this
    Asker asker = nullptr;
    bool done = false;  // and kept
    cqil_shortlist shortlist = {};

    bool is(const Session& of, const ForwardRequest& wanted) const;
  };

  std::shared_ptr<Guess> try_begin(const Session& session, const ForwardRequest& request, const Outcome& outcome);
  std::shared_ptr<Guess> begin(const Session& session, const ForwardRequest& request, const Outcome& outcome);
  void give_up();

  std::mutex mutex_;
  std::shared_ptr<Guess> guess_;
};

}  // namespace cqil
