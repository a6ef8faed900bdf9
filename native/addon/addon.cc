// Everything JavaScript can call. lib/engine/native.ts gives the types.
#include "calls.h"

namespace cqil {

struct Entry {
  const char* name;
  Napi::Value (*function)(const Napi::CallbackInfo&);
};

static const Entry kTable[] = {
    {"describeMachine", describe_machine},
    {"describeCuda", describe_cuda_call},
    {"measureBandwidth", measure_bandwidth},
    {"compileProgram", compile_program_call},
    {"place", place_call},
    {"loadModel", load_model},
    {"readModel", read_model},
    {"disposeModel", dispose_model},
    {"createSession", create_session},
    {"forward", forward_call},
    {"forwardTogether", forward_together_call},
    {"timeline", timeline_call},
    {"cancel", cancel_call},
    {"closeSession", close_session},
    {"openExchange", open_exchange},
    {"followLeader", follow_leader},
};

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  for (const Entry& entry : kTable) exports.Set(entry.name, Napi::Function::New(env, entry.function, entry.name));
  return exports;
}

}  // namespace cqil

static Napi::Object initialize_addon(Napi::Env env, Napi::Object exports) { return cqil::initialize(env, exports); }

NODE_API_MODULE(cqil, initialize_addon)
