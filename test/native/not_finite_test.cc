// What is not finite is told of, wherever it comes from: in every instruction set, weight format, format of the KV
// cache and kind of activations, for prompts and for single tokens, whatever is asked for.
#include <cmath>
#include <cstdlib>

#include "check.h"
#include "cpu/kernels/kernels.h"
#include "not_finite.h"

using namespace cqil;
using namespace check;

namespace {

constexpr const char* kFile = "not_finite_test.bin";

std::shared_ptr<Model> model_of(WeightsSpec spec, cqil_activations activations) {
  return std::make_shared<Model>(std::move(spec), *cpu_backend(),
                                 cqil_model_options{1, 0, activations, nullptr, 0, nullptr});
}

void test_weights(const std::string& isa, const char* dtype, cqil_activations activations) {
  const std::string name = isa + " " + dtype + (activations ? " rounded " : " ");
  expect_fine(model_of(in_file(biased_weights(dtype), kFile), activations), CQIL_F32, name + "sound");
  // Every tensor in one format; in the others those whose NaN goes different ways.
  const bool all = std::strcmp(dtype, "F32") == 0;
  const std::vector<const char*> roles =
      all ? std::vector<const char*>{"wq",       "wk", "wv", "wo", "w_gate", "w_up",   "w_down",     "attention_norm",
                                     "mlp_norm", "bq", "bk", "bv", "q_norm", "output", "output_norm"}
          : std::vector<const char*>{"wq", "wk", "w_down", "output"};
  size_t turn = 0;
  for (const char* role : roles)
    for (float value : {kNan, kInfinity, -kInfinity}) {
      if (!all && value < 0) continue;
      const auto model =
          model_of(in_file(biased_weights(dtype), kFile, poke_one(role, role[0] == 'o' ? -1 : 1, value)), activations);
      expect_told(model, kCaches[turn++ % 3], name + role + " " + std::to_string(value));
      if (all) expect_told(model, kCaches[turn % 3], name + role + " " + std::to_string(value));
    }
}

// Keys and values that the cache does not hold, of either sign: softmax gives a score of minus infinity no weight.
void test_cache(const std::string& isa) {
  for (const char* role : {"bk", "bv"})
    for (float value : {1e6f, -1e6f, 1e8f, -1e8f}) {
      const auto model =
          model_of(in_file(biased_weights("F32"), kFile, poke_one(role, 1, value)), CQIL_ACTIVATIONS_F32);
      const std::string name = isa + " " + role + " " + std::to_string(value);
      expect_fine(model, CQIL_F32, name);
      expect_told(model, CQIL_F16, name);
      if (std::fabs(value) > 8.4e6f) expect_told(model, CQIL_Q8_0, name);
      else expect_fine(model, CQIL_Q8_0, name);
    }
}

// Activations whose squares overflow: their norm would be zero, and the layer would seem to do nothing.
void test_large_activations(const std::string& isa) {
  for (cqil_activations activations : {CQIL_ACTIVATIONS_F32, CQIL_ACTIVATIONS_INT8, CQIL_ACTIVATIONS_BF16}) {
    WeightsSpec spec = biased_weights("Q8_0");
    spec.tensors.push_back({"bo", 1, "F32", 1, spec.shape.dim, 0, 0});
    const auto model = model_of(in_file(std::move(spec), kFile, poke_one("bo", 1, 1e25f)), activations);
    for (cqil_dtype kv : kCaches) expect_told(model, kv, isa + " large activations");
  }
}

}  // namespace

int main() {
  const IsaList list = isa_list();
  for (int i = 0; i < list.count; i++) {
    if (!list.items[i].supported) continue;
#ifdef _WIN32
    _putenv_s("CQIL_ISA", list.items[i].name);
#else
    setenv("CQIL_ISA", list.items[i].name, 1);
#endif
    const std::string isa = list.items[i].name;
    for (const char* dtype : {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) {
      test_weights(isa, dtype, CQIL_ACTIVATIONS_F32);
      if (dtype[0] == 'B') test_weights(isa, dtype, CQIL_ACTIVATIONS_BF16);
      if (dtype[0] == 'Q' && std::strcmp(dtype, "Q5_K") != 0) test_weights(isa, dtype, CQIL_ACTIVATIONS_INT8);
    }
    test_cache(isa);
    test_large_activations(isa);
  }
  std::remove(kFile);
  return check::report("not_finite");
}
