// How ranks compute one model: the first, the leader, has the sessions and tells the others, the followers, what it is
// about to compute. The followers compute it with their shares, and all ranks meet at the exchanges of their schedules.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "../backend/backend.h"
#include "exchange.h"
#include "program.h"

namespace cqil {

class Model;

// A cache as followers know it.
struct RankCache {
  int32_t id;
  cqil_cache_options options;
};

class Leader {
 public:
  Leader(Exchange& exchange, std::chrono::nanoseconds patience) : exchange_(exchange), patience_(patience) {}
  // Lets the followers go.
  ~Leader();
  Leader(const Leader&) = delete;

  // An id of a workspace or a cache; no two have the same.
  int32_t new_id() { return ++last_id_; }
  // Followers no longer need this id. They are told with the next forward: a session may be closed on a thread that
  // must not wait for them. From any thread.
  void close(int32_t id);
  // Tells the followers of a forward before it is computed here. caches: one for each of its rows. Forwards and these
  // calls take turns. Throws RANK_LOST, or OUT_OF_MEMORY or INTERNAL where a follower cannot compute it.
  void announce(int32_t workspace_id, const Program& program, const cqil_forward& forward,
                const std::vector<RankCache>& caches);
  // Called after a forward that failed on this rank alone: ends the others' waiting.
  void give_up(const char* why) { exchange_.abort(-1, why); }

 private:
  void add_closed(std::vector<int32_t>& message);
  void send(std::vector<int32_t>& message);
  void hear_answers();

  Exchange& exchange_;
  const std::chrono::nanoseconds patience_;
  std::atomic<int32_t> last_id_{0};
  std::set<int32_t> open_;  // ids that followers know
  std::mutex closing_;
  std::vector<int32_t> closed_;
};

// Does what the leader tells this rank, until the leader lets it go. Throws RANK_LOST, or what made this rank give up;
// the others then throw RANK_LOST.
void follow(Model& model, Exchange& exchange, std::chrono::nanoseconds patience);

}  // namespace cqil
