#include "shared_library.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace cqil {
namespace {

std::string folder_of(const std::string& file) {
  const size_t slash = file.find_last_of("/\\");
  return slash == std::string::npos ? "." : file.substr(0, slash);
}

}  // namespace

#ifdef _WIN32

std::string own_folder() {
  HMODULE module = nullptr;
  char path[MAX_PATH] = {};
  const DWORD how = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
  if (!GetModuleHandleExA(how, reinterpret_cast<LPCSTR>(&own_folder), &module)) return ".";
  GetModuleFileNameA(module, path, sizeof path);
  return folder_of(path);
}

void* open_library(const std::string& path, std::string& error) {
  const HMODULE library = LoadLibraryA(path.c_str());
  if (!library) error = "system error " + std::to_string(GetLastError());
  return reinterpret_cast<void*>(library);
}

void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

std::string library_file(const std::string& name) { return name + ".dll"; }

#else

std::string own_folder() {
  Dl_info info = {};
  const bool found = dladdr(reinterpret_cast<void*>(&own_folder), &info) != 0 && info.dli_fname != nullptr;
  return found ? folder_of(info.dli_fname) : ".";
}

void* open_library(const std::string& path, std::string& error) {
  // Local: its copy of the CUDA runtime must not meet another engine's.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const char* reason = library ? nullptr : dlerror();
  if (reason) error = reason;
  return library;
}

void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

std::string library_file(const std::string& name) {
#ifdef __APPLE__
  return "lib" + name + ".dylib";
#else
  return "lib" + name + ".so";
#endif
}

#endif

}  // namespace cqil
