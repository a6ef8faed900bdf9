// The one exception of the core: a code a program can switch on and a sentence a person can act on.
#pragma once
#include <stdexcept>
#include <string>

namespace cqil {

class Error : public std::runtime_error {
 public:
  // code is one of the names listed in lib/errors.ts.
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const noexcept { return code_; }

 private:
  const char* code_;
};

}  // namespace cqil
