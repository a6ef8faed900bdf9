#include "mapped_file.h"

#include <cstring>

#include "error.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#endif

namespace cqil {

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(other.data_), size_(other.size_) {
  other.data_ = nullptr;
  other.size_ = 0;
}

#ifdef _WIN32

MappedFile::MappedFile(const std::string& path) : path_(path) {
  auto fail = [&](const char* what) {
    throw Error("FILE_NOT_FOUND", path + " cannot be " + what + " (Windows error " + std::to_string(GetLastError()) + ").");
  };
  const int length = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
  std::wstring wide(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, &wide[0], length);
  HANDLE file = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                            FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) fail("opened");
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file, &size)) {
    CloseHandle(file);
    fail("read");
  }
  size_ = static_cast<uint64_t>(size.QuadPart);
  if (size_ > 0) {
    HANDLE mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
    if (mapping) {
      data_ = static_cast<const uint8_t*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
      CloseHandle(mapping);  // the view keeps it alive
    }
  }
  CloseHandle(file);
  if (size_ > 0 && !data_) fail("mapped");
}

MappedFile::~MappedFile() {
  if (data_) UnmapViewOfFile(data_);
}

#else

MappedFile::MappedFile(const std::string& path) : path_(path) {
  auto fail = [&](const char* what, int error) {
    throw Error("FILE_NOT_FOUND", path + " cannot be " + what + ": " + std::strerror(error) + ".");
  };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("opened", errno);
  struct stat status;
  if (fstat(file, &status) != 0) {
    const int error = errno;
    close(file);
    fail("read", error);
  }
  size_ = static_cast<uint64_t>(status.st_size);
  if (size_ > 0) {
    void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    const int error = errno;
    if (mapped == MAP_FAILED) {
      close(file);
      fail("mapped", error);
    }
    data_ = static_cast<const uint8_t*>(mapped);
#ifdef __linux__
    // Where the file system has large pages, the file is read in them and mapped by them: fewer, larger readings and a fraction of the page
    // table. Where it has none, nothing changes.
    madvise(mapped, size_, MADV_HUGEPAGE);
#endif
  }
  close(file);  // the mapping keeps the file alive
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

#endif

namespace {

#ifdef __linux__
uint64_t page_size() { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }
#endif

}  // namespace

void touch(const uint8_t* data, uint64_t size) {
  constexpr uint64_t kPage = 4096;
  volatile uint8_t sink = 0;
  for (uint64_t i = 0; i < size; i += kPage) sink = data[i];
  (void)sink;
}

bool populate(const uint8_t* data, uint64_t size) {
#ifdef __linux__
  const uint64_t skew = reinterpret_cast<uintptr_t>(data) % page_size();
  void* first = const_cast<uint8_t*>(data - skew);
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14; older C libraries do not name it
#endif
  // One call reads and fills the page table; a kernel that does not know it refuses. To ask for pages ahead of it (MADV_WILLNEED) is no help:
  // they come in the smallest size.
  if (madvise(first, size + skew, MADV_POPULATE_READ) == 0) return true;
  if (errno == EFAULT) return false;  // where touching a page would be a SIGBUS
  madvise(first, size + skew, MADV_WILLNEED);
#endif
  touch(data, size);
  return true;
}

void unload(const uint8_t* data, uint64_t size) {
#ifdef __linux__
  const uint64_t page = page_size(), skew = (page - reinterpret_cast<uintptr_t>(data) % page) % page;
  if (size >= skew + page) madvise(const_cast<uint8_t*>(data + skew), (size - skew) / page * page, MADV_DONTNEED);
#else
  (void)data, (void)size;
#endif
}

}  // namespace cqil
