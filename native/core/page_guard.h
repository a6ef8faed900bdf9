// What happens where a page of a mapped file cannot be had, as the file has been cut short or its disk fails: instead of a SIGBUS that ends the
// process, the rest of the mapping becomes zeros, and whoever asks is told. On Linux and macOS, for mappings that are given here and no others:
// any other SIGBUS goes to the handler that was there before, or does what it would have done without one.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cqil {

// Guards [data, data + size), which begins with a page, until it is destroyed; then the mapping may end. Where there are too many at once, and on
// other systems, it guards nothing.
class PageGuard {
 public:
  PageGuard(const void* data, size_t size);
  ~PageGuard();
  PageGuard(const PageGuard&) = delete;
  PageGuard& operator=(const PageGuard&) = delete;

  // Whether a page could not be had, and zeros have taken its place. From any thread.
  bool failed() const;

 private:
  int slot_ = -1;
};

}  // namespace cqil
