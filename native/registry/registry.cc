#include "registry.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "../core/error.h"
#include "../core/shared_library.h"
#include "../cpu/cpu_backend.h"

namespace cqil {
namespace {

struct CudaLibrary {
  std::string file;
  std::string reason;
  const cqil_backend* table = nullptr;
};

// Electron keeps what must be a real file beside the archive it belongs to.
std::string unpacked(std::string file) {
  const std::string archive = "app.asar";
  const size_t at = file.find(archive);
  const size_t end = at + archive.size();
  if (at != std::string::npos && end < file.size() && (file[end] == '/' || file[end] == '\\'))
    file.insert(end, ".unpacked");
  return file;
}

// In the order they are tried. An override stands alone: whoever names a file wants that one or to hear why not.
std::vector<std::string> candidates() {
  const char* override_file = std::getenv("CQIL_CUDA_LIBRARY");
  if (override_file && *override_file) return {unpacked(override_file)};
  std::vector<std::string> files;
  for (const char* folder : {"../../build-cuda", "../build-cuda", "."}) {
    const std::filesystem::path file = std::filesystem::path(own_folder()) / folder / library_file("cqil_cuda");
    files.push_back(unpacked(file.lexically_normal().string()));
  }
  return files;
}

CudaLibrary load_cuda_library() {
  CudaLibrary found;
  std::string tried;
  for (const std::string& file : candidates()) {
    tried += (tried.empty() ? "" : ", ") + file;
    if (std::ifstream(file).good()) {
      found.file = file;
      break;
    }
  }
  if (found.file.empty()) {
    found.reason = "its library is missing (looked for " + tried + "; in a checkout, npm run build:cuda makes it)";
    return found;
  }
  std::string error;
  void* library = open_library(found.file, error);
  if (!library) {
    found.reason = "its library cannot be loaded: " + error;
    return found;
  }
  const auto entry = reinterpret_cast<cqil_backend_entry_function>(find_symbol(library, CQIL_BACKEND_ENTRY));
  if (!entry) {
    found.reason = found.file + " is no cqil backend: it exports no " CQIL_BACKEND_ENTRY;
    return found;
  }
  const cqil_backend* table = entry();
  if (table->abi != CQIL_BACKEND_ABI) {
    found.reason = found.file + " has version " + std::to_string(table->abi) + " of the backend interface, expected " +
                   std::to_string(CQIL_BACKEND_ABI) + "; build both from one version of cqil";
    return found;
  }
  found.table = table;
  return found;
}

const CudaLibrary& cuda_library() {
  static const CudaLibrary library = load_cuda_library();
  return library;
}

}  // namespace

CudaState describe_cuda() {
  const CudaLibrary& library = cuda_library();
  CudaState state{library.reason, library.file, {}};
  if (!library.table) return state;
  constexpr int32_t kMostDevices = 64;
  state.devices.resize(kMostDevices);
  int32_t count = 0;
  cqil_error error = {};
  if (library.table->list_devices(state.devices.data(), kMostDevices, &count, &error) != CQIL_OK) {
    state.reason = error.text;
    count = 0;
  }
  state.devices.resize(static_cast<size_t>(count < kMostDevices ? count : kMostDevices));
  return state;
}

const cqil_backend& find_backend(const std::string& name) {
  if (name == "cpu") return *cpu_backend();
  if (name != "cuda") throw Error("BACKEND_UNAVAILABLE", "There is no backend " + name + "; expected cpu or cuda.");
  const std::string reason = describe_cuda().reason;
  if (!reason.empty()) throw Error("BACKEND_UNAVAILABLE", "The cuda backend cannot be used: " + reason + ".");
  return *cuda_library().table;
}

}  // namespace cqil
