// Guards mapped files against pages that are lost, because the file was cut short or its disk fails. Such a page raises
// SIGBUS, which would end the process. Instead the rest of the mapping becomes zeros, and failed() tells. This holds on
// Linux and macOS, for the mappings given here only: any other SIGBUS goes to the handler that was there before, or to
// the default.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cqil {

// Guards [data, data + size), which begins with a page, until it is destroyed. Destroy it before the mapping ends.
// Beyond 1,024 guards at a time, and on other systems, it guards nothing.
class PageGuard {
 public:
  PageGuard(const void* data, size_t size);
  ~PageGuard();
  PageGuard(const PageGuard&) = delete;
  PageGuard& operator=(const PageGuard&) = delete;

  // Whether a page was lost and zeros took its place. From any thread.
  bool failed() const;

 private:
  int slot_ = -1;
};

}  // namespace cqil
