// Executes a schedule, step by step.
#pragma once
#include "session.h"

namespace cqil {

// CQIL_OK, or CQIL_ABORTED when the request was cancelled between two stages.
cqil_status run(CpuSession& session, const cqil_forward& request);

}  // namespace cqil
