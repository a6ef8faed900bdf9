#if defined(__linux__)
#include "process_watch.h"

#include <poll.h>
#include <sys/syscall.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <vector>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434  // the same on all architectures
#endif

namespace cqil {
namespace {

// When a process began, in clock ticks since the machine started; empty when it has ended.
std::string beginning_of(int32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return "";
  // Its name, in parentheses, may hold anything. After it: state (field 3), ..., beginning (field 22).
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return "";
  std::istringstream rest(line.substr(name_end + 1));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) fields.push_back(field);
  if (fields.size() < 20 || fields[0] == "Z" || fields[0] == "X") return "";
  return fields[19];
}

bool has_proc() { return access("/proc/self/stat", R_OK) == 0; }

}  // namespace

ProcessWatch::ProcessWatch(int32_t pid, bool by_proc) : pid_(pid) {
  if (!by_proc) {
    pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (pidfd_) return;
    gone_ = errno == ESRCH;
    if (gone_) return;
  }
  began_ = beginning_of(pid);
  gone_ = began_.empty() && has_proc();
}

bool ProcessWatch::ended() const {
  if (gone_ || pid_ == 0) return gone_;
  if (pidfd_) {
    pollfd its = {pidfd_.get(), POLLIN, 0};
    return poll(&its, 1, 0) == 1 && (its.revents & POLLIN) != 0;
  }
  return !began_.empty() && beginning_of(pid_) != began_ && has_proc();
}

}  // namespace cqil
#endif
