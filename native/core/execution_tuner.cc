#include "execution_tuner.h"

#include <algorithm>

namespace cqil {
namespace {

// Seconds, and tokens that are always, and always are, enough. A trial outlasts the time for which a scheduler lets one of two threads have a
// core: 3 to 4 ms on Linux.
constexpr double kTrial = 0.012;
constexpr int kTrialTokens = 3, kMostTokens = 64;
// Where two ways are this close, a trial goes on, for more certainty: it costs little.
constexpr double kClose = 0.1, kCloseTrial = 0.05;
constexpr int kCloseTokens = 16;
// A way is taken up where it takes less than this share of the time: of fewer threads, of as many, and of more, which other work can hold up and
// which take cores from it. It is given up before its trial is over where it takes more than kHopeless.
constexpr double kFewerFaster = 1, kFaster = 0.97, kMoreFaster = 0.92, kHopeless = 1.25;
// Seconds between trials of a way: at first, and at most, where trials cost nothing. A core that has become free shows only where more threads are
// tried; that there is one less shows at once, since the present way becomes slow.
constexpr double kFirstInterval = 0.05, kMoreThreads = 1, kFewerThreads = 8;
// Trials may take this share of the time: of more threads, which alone show that a core is free, and of fewer. At first, where something has changed,
// a way rests for so many times what its trial has lost, and no longer than this.
constexpr double kMoreShare = 1.0 / 48, kFewerShare = 1.0 / 128, kRest = 16, kLongestRest = 0.4;
// The present way has become slow where tokens have lately taken this much more than usual, together a token and kSlow seconds more.
constexpr double kUsual = 1.3, kSlow = 0.004;
// A token's threads are patient with each other for so many times what is usual, or for what is, where more threads than at present are tried, which
// are to take less; and for so many seconds more, in which parked threads wake.
constexpr double kPatience = 2, kWaking = 0.001;
// Seconds for which a way that has been taken up should hold to count as found.
constexpr double kHolds = 0.3;

}  // namespace

void ExecutionTuner::Window::add(double seconds) {
  tokens_[next_] = seconds;
  next_ = (next_ + 1) % tokens_.size();
  size_ = std::min(size_ + 1, tokens_.size());
}

bool ExecutionTuner::Window::full() const {
  double sum = 0;
  for (size_t i = 0; i < size_; i++) sum += tokens_[i];
  return size_ == tokens_.size() || (size_ >= kTrialTokens && sum >= kTrial);
}

double ExecutionTuner::Window::mean() const {
  double sum = 0;
  size_t n = 0;
  for (; n < size_ && (n < kTrialTokens || sum < kTrial); n++) sum += tokens_[(next_ + tokens_.size() - 1 - n) % tokens_.size()];
  return sum / static_cast<double>(n);
}

ExecutionTuner::ExecutionTuner(const std::vector<Way>& ways) {
  for (const Way& way : ways) entries_.push_back({way, 0, kFirstInterval, 0});
}

void ExecutionTuner::settle(const Way& way) {
  if (recorded_ || entries_.size() == 1) return;
  for (size_t i = 0; i < entries_.size(); i++)
    if (entries_[i].way == way) {
      current_ = i;
      known_ = true;
    }
}

std::optional<Way> ExecutionTuner::settled() const {
  if (!known_) return std::nullopt;
  return entries_[current_].way;
}

double ExecutionTuner::patience() const {
  const double usual = trial_ ? best_seconds_ : usual_;
  const bool more = trial_ && entries_[trial_->entry].way.threads > entries_[current_].way.threads;
  return usual > 0 ? (more ? 1 : kPatience) * usual + kWaking : 0;
}

void ExecutionTuner::record(double seconds, double now) {
  if (entries_.size() == 1) return;
  if (!recorded_.exchange(true) && known_)
    for (Entry& entry : entries_) entry.due = now + kFirstInterval;
  if (trial_) record_trial(seconds, now);
  else record_present(seconds, now);
}

void ExecutionTuner::record_present(double seconds, double now) {
  if (!warm_) {
    warm_ = true;
    return;
  }
  window_.add(seconds);
  if (usual_ == 0 && window_.full()) usual_ = window_.mean();
  in_haste_ = usual_ > 0 && has_become_slow(seconds, now);
  if (!in_haste_ && !window_.full()) return;
  for (Entry& entry : entries_)
    // More threads would not help, nor what was far behind even what the present way takes now.
    if (in_haste_ && entry.way.threads <= entries_[current_].way.threads && entry.seconds * 0.8 < window_.mean()) entry.due = now;
  best_ = current_;
  best_seconds_ = window_.mean();
  begin_trial(now);
  if (in_haste_ && !trial_) excess_ = 0;  // nothing helps
}

bool ExecutionTuner::has_become_slow(double seconds, double now) {
  excess_ = std::max(0.0, excess_ + seconds - kUsual * usual_);
  if (excess_ == 0) usual_ += (seconds - usual_) * std::min(1.0, seconds / kHolds);  // a text grows, and so does what is usual
  return excess_ > usual_ + kSlow && now >= patient_until_;
}

// Of a way that is due, if any; of fewer threads, if any of those: where a core has been taken, they are what helps.
void ExecutionTuner::begin_trial(double now) {
  trial_.reset();
  const int32_t threads = entries_[current_].way.threads;
  for (size_t i = 0; i < entries_.size(); i++) {
    if (i == current_ || entries_[i].due > now) continue;
    const bool fewer = entries_[i].way.threads < threads;
    if (!trial_ || (fewer && entries_[trial_->entry].way.threads >= threads)) trial_ = Trial{i};
  }
}

void ExecutionTuner::record_trial(double seconds, double now) {
  Trial& trial = *trial_;
  trial.lost += seconds - best_seconds_;
  const bool tolerable = seconds < patience();
  if (!trial.warm && tolerable) {
    trial.warm = true;
    return;
  }
  trial.tokens++;
  trial.seconds += seconds;
  const double ratio = trial.seconds / trial.tokens / best_seconds_;
  const bool hopeless = !tolerable || (ratio > kHopeless && trial.tokens > 1);
  const bool enough = trial.tokens >= kMostTokens || (trial.tokens >= kTrialTokens && trial.seconds >= kTrial);
  const bool close = ratio > 1 - kClose && ratio < 1 + kClose && trial.tokens < kCloseTokens && trial.seconds < kCloseTrial;
  if (!hopeless && (!enough || close)) return;
  // Threads that wait for one that does not run do so in whatever execution: the others of as many need not be tried now.
  if (!tolerable)
    for (Entry& entry : entries_)
      if (entry.way.threads >= entries_[trial.entry].way.threads) entry.due = std::max(entry.due, now + entry.interval);
  end_trial(now);
}

void ExecutionTuner::end_trial(double now) {
  Entry& entry = entries_[trial_->entry];
  entry.seconds = trial_->seconds / trial_->tokens;
  const int32_t threads = entry.way.threads, best = entries_[best_].way.threads;
  if (entry.seconds < best_seconds_ * (threads < best ? kFewerFaster : threads > best ? kMoreFaster : kFaster)) {
    best_ = trial_->entry;
    best_seconds_ = entry.seconds;
  }
  entry.interval = std::min(std::max(2 * entry.interval, std::min(kRest * trial_->lost, kLongestRest)), longest_interval(entry, trial_->lost));
  entry.due = now + entry.interval;
  // In haste the first that helps is taken, and the others have their turn later.
  if (in_haste_ && best_ != current_) trial_.reset();
  else begin_trial(now);
  if (!trial_) end_round(now);
}

double ExecutionTuner::longest_interval(const Entry& entry, double lost) const {
  const bool more = entry.way.threads > entries_[current_].way.threads;
  return std::max(more ? kMoreThreads : kFewerThreads, lost / (more ? kMoreShare : kFewerShare));
}

void ExecutionTuner::end_round(double now) {
  known_ = true;
  if (best_ == current_) {
    // Becoming slow, if it was that, had another reason, which no other way escapes.
    if (in_haste_) {
      patience_ = std::clamp(2 * patience_, kFirstInterval, kMoreThreads);
      patient_until_ = now + patience_;
      usual_ = window_.mean();
    }
  } else {
    Entry& left = entries_[current_];
    current_ = best_;
    left.seconds = window_.mean();
    left.interval = now - taken_up_ >= kHolds ? kFirstInterval : std::min(2 * left.interval, longest_interval(left, 0));
    left.due = now + left.interval;
    taken_up_ = now;
    patience_ = 0;
    usual_ = best_seconds_;
  }
  excess_ = 0;
  window_.clear();
  warm_ = false;
}

}  // namespace cqil
