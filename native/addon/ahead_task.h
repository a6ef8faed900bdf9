// The third way a native function runs: as a Task, but one thread of the pool may serve several promises in turn, each
// settled while the thread goes on with what it expects to be asked for next.
#pragma once
#include <napi.h>

#include <memory>

#include "../core/session.h"

namespace cqil {

// A promise of the shortlist that the request is for.
Napi::Value start_shortlist(Napi::Env env, const std::shared_ptr<Session>& session, const ForwardRequest& request);

}  // namespace cqil
