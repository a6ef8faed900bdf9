#include "convert.h"

#include <cmath>
#include <cstring>

#include "../core/error.h"

namespace cqil {
namespace {

[[noreturn]] void mismatch(const char* what, const char* expected) {
  throw Error("INVALID_ARGUMENT", std::string(what) + " is not " + expected + ".");
}

}  // namespace

double read_number(const Napi::Object& from, const char* key) {
  const Napi::Value value = from.Get(key);
  if (!value.IsNumber()) mismatch(key, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

std::string read_string(const Napi::Object& from, const char* key) {
  const Napi::Value value = from.Get(key);
  if (!value.IsString()) mismatch(key, "a string");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Array read_array(const Napi::Object& from, const char* key) {
  const Napi::Value value = from.Get(key);
  if (!value.IsArray()) mismatch(key, "an array");
  return value.As<Napi::Array>();
}

namespace {

// A whole number a double holds exactly.
int64_t read_whole(const Napi::Object& from, const char* key) {
  const double value = read_number(from, key);
  if (!(std::fabs(value) <= 9007199254740991.0) || value != std::floor(value)) mismatch(key, "a whole number");
  return static_cast<int64_t>(value);
}

bool read_bool(const Napi::Object& from, const char* key) {
  const Napi::Value value = from.Get(key);
  if (!value.IsBoolean()) mismatch(key, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

const char* phase_name(cqil_phase_kind kind) {
  switch (kind) {
    case CQIL_EMBED: return "embed";
    case CQIL_QKV: return "qkv";
    case CQIL_ATTENTION: return "attention";
    case CQIL_ATTENTION_OUT: return "attention_out";
    case CQIL_GATE_UP: return "gate_up";
    case CQIL_DOWN: return "down";
    case CQIL_HEAD: return "head";
  }
  return "";
}

cqil_formula read_formula(const Napi::Object& from) {
  cqil_formula formula = {};
  const std::string activation = read_string(from, "activation");
  if (activation == "gelu_tanh") formula.activation = CQIL_GELU_TANH;
  else if (activation != "silu") mismatch("activation", "silu or gelu_tanh");
  formula.embedding_scale = static_cast<float>(read_number(from, "embeddingScale"));
  formula.attention_scale = static_cast<float>(read_number(from, "attentionScale"));
  formula.attention_cap = static_cast<float>(read_number(from, "attentionCap"));
  formula.logit_cap = static_cast<float>(read_number(from, "logitCap"));
  return formula;
}

}  // namespace

Napi::Error to_js_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

Napi::Object read_object(const Napi::Value& from, const char* what) {
  if (!from.IsObject()) mismatch(what, "an object");
  return from.As<Napi::Object>();
}

int32_t read_int(const Napi::Object& from, const char* key) {
  const int64_t value = read_whole(from, key);
  if (value < INT32_MIN || value > INT32_MAX) mismatch(key, "a 32-bit whole number");
  return static_cast<int32_t>(value);
}

void read_shape(const Napi::Object& from, WeightsSpec& spec) {
  cqil_shape& shape = spec.shape;
  shape = {};
  shape.dim = read_int(from, "dim");
  shape.hidden_dim = read_int(from, "hiddenDim");
  shape.head_dim = read_int(from, "headDim");
  shape.n_heads = read_int(from, "nHeads");
  shape.n_kv_heads = read_int(from, "nKvHeads");
  shape.n_layers = read_int(from, "nLayers");
  shape.vocab_size = read_int(from, "vocabSize");
  shape.norm_eps = static_cast<float>(read_number(from, "normEps"));
  shape.own_norm_eps = static_cast<float>(read_number(from, "ownNormEps"));
  shape.rope_dim = read_int(from, "ropeDim");
  shape.rope_attention_factor = read_number(from, "ropeAttentionFactor");
  shape.rope_interleaved = read_bool(from, "ropeInterleaved") ? 1 : 0;
  shape.formula = read_formula(read_object(from.Get("formula"), "formula"));
  spec.folding.norm_offset = static_cast<float>(read_number(from, "normOffset"));
  spec.folding.logit_scale = static_cast<float>(read_number(from, "logitScale"));
  spec.folding.stream_unit = static_cast<float>(read_number(from, "streamUnit"));
  const Napi::Array layers = read_array(from, "layers");
  for (uint32_t i = 0; i < layers.Length(); i++) {
    const Napi::Object layer = read_object(layers.Get(i), "a layer");
    spec.layers.push_back({read_int(layer, "window"), read_int(layer, "rope")});
  }
  const Napi::Value frequencies = from.Get("ropeFrequencies");
  if (!frequencies.IsTypedArray() || frequencies.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array)
    mismatch("ropeFrequencies", "a Float64Array");
  const auto array = frequencies.As<Napi::Float64Array>();
  spec.rope_frequencies.assign(array.Data(), array.Data() + array.ElementLength());
  shape.n_ropes = read_int(from, "nRopes");
}

ModelRequest read_model_request(const Napi::Value& from) {
  const Napi::Object spec = read_object(from, "spec");
  ModelRequest request;
  read_shape(read_object(spec.Get("shape"), "shape"), request.weights);
  request.backend = read_string(spec, "backend");
  request.weights.mapped = read_bool(spec, "mmap");
  request.options.threads = read_int(spec, "threads");
  if (request.options.threads < 1 || request.options.threads > 1024) mismatch("threads", "between 1 and 1024");
  request.options.device = read_int(spec, "device");
  request.options.activations = read_activations(spec.Get("activations"));
  request.options.alone_bytes = read_whole(spec, "aloneBytes");
  const Napi::Array files = read_array(spec, "files");
  for (uint32_t i = 0; i < files.Length(); i++) request.weights.files.push_back(files.Get(i).ToString().Utf8Value());
  const Napi::Array tensors = read_array(spec, "tensors");
  for (uint32_t i = 0; i < tensors.Length(); i++) {
    const Napi::Object t = read_object(tensors.Get(i), "a tensor");
    const int64_t offset = read_whole(t, "offset");
    if (offset < 0) mismatch("offset", "positive");
    request.weights.tensors.push_back({read_string(t, "role"), read_int(t, "layer"), read_string(t, "dtype"),
                                       read_whole(t, "rows"), read_whole(t, "cols"), read_int(t, "file"),
                                       static_cast<uint64_t>(offset)});
  }
  if (!spec.Get("randomSeed").IsUndefined()) {
    request.weights.random = true;
    request.weights.random_seed = static_cast<uint64_t>(read_whole(spec, "randomSeed"));
  }
  if (!spec.Get("rank").IsUndefined()) read_rank(read_object(spec.Get("rank"), "rank"), request);
  return request;
}

AdapterSpec read_adapter(const Napi::Object& object) {
  AdapterSpec adapter;
  adapter.file = read_string(object, "file");
  auto read_matrix = [](const Napi::Object& pair, const char* key) {
    const Napi::Object matrix = read_object(pair.Get(key), key);
    const int64_t offset = read_whole(matrix, "offset");
    if (offset < 0) mismatch("offset", "positive");
    return AdapterMatrix{read_string(matrix, "dtype"), static_cast<uint64_t>(offset)};
  };
  const Napi::Array pairs = read_array(object, "pairs");
  for (uint32_t i = 0; i < pairs.Length(); i++) {
    const Napi::Object pair = read_object(pairs.Get(i), "a pair");
    adapter.pairs.push_back({read_string(pair, "role"), read_int(pair, "layer"), read_int(pair, "rank"),
                             static_cast<float>(read_number(pair, "scale")), read_matrix(pair, "a"),
                             read_matrix(pair, "b")});
  }
  return adapter;
}

Plan read_plan(const Napi::Value& from) {
  const Napi::Object object = read_object(from, "plan");
  Plan plan;
  const Napi::Array groups = read_array(object, "groups");
  for (uint32_t i = 0; i < groups.Length(); i++) {
    const Napi::Object pair = read_object(groups.Get(i), "a group");
    plan.groups.push_back({read_int(pair, "0"), read_int(pair, "1")});
  }
  plan.bypass = read_int(object, "bypass");
  if (plan.bypass < 0) mismatch("bypass", "at least 0");
  plan.bypass_residual = read_string(object, "bypassMode") == "official";
  return plan;
}

Execution read_execution(const Napi::Value& from) {
  const std::string name = from.IsString() ? from.As<Napi::String>().Utf8Value() : "";
  if (name == "auto") return Execution::kAuto;
  if (name == "wide") return Execution::kWide;
  if (name == "lanes") return Execution::kLanes;
  if (name == "persistent") return Execution::kPersistent;
  mismatch("execution", "auto, wide, lanes or persistent");
}

const char* execution_name(cqil_execution execution) {
  switch (execution) {
    case CQIL_WIDE: return "wide";
    case CQIL_LANES: return "lanes";
    case CQIL_PERSISTENT: return "persistent";
    case CQIL_EXECUTION_COUNT: break;
  }
  return "";
}

cqil_dtype read_kv_dtype(const Napi::Value& from) {
  const std::string name = from.IsString() ? from.As<Napi::String>().Utf8Value() : "";
  if (name == "f32") return CQIL_F32;
  if (name == "f16") return CQIL_F16;
  if (name == "q8_0") return CQIL_Q8_0;
  mismatch("kvCache", "f32, f16 or q8_0");
}

cqil_activations read_activations(const Napi::Value& from) {
  const std::string name = from.IsString() ? from.As<Napi::String>().Utf8Value() : "";
  if (name == "float32") return CQIL_ACTIVATIONS_F32;
  if (name == "bf16") return CQIL_ACTIVATIONS_BF16;
  if (name == "int8") return CQIL_ACTIVATIONS_INT8;
  mismatch("activations", "float32, bf16 or int8");
}

ForwardRequest read_forward_request(const Napi::Value& from) {
  const Napi::Object object = read_object(from, "request");
  ForwardRequest request;
  const Napi::Value ids = object.Get("ids");
  if (!ids.IsTypedArray() || ids.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
    mismatch("ids", "an Int32Array");
  const auto array = ids.As<Napi::Int32Array>();
  request.ids.assign(array.Data(), array.Data() + array.ElementLength());
  request.position = read_int(object, "position");
  const std::string output = read_string(object, "output");
  if (output == "logits") request.output = CQIL_OUTPUT_LOGITS;
  else if (output == "scores") request.output = CQIL_OUTPUT_SCORES;
  else if (output == "trace") request.output = CQIL_OUTPUT_TRACE;
  else if (output == "all_logits") request.output = CQIL_OUTPUT_ALL_LOGITS;
  else if (output == "shortlist") request.output = CQIL_OUTPUT_SHORTLIST;
  else if (output != "none") mismatch("output", "none, logits, scores, trace, all_logits or shortlist");
  if (request.output == CQIL_OUTPUT_SHORTLIST) {
    request.count = read_int(object, "count");
    if (!object.Get("listed").IsUndefined()) request.listed = read_int(object, "listed");
    request.ahead = object.Get("ahead").ToBoolean();
  }
  request.has_next = !object.Get("next").IsUndefined();
  if (request.has_next) request.next = read_int(object, "next");
  return request;
}

Napi::Value write_shortlist(Napi::Env env, const cqil_shortlist& list) {
  const auto n = static_cast<size_t>(list.count);
  Napi::Int32Array ids = Napi::Int32Array::New(env, n);
  Napi::Float32Array logits = Napi::Float32Array::New(env, n);
  std::memcpy(ids.Data(), list.ids, n * sizeof(int32_t));
  std::memcpy(logits.Data(), list.logits, n * sizeof(float));
  Napi::Object object = Napi::Object::New(env);
  object.Set("ids", ids);
  object.Set("logits", logits);
  object.Set("logSumExp", list.log_sum_exp);
  return object;
}

Napi::Value write_program(Napi::Env env, const Program& program) {
  Napi::Array phases = Napi::Array::New(env, program.phases.size());
  for (uint32_t i = 0; i < program.phases.size(); i++) {
    const cqil_phase& phase = program.phases[i];
    Napi::Array layers = Napi::Array::New(env, static_cast<size_t>(phase.n_lanes));
    for (int32_t lane = 0; lane < phase.n_lanes; lane++)
      layers.Set(static_cast<uint32_t>(lane), Napi::Number::New(env, phase.first_layer + lane));
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("kind", phase_name(phase.kind));
    entry.Set("stage", phase.stage);
    entry.Set("layers", layers);
    phases.Set(i, entry);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("phases", phases);
  object.Set("stages", program.n_stages);
  object.Set("layerPhases", static_cast<double>(program.phases.size()) - 2);
  object.Set("bypass", program.bypass);
  object.Set("bypassMode", program.bypass_residual ? "official" : "paper");
  return object;
}

PlacementRequest read_placement(const Napi::Value& from) {
  const Napi::Object object = read_object(from, "a placement");
  PlacementRequest request = {};
  auto read_numbers = [&](const char* key) {
    const Napi::Array given = read_array(object, key);
    std::vector<int64_t> numbers;
    for (uint32_t i = 0; i < given.Length(); i++) {
      if (!given.Get(i).IsNumber()) mismatch(key, "numbers");
      numbers.push_back(given.Get(i).As<Napi::Number>().Int64Value());
    }
    return numbers;
  };
  request.sizes.layers = read_numbers("layers");
  request.sizes.head = read_whole(object, "head");
  request.sizes.position = read_whole(object, "kvPerPosition");
  request.sizes.windows = read_numbers("windows");
  if (request.sizes.windows.size() != request.sizes.layers.size()) mismatch("windows", "one number for each layer");
  request.sizes.post_norms = read_bool(object, "postNorms");
  request.sizes.alone = read_whole(object, "alone");
  const Execution execution = read_execution(object.Get("execution"));
  if (execution != Execution::kWide && execution != Execution::kLanes) mismatch("execution", "wide or lanes");
  request.way = {execution == Execution::kLanes ? CQIL_LANES : CQIL_WIDE, read_int(object, "threads")};
  if (request.way.threads < 0) mismatch("threads", "at least 0");
  request.extent = {read_int(object, "position"), 1, false};
  return request;
}

Napi::Value write_schedule(Napi::Env env, const Schedule& schedule) {
  constexpr size_t kFields = 9;
  Napi::Int32Array rows = Napi::Int32Array::New(env, schedule.steps.size() * kFields);
  int32_t* at = rows.Data();
  for (const cqil_step& step : schedule.steps)
    for (int32_t field : {static_cast<int32_t>(step.op), step.phase, step.first_lane, step.n_lanes, step.n_crews,
                          step.crew, step.alone, step.waits_for, static_cast<int32_t>(step.then)})
      *at++ = field;
  return rows;
}

}  // namespace cqil
