// A forward: sends the tokens, computes, and brings back what was asked for.
#pragma once
#include "workspace.h"

namespace cqil::cuda {

// CQIL_OK or CQIL_ABORTED; throws Failure. Nothing is in flight when it ends, either way. The request is one that
// native/core/session.cc let through.
cqil_status forward(Workspace& workspace, const cqil_forward& request);

}  // namespace cqil::cuda
