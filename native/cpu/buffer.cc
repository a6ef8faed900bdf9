#include "buffer.h"

#include <limits>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace cqil {

Zeroed::Zeroed(size_t count, size_t element_bytes) {
  constexpr size_t kLine = 64;  // a vector that crosses a line costs two loads
  if (count > std::numeric_limits<size_t>::max() / element_bytes - kLine) throw std::bad_alloc();
  size_t space = count * element_bytes + kLine;
  block_.reset(std::calloc(space, 1));  // unlike an aligned allocation, calloc gives pages that are not touched yet
  if (!block_) throw std::bad_alloc();
  void* at = block_.get();
  aligned_ = std::align(kLine, count * element_bytes, at, space);
}

void prefer_large_pages(void* at, size_t bytes) {
#ifdef __linux__
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), skew = (page - reinterpret_cast<uintptr_t>(at) % page) % page;
  if (bytes >= skew + page) madvise(static_cast<uint8_t*>(at) + skew, (bytes - skew) / page * page, MADV_HUGEPAGE);
#else
  (void)at, (void)bytes;
#endif
}

}  // namespace cqil
