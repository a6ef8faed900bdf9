// From JavaScript values to plain structs and back. lib/engine/native.ts gives the shapes; what does not match them
// throws INVALID_ARGUMENT.
#pragma once
#include <napi.h>

#include <string>

#include "../core/adapter.h"
#include "../core/plan.h"
#include "../core/program.h"
#include "../core/schedule.h"
#include "../core/session.h"
#include "../core/weights.h"

namespace cqil {

// A JavaScript Error with `code`.
Napi::Error to_js_error(Napi::Env env, const char* code, const std::string& message);

// What loadModel's spec holds.
struct ModelRequest {
  WeightsSpec weights;
  std::string backend;
  cqil_model_options options = {};
  Joined joined;
};

// What a schedule is made of, beside the program.
struct PlacementRequest {
  Sizes sizes;
  Way way;
  Extent extent;
};

// The shape, what its layers differ in and what is folded into weights, into a spec without files.
void read_shape(const Napi::Object& from, WeightsSpec& spec);
ModelRequest read_model_request(const Napi::Value& from);
AdapterSpec read_adapter(const Napi::Object& object);
Plan read_plan(const Napi::Value& from);
Execution read_execution(const Napi::Value& from);
const char* execution_name(cqil_execution execution);
cqil_dtype read_kv_dtype(const Napi::Value& from);
cqil_activations read_activations(const Napi::Value& from);
ForwardRequest read_forward_request(const Napi::Value& from);
// Reads which rank loads, and its exchange with the others, into the request's weights and joined.
void read_rank(const Napi::Object& from, ModelRequest& request);
int32_t read_int(const Napi::Object& from, const char* key);
double read_number(const Napi::Object& from, const char* key);
std::string read_string(const Napi::Object& from, const char* key);
Napi::Array read_array(const Napi::Object& from, const char* key);
Napi::Object read_object(const Napi::Value& from, const char* what);

// How many layers `sizes` has says how many the plan is for.
PlacementRequest read_placement(const Napi::Value& from);

Napi::Value write_program(Napi::Env env, const Program& program);
// [steps][9]: op, phase, first lane, lanes, crews, crew, alone, waits for, meeting.
Napi::Value write_schedule(Napi::Env env, const Schedule& schedule);
Napi::Value write_shortlist(Napi::Env env, const cqil_shortlist& list);

}  // namespace cqil
