// A file of weights: mapped read-only, so that they are used in place, or read into memory of its own.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "page_guard.h"

namespace cqil {

class WeightsFile {
 public:
  // path is UTF-8. Not mapped, its memory is filled by read(). Throws FILE_NOT_FOUND, OUT_OF_MEMORY.
  explicit WeightsFile(const std::string& path, bool mapped = true);
  ~WeightsFile();
  WeightsFile(const WeightsFile&) = delete;
  WeightsFile& operator=(const WeightsFile&) = delete;

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  bool mapped() const { return !owned_; }
  bool holds(const uint8_t* at) const { return at >= data_ && static_cast<uint64_t>(at - data_) < size_; }

  // Brings [at, at + size) into memory, so that reading it does not wait for the disk. Throws FILE_CHANGED where the
  // file has been shortened, FILE_NOT_FOUND where it cannot be read. Calls for other parts may overlap.
  void read(const uint8_t* at, uint64_t size);
  // Throws FILE_CHANGED when the file's size or time of writing has changed since it was opened, or a page of it was
  // lost. Another file under the same name does not matter. Costs a system call. Does nothing on Windows, where a
  // mapped file cannot change so.
  void expect_unchanged() const;

 private:
  struct Version {
    uint64_t size;
    int64_t seconds, nanoseconds;  // of the last writing
    bool operator==(const Version& other) const {
      return size == other.size && seconds == other.seconds && nanoseconds == other.nanoseconds;
    }
  };
  Version version() const;
  [[noreturn]] void fail(const char* what, int error) const;
  [[noreturn]] void changed(const std::string& how) const;

  std::string path_;
  intptr_t file_ = -1;  // a descriptor, or a handle
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
  Version opened_ = {};
  std::unique_ptr<uint8_t[]> owned_;
  std::unique_ptr<PageGuard> guard_;
};

// Reads from each page: on a virtual machine whose host keeps page tables of its own, the first touch of a populated
// page enters it there.
void touch(const uint8_t* data, uint64_t size);
// Gives up the pages that lie wholly in this memory, on systems that would not take them when memory is short. Pages of
// a mapped file come back when they are touched; other memory is zero then.
void unload(const uint8_t* data, uint64_t size);

}  // namespace cqil
