// A backend library of another version of the interface, for registry_test.
#include "backend/backend.h"

#ifdef _WIN32
#define CQIL_EXPORT __declspec(dllexport)
#else
#define CQIL_EXPORT __attribute__((visibility("default")))
#endif

extern "C" CQIL_EXPORT const cqil_backend* cqil_backend_entry() {
  static const uint32_t older = CQIL_BACKEND_ABI - 1;  // all that may be read of a table before its version is known
  return reinterpret_cast<const cqil_backend*>(&older);
}
