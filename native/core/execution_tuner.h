// Chooses how the tokens of a program are computed, while they are computed: in which execution, and by how many
// threads. The tokens of a text are the measurement. The fastest way may change, because other processes take cores and
// give them back. So the tuner tries the other ways again from time to time, and at once when the present way becomes
// slow. Every way gives the same bits.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <optional>
#include <vector>

#include "way.h"

namespace cqil {

class ExecutionTuner {
 public:
  // ways: at least one. The first is the present way until another is faster.
  explicit ExecutionTuner(const std::vector<Way>& ways);

  // How the next token is to be computed.
  const Way& next() const { return entries_[trial_ ? trial_->entry : current_.load()].way; }
  // Seconds after which one thread should finish a token that several compute, because they probably wait for a thread
  // that does not run. 0: unknown.
  double patience() const;
  // Tells what the token that used next() took, in seconds, and when it ended, in seconds of a clock that never goes
  // back.
  void record(double seconds, double now);

  // Makes this the present way. Has no effect for a way that is not in the list, or once a token was recorded. From any
  // thread.
  void settle(const Way& way);
  // The present way, once it was given or the others have been tried; nothing where there is only one way. From any
  // thread.
  std::optional<Way> settled() const;

 private:
  struct Entry {
    Way way;
    double seconds = 0;   // per token, in its last trial; 0: not tried yet
    double interval = 0;  // seconds from its last trial to the next
    double tried = 0;     // when its last trial ended, or when it was left
    double due = 0;       // when the next trial may begin
  };
  // Tokens of one way.
  struct Timings {
    int tokens = 0;
    double sum = 0, slowest = 0;  // seconds
    void add(double seconds);
    // Whether these tokens are enough to judge the way.
    bool enough() const;
    // Seconds per token.
    double mean(const Way& way) const;
  };
  struct Trial {
    size_t entry;
    bool warm = false;  // whether the first token, in which threads wake, is over; it is not counted
    Timings timings{};
    double lost = 0;  // seconds that all tokens took beyond what the best way would have taken
  };
  // The latest tokens of the present way.
  class Window {
   public:
    static constexpr size_t kTokens = 64;
    void add(double seconds);
    void clear() { size_ = 0; }
    // The last tokens that are enough to judge by, or all.
    Timings latest() const;

   private:
    std::array<double, kTokens> tokens_{};
    size_t size_ = 0, next_ = 0;
  };

  void record_present(double seconds, double now);
  void record_trial(double seconds, double now);
  double present_seconds() const;
  bool has_become_slow(double seconds, double now);
  void begin_trial(double now);
  void end_trial(double now);
  void end_round(double now);
  double longest_interval(const Entry& entry, double lost) const;

  std::vector<Entry> entries_;
  std::atomic<size_t> current_{0};
  std::atomic<bool> known_{false};  // the other ways have been tried, or the present one was given
  std::atomic<bool> recorded_{false};
  std::optional<Trial> trial_;
  bool in_haste_ = false;  // this round of trials began because the present way has become slow
  size_t best_ = 0;        // the fastest way of this round
  double best_seconds_ = 0;
  bool warm_ = false;  // whether the present way has had a token since it was taken up
  Window window_;
  double usual_ = 0;                     // seconds per token of the present way while nothing changes; 0: unknown
  double excess_ = 0;                    // late seconds, see kUsual
  double taken_up_ = 0;                  // when the present way was taken up
  double doubt_ = 0, doubts_until_ = 0;  // seconds, and the time, until which slow tokens start no trials
};

}  // namespace cqil
