#include "execution_tuner.h"

#include <algorithm>

namespace cqil {
namespace {

// A trial lasts this many seconds, and at least kTrialTokens tokens; Window::kTokens tokens always end it. That
// outlasts a scheduler's slice, for which one of two threads has a core: 3 to 4 ms on Linux.
constexpr double kTrial = 0.012;
constexpr int kTrialTokens = 3;
// A trial of a way that is about as fast as the best goes on for certainty, which costs little there: while the two
// differ by less than kClose, up to kCloseTrial seconds or kCloseTokens tokens.
constexpr double kClose = 0.1, kCloseTrial = 0.05;
constexpr int kCloseTokens = 16;
// A way replaces the best one where it takes less than this share of its time. Fewer threads need no gain. More threads
// need the most: they take cores from other work, which can hold them up.
constexpr double kFewerFaster = 1, kFaster = 0.97, kMoreFaster = 0.92;
// A trial ends early where the way takes more than this share of the best one's time.
constexpr double kHopeless = 1.25;
// Seconds between two trials of a way. They double from the first to the longest. Ways of more threads are tried more
// often: only they show that a core is free again. A core that is taken shows without a trial, because the present way
// becomes slow.
constexpr double kFirstInterval = 0.05, kMoreThreads = 1, kFewerThreads = 8;
// The share of all time that trials of a way may take in the long run. The interval becomes longer where trials lose
// more.
constexpr double kMoreShare = 1.0 / 48, kFewerShare = 1.0 / 128;
// The next trial of a way waits for kRest times the seconds that this one has lost, but no longer than kLongestRest for
// that reason.
constexpr double kRest = 16, kLongestRest = 0.4;
// A token is late by what it takes beyond kUsual times the usual time. The present way has become slow when the late
// seconds add up to a usual token and kSlow seconds.
constexpr double kUsual = 1.3, kSlow = 0.004;
// The threads of a token wait for each other for kPatience times the usual time. Where more threads are tried than at
// present, they wait for one usual time, because such a way is of use only where it is faster. kWaking seconds are
// added, in which parked threads wake.
constexpr double kPatience = 2, kWaking = 0.001;
// A way that was used for this many seconds had a reason to be: when it is left, it is tried again after the first
// interval.
constexpr double kHolds = 0.3;

}  // namespace

void ExecutionTuner::Window::add(double seconds) {
  tokens_[next_] = seconds;
  next_ = (next_ + 1) % tokens_.size();
  size_ = std::min(size_ + 1, tokens_.size());
}

ExecutionTuner::Timings ExecutionTuner::Window::latest() const {
  Timings timings;
  for (size_t n = 0; n < size_ && !timings.enough(); n++)
    timings.add(tokens_[(next_ + tokens_.size() - 1 - n) % tokens_.size()]);
  return timings;
}

void ExecutionTuner::Timings::add(double seconds) {
  tokens++;
  sum += seconds;
  slowest = std::max(slowest, seconds);
}

bool ExecutionTuner::Timings::enough() const {
  return tokens >= static_cast<int>(Window::kTokens) || (tokens >= kTrialTokens && sum >= kTrial);
}

// One thread waits for no other, so a token that takes far longer than the others says nothing about the way: another
// process had the core meanwhile. The slowest token is left out there.
double ExecutionTuner::Timings::mean(const Way& way) const {
  return way.threads == 1 && tokens >= kTrialTokens ? (sum - slowest) / (tokens - 1) : sum / tokens;
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
  if (usual_ == 0 && window_.latest().enough()) usual_ = present_seconds();
  in_haste_ = usual_ > 0 && has_become_slow(seconds, now);
  if (!in_haste_ && !window_.latest().enough()) return;
  for (Entry& entry : entries_)
    // In haste, more threads are no help. Neither is a way that was far slower when it was last tried than the present
    // one is now.
    if (in_haste_ && entry.way.threads <= entries_[current_].way.threads && entry.seconds * 0.8 < present_seconds())
      entry.due = now;
  if (!in_haste_)
    for (Entry& entry : entries_) {
      const bool was_faster = entry.seconds > 0 && entry.seconds < std::min(usual_, present_seconds());
      if (was_faster && entry.way.threads < entries_[current_].way.threads)
        entry.due = std::min(entry.due, entry.tried + kFirstInterval);
    }
  best_ = current_;
  best_seconds_ = present_seconds();
  begin_trial(now);
  if (in_haste_ && !trial_) excess_ = 0;  // no way may help
}

// Seconds per token of the present way, lately. What holds up one thread would hold up several, too.
double ExecutionTuner::present_seconds() const {
  const Way& way = entries_[current_].way;
  const double mean = window_.latest().mean(way);
  return way.threads == 1 && usual_ > 0 ? std::min(mean, usual_) : mean;
}

bool ExecutionTuner::has_become_slow(double seconds, double now) {
  if (entries_[current_].way.threads == 1) {
    usual_ += (std::min(seconds, 2 * usual_) - usual_) * std::min(1.0, seconds / kHolds);
    return false;
  }
  excess_ = std::max(0.0, excess_ + seconds - kUsual * usual_);
  if (excess_ == 0)
    usual_ += (seconds - usual_) * std::min(1.0, seconds / kHolds);  // a text grows, and with it the usual time
  return excess_ > usual_ + kSlow && now >= doubts_until_;
}

// Begins the trial of a way that is due, if there is one. Ways of fewer threads come first: they help where a core has
// been taken.
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
  const Way& way = entries_[trial.entry].way;
  const bool alone = way.threads == 1;
  const bool tolerable = alone || seconds < patience();
  if (!trial.warm && tolerable) {
    trial.warm = true;
    return;
  }
  Timings& timings = trial.timings;
  timings.add(seconds);
  const double ratio = timings.mean(way) / best_seconds_;
  const bool hopeless = !tolerable || (ratio > kHopeless && timings.tokens > (alone ? 2 : 1));
  const bool close =
      ratio > 1 - kClose && ratio < 1 + kClose && timings.tokens < kCloseTokens && timings.sum < kCloseTrial;
  if (!hopeless && (!timings.enough() || close)) return;
  // A thread that does not run holds up the others in every execution, so the other ways of as many threads wait too.
  if (!tolerable)
    for (Entry& entry : entries_)
      if (entry.way.threads >= way.threads) entry.due = std::max(entry.due, now + entry.interval);
  end_trial(now);
}

