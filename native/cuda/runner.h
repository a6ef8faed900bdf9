// Executes a schedule.
#pragma once
#include <functional>

#include "workspace.h"

namespace cqil::cuda {

// Enqueues the steps of the request's schedule one after the other: those of everybody on the workspace's stream, those
// of a crew on its own. step: what the launches are given; batch: the rows; head() enqueues CQIL_OP_HEAD. It only
// enqueues, so all of it may be captured in a graph. stoppable: returns early, with x unfinished, once the request is
// cancelled.
void run(const Workspace& workspace, const Step& step, const cqil_forward& request, const Batch& batch, bool stoppable,
         const std::function<void()>& head);

}  // namespace cqil::cuda
