// Walks a program for one batch of tokens.
#pragma once
#include "session.h"

namespace cqil {

// CQIL_OK, or CQIL_ABORTED when the request was cancelled between two stages.
cqil_status forward(CpuSession& session, const cqil_forward& request);

}  // namespace cqil
