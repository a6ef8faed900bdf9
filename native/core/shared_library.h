// The little of dlopen and LoadLibrary that the registry and the CUDA backend need.
#pragma once
#include <string>

namespace cqil {

// The folder of the file this code was loaded from: the addon, or a test.
std::string own_folder();

// Null on failure, with the system's words in error. Never unloaded: its threads and device state outlive any of our
// objects.
void* open_library(const std::string& path, std::string& error);

// Null when the library has no such symbol.
void* find_symbol(void* library, const char* name);

// The name of a library file, with prefix and suffix as the system wants them.
std::string library_file(const std::string& name);

}  // namespace cqil
