// Picks how tokens of a program are computed, while they are: which execution, by how many threads. The tokens of a text double as the
// measurement. What is fastest now need not stay so: another process takes a core and gives it back. So the others are tried again now and
// then, and at once when the present one has become slow. All give the same bits.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <optional>
#include <vector>

#include "../backend/backend.h"

namespace cqil {

// How a program may run.
struct Way {
  cqil_execution execution;
  int32_t threads;  // that compute it; 0: a device does
  bool operator==(const Way& other) const { return execution == other.execution && threads == other.threads; }
};

class ExecutionTuner {
 public:
  // ways: at least one; the first is begun with, and wins a draw.
  explicit ExecutionTuner(const std::vector<Way>& ways);

  // How the next token is to be computed.
  const Way& next() const { return entries_[trial_ ? trial_->entry : current_.load()].way; }
  // Seconds after which a token that several threads compute is better ended by one of them: they wait for one that does not run. 0: unknown.
  double patience() const;
  // The token that used next() took so many seconds, and ended now: seconds of a clock that never goes back.
  void record(double seconds, double now);

  // Begins with this way instead of the first, unless it is none of them or tokens were recorded. From any thread.
  void settle(const Way& way);
  // What is taken at present, once the others have been tried or it was given; nothing where there is only one. From any thread.
  std::optional<Way> settled() const;

 private:
  struct Entry {
    Way way;
    double seconds = 0;   // per token when last tried; 0: not yet
    double interval = 0;  // between trials that change nothing
    double due = 0;       // when it is tried next
  };
  struct Trial {
    size_t entry;
    bool warm = false;  // the first token wakes threads, and is not counted
    int tokens = 0;
    double seconds = 0, lost = 0;  // of the tokens counted; more than the present way would have taken, all tokens
  };
  // The latest tokens of the present way.
  class Window {
   public:
    void add(double seconds);
    void clear() { size_ = 0; }
    bool full() const;
    // Seconds per token of as many of the last tokens as fill the window.
    double mean() const;

   private:
    std::array<double, 64> tokens_{};
    size_t size_ = 0, next_ = 0;
  };

  void record_present(double seconds, double now);
  void record_trial(double seconds, double now);
  bool has_become_slow(double seconds, double now);
  void begin_trial(double now);
  void end_trial(double now);
  void end_round(double now);
  double longest_interval(const Entry& entry, double lost) const;

  std::vector<Entry> entries_;
  std::atomic<size_t> current_{0};
  std::atomic<bool> known_{false};    // the others have been tried, or it was given
  std::atomic<bool> recorded_{false};
  std::optional<Trial> trial_;
  bool in_haste_ = false;             // this round of trials is because the present way has become slow
  size_t best_ = 0;                   // of this round
  double best_seconds_ = 0;
  bool warm_ = false;                 // the present way has had a token since it was taken up
  Window window_;
  double usual_ = 0;                  // seconds per token of the present way while nothing changes; 0: not known yet
  double excess_ = 0;                 // seconds lately beyond what is usual
  double taken_up_ = 0;               // when the present way was
  double patience_ = 0, patient_until_ = 0;  // before becoming slow is believed again
};

}  // namespace cqil
