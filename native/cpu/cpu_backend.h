// The backend that is always there.
#pragma once
#include "../backend/backend.h"

namespace cqil {

const cqil_backend* cpu_backend();

}  // namespace cqil
