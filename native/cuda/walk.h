// The ways through a program. All enqueue only, so each may be captured in a graph.
#pragma once
#include "session.h"

namespace cqil::cuda {

// Embedding and every stage, wide: a stage's lanes share each launch. Returns early, with x unfinished, once
// the request is cancelled; null: never.
void walk_wide(const Session& session, const Step& step, const cqil_forward* request);

// What walk_wide() does, to the same bits, with each lane of a stage on a stream of its own.
void walk_lanes(const Session& session, const Step& step, const cqil_forward* request);

// The same, copying each layer's input x, a_j and m_j to the request's result [n_layers, 3, n_tokens, dim] in host
// memory.
void walk_traced(const Session& session, const Step& step, const cqil_forward& request);

}  // namespace cqil::cuda
