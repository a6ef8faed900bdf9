// The functions of the table in addon.cc.
#pragma once
#include <napi.h>

namespace cqil {

Napi::Value describe_machine(const Napi::CallbackInfo& info);
Napi::Value describe_cuda_call(const Napi::CallbackInfo& info);
Napi::Value measure_bandwidth(const Napi::CallbackInfo& info);
Napi::Value compile_program_call(const Napi::CallbackInfo& info);
Napi::Value place_call(const Napi::CallbackInfo& info);
Napi::Value load_model(const Napi::CallbackInfo& info);
Napi::Value read_model(const Napi::CallbackInfo& info);
Napi::Value dispose_model(const Napi::CallbackInfo& info);
Napi::Value create_session(const Napi::CallbackInfo& info);
Napi::Value forward_call(const Napi::CallbackInfo& info);
Napi::Value forward_together_call(const Napi::CallbackInfo& info);
Napi::Value timeline_call(const Napi::CallbackInfo& info);
Napi::Value cancel_call(const Napi::CallbackInfo& info);
Napi::Value close_session(const Napi::CallbackInfo& info);
Napi::Value open_exchange(const Napi::CallbackInfo& info);
Napi::Value follow_leader(const Napi::CallbackInfo& info);

}  // namespace cqil
