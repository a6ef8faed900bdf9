// Memory of the CPU backend.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace cqil {

// Zeroed storage on cache-line boundaries that the system commits only as it is touched, and has back at once when it
// is freed. Throws std::bad_alloc.
class Zeroed {
 public:
  Zeroed() = default;
  Zeroed(size_t count, size_t element_bytes);
  void* get() const { return aligned_; }

 private:
  struct Free {
    size_t mapped;  // bytes, if they were mapped; 0: allocated
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> block_;
  void* aligned_ = nullptr;
};

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : storage_(count, sizeof(T)) {}
  T* get() const { return static_cast<T*>(storage_.get()); }

 private:
  Zeroed storage_;
};
// Asks the system for large pages in memory that is not touched yet and will be, all of it: they are taken, and found
// again, with fewer faults. Where there are none, nothing changes.
void prefer_large_pages(void* at, size_t bytes);

using Floats = Buffer<float>;
using Bytes = Buffer<uint8_t>;

}  // namespace cqil
