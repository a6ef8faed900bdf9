#include "buffer.h"

#include <limits>
#include <new>

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

}  // namespace cqil
