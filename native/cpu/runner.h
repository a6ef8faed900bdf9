// Executes a schedule, step by step.
#pragma once
#include "workspace.h"

namespace cqil {

// CQIL_OK; CQIL_ABORTED when the request was cancelled between two stages; or, with the error filled, why an exchange
// between ranks failed.
cqil_status run(CpuWorkspace& workspace, const cqil_forward& request, cqil_error& error);

}  // namespace cqil
