// A file mapped read-only into memory; weights are used in place.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace cqil {

class MappedFile {
 public:
  // path is UTF-8. Throws FILE_NOT_FOUND.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

// Brings the pages of mapped memory in, so that reading them does not wait for the disk. False where the system says that it cannot, as the
// file has been shortened or its disk fails; one that does not say so ends the process.
bool populate(const uint8_t* data, uint64_t size);
// Reads from each page: on a virtual machine whose host keeps page tables of its own, the first touch of a populated page enters it there.
void touch(const uint8_t* data, uint64_t size);
// Gives up those that lie in it as a whole, on systems that would not take them when memory is short; they come back when they are touched.
void unload(const uint8_t* data, uint64_t size);

}  // namespace cqil
