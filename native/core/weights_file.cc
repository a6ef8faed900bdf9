#include "weights_file.h"

#include <algorithm>
#include <cstring>
#include <new>

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
namespace {

uint8_t* own_memory(const std::string& path, uint64_t size) {
  uint8_t* const memory = new (std::nothrow) uint8_t[static_cast<size_t>(size)];
  if (!memory) throw Error("OUT_OF_MEMORY", "No memory for the " + std::to_string(size) + " bytes of " + path + ".");
  return memory;
}

}  // namespace

void WeightsFile::changed(const std::string& how) const {
  throw Error("FILE_CHANGED", path_ + " has changed since it was opened: " + how +
                                  "; expected it to stay as it is while the model is in use, or mmap: false.");
}

#ifdef _WIN32

void WeightsFile::fail(const char* what, int error) const {
  throw Error(error == ERROR_NOT_ENOUGH_MEMORY || error == ERROR_COMMITMENT_LIMIT ? "OUT_OF_MEMORY" : "FILE_NOT_FOUND",
              path_ + " cannot be " + what + " (Windows error " + std::to_string(error) + ").");
}

WeightsFile::WeightsFile(const std::string& path, bool mapped) : path_(path) {
  const int length = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
  std::wstring wide(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, &wide[0], length);
  HANDLE file = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                            FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) fail("opened", static_cast<int>(GetLastError()));
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file, &size)) {
    const int error = static_cast<int>(GetLastError());
    CloseHandle(file);
    fail("read", error);
  }
  size_ = static_cast<uint64_t>(size.QuadPart);
  if (!mapped) {
    file_ = reinterpret_cast<intptr_t>(file);
    owned_.reset(own_memory(path_, size_));
    data_ = owned_.get();
    return;
  }
  int error = 0;
  if (size_ > 0) {
    HANDLE mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
    if (mapping) data_ = static_cast<const uint8_t*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
    if (!data_) error = static_cast<int>(GetLastError());
    if (mapping) CloseHandle(mapping);  // the view keeps it alive
  }
  CloseHandle(file);
  if (error) fail("mapped", error);
}

WeightsFile::~WeightsFile() {
  if (!owned_ && data_) UnmapViewOfFile(data_);
  if (file_ != -1) CloseHandle(reinterpret_cast<HANDLE>(file_));
}

WeightsFile::Version WeightsFile::version() const { return opened_; }

void WeightsFile::read(const uint8_t* at, uint64_t size) {
  if (mapped()) return touch(at, size);
  uint64_t offset = static_cast<uint64_t>(at - data_);
  for (const uint64_t end = offset + size; offset < end;) {
    OVERLAPPED where = {};
    where.Offset = static_cast<DWORD>(offset);
    where.OffsetHigh = static_cast<DWORD>(offset >> 32);
    DWORD got = 0;
    const auto wanted = static_cast<DWORD>(std::min<uint64_t>(end - offset, 1u << 30));
    if (!ReadFile(reinterpret_cast<HANDLE>(file_), owned_.get() + offset, wanted, &got, &where) &&
        GetLastError() != ERROR_HANDLE_EOF)
      fail("read", static_cast<int>(GetLastError()));
    if (got == 0) changed("it is shorter");
    offset += got;
  }
}

#else

void WeightsFile::fail(const char* what, int error) const {
  throw Error(error == ENOMEM ? "OUT_OF_MEMORY" : "FILE_NOT_FOUND",
              path_ + " cannot be " + what + ": " + std::strerror(error) + ".");
}

WeightsFile::WeightsFile(const std::string& path, bool mapped) : path_(path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("opened", errno);
  file_ = file;
  try {
    opened_ = version();
    size_ = opened_.size;
    if (!mapped) {
      owned_.reset(own_memory(path_, size_));
      data_ = owned_.get();
    } else if (size_ > 0) {
      void* const at = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
      if (at == MAP_FAILED) fail("mapped", errno);
      data_ = static_cast<const uint8_t*>(at);
#ifdef __linux__
      // Where the file system has large pages, the file is read in them and mapped by them: fewer, larger readings and
      // a fraction of the page table. Where it has none, nothing changes.
      madvise(at, size_, MADV_HUGEPAGE);
#endif
      guard_ = std::make_unique<PageGuard>(at, size_);
    }
  } catch (...) {
    if (data_ && !owned_) munmap(const_cast<uint8_t*>(data_), size_);
    close(file);
    throw;
  }
}

WeightsFile::~WeightsFile() {
  guard_.reset();
  if (!owned_ && data_) munmap(const_cast<uint8_t*>(data_), size_);
  close(static_cast<int>(file_));
}

WeightsFile::Version WeightsFile::version() const {
  struct stat status;
  if (fstat(static_cast<int>(file_), &status) != 0) fail("read", errno);
#ifdef __APPLE__
  const timespec& written = status.st_mtimespec;
#else
  const timespec& written = status.st_mtim;
#endif
  return {static_cast<uint64_t>(status.st_size), static_cast<int64_t>(written.tv_sec),
          static_cast<int64_t>(written.tv_nsec)};
}

void WeightsFile::read(const uint8_t* at, uint64_t size) {
  if (!mapped()) {
    uint64_t offset = static_cast<uint64_t>(at - data_);
    for (const uint64_t end = offset + size; offset < end;) {
      const ssize_t got =
          pread(static_cast<int>(file_), owned_.get() + offset,
                static_cast<size_t>(std::min<uint64_t>(end - offset, 1u << 30)), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail("read", errno);
      if (got == 0) changed("it is shorter");
      offset += static_cast<uint64_t>(got);
    }
    return;
  }
#ifdef __linux__
  const uint64_t skew = reinterpret_cast<uintptr_t>(at) % static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  void* const first = const_cast<uint8_t*>(at - skew);
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14; older C libraries do not name it
#endif
  // One call reads and fills the page table; a kernel that does not know it refuses. To ask for pages ahead of it
  // (MADV_WILLNEED) is no help: they come in the smallest size.
  if (madvise(first, size + skew, MADV_POPULATE_READ) == 0) return;
  if (errno == EFAULT) {  // where touching a page would be a SIGBUS
    expect_unchanged();
    fail("read", EIO);
  }
  madvise(first, size + skew, MADV_WILLNEED);
#endif
  touch(at, size);
  expect_unchanged();
}

#endif

void WeightsFile::expect_unchanged() const {
  const Version now = version();
  if (now.size != opened_.size)
    changed("it had " + std::to_string(opened_.size) + " bytes and has " + std::to_string(now.size));
  if (!(now == opened_)) changed("it has been written to");
  if (guard_ && guard_->failed()) changed("a part of it can no longer be read");
}

void touch(const uint8_t* data, uint64_t size) {
  constexpr uint64_t kPage = 4096;
  volatile uint8_t sink = 0;
  for (uint64_t i = 0; i < size; i += kPage) sink = data[i];
  (void)sink;
}

void unload(const uint8_t* data, uint64_t size) {
#ifdef __linux__
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE)),
                 skew = (page - reinterpret_cast<uintptr_t>(data) % page) % page;
  if (size >= skew + page) madvise(const_cast<uint8_t*>(data + skew), (size - skew) / page * page, MADV_DONTNEED);
#else
  (void)data, (void)size;
#endif
}

}  // namespace cqil
