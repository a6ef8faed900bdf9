// Tells whether another process has ended, even where nobody has waited for it yet, or where its number has been given
// to another process since. Linux only.
#pragma once
#include <cstdint>
#include <string>

#include "descriptor.h"

namespace cqil {

class ProcessWatch {
 public:
  ProcessWatch() = default;
  // Watches by a pidfd or, where the system has or allows none, by /proc. by_proc: by /proc in any case.
  explicit ProcessWatch(int32_t pid, bool by_proc = false);
  // False where it cannot be known.
  bool ended() const;

 private:
  int32_t pid_ = 0;
  Descriptor pidfd_;
  bool gone_ = false;  // there was none at the beginning
  std::string began_;  // when it began, as /proc says
};

}  // namespace cqil
