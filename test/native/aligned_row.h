// Memory for rounded rows and panels.
#pragma once
#include <cstdint>
#include <vector>

namespace check {

// Memory on a 64-byte boundary, with a marked byte behind it.
struct Row {
  explicit Row(int64_t bytes) : size(static_cast<size_t>(bytes)), storage(size + 128, 0x5a) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(storage.data());
    data = storage.data() + (64 - at % 64) % 64;
  }
  bool overrun() const { return data[size] != 0x5a; }
  size_t size;
  std::vector<uint8_t> storage;
  uint8_t* data;
};

}  // namespace check