void ExecutionTuner::end_trial(double now) {
  Entry& entry = entries_[trial_->entry];
  const int32_t threads = entry.way.threads, best = entries_[best_].way.threads;
  entry.seconds = trial_->timings.mean(entry.way);
  entry.tried = now;
  if (entry.seconds < best_seconds_ * (threads < best ? kFewerFaster : threads > best ? kMoreFaster : kFaster)) {
    best_ = trial_->entry;
    best_seconds_ = entry.seconds;
  }
  entry.interval = std::min(std::max(2 * entry.interval, std::min(kRest * trial_->lost, kLongestRest)),
                            longest_interval(entry, trial_->lost));
  entry.due = now + entry.interval;
  // In haste the first way that helps is taken. The others are tried later.
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
    // No way is faster, so the slowness has a cause that all ways share. The next one is believed only after a while.
    if (in_haste_) {
      doubt_ = std::clamp(2 * doubt_, kFirstInterval, kMoreThreads);
      doubts_until_ = now + doubt_;
      usual_ = present_seconds();
    }
  } else {
    Entry& left = entries_[current_];
    current_ = best_;
    left.seconds = present_seconds();
    left.tried = now;
    left.interval = now - taken_up_ >= kHolds ? kFirstInterval : std::min(2 * left.interval, longest_interval(left, 0));
    left.due = now + left.interval;
    taken_up_ = now;
    doubt_ = 0;
    usual_ = best_seconds_;
  }
  excess_ = 0;
  window_.clear();
  warm_ = false;
}

}  // namespace cqil
