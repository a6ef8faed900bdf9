// Weights on their way to where products read them: however they are read, a session computes the same bits.
#include "core/session.h"

#include <atomic>
#include <cstdio>

#include "check.h"
#include "model_file.h"
#include "small_model.h"
#include "some_text.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

using namespace cqil;
using check::in_file;
using check::run;
using check::small_model;
using check::small_weights;
using check::some_ids;

namespace {

// Matrices stand interleaved where activations are int8: the same whether they were brought there piece by piece while a model
// was loaded, by its threads, or with the first session; and as many heads at a time as make whole interleaved rows.
void test_interleaved(const char* dtype) {
  const std::vector<int32_t> ids = some_ids(37);
  auto model = [&](int32_t threads, bool odd_heads) {
    WeightsSpec spec = small_weights(dtype, 3);
    if (odd_heads) {  // of 40 rows, two and a half times 16
      spec.shape.n_heads = 8;
      spec.shape.n_kv_heads = 4;
      spec.shape.head_dim = 40;
      spec.rope_frequencies.resize(20);
      for (TensorSpec& tensor : spec.tensors) {
        if (tensor.role == "wq") tensor.rows = 320;
        if (tensor.role == "wk" || tensor.role == "wv") tensor.rows = 160;
        if (tensor.role == "wo") tensor.cols = 320;
        if (tensor.role == "bq") tensor.cols = 320;
        if (tensor.role == "q_norm") tensor.cols = 40;
      }
    }
    return std::make_shared<Model>(std::move(spec), *cpu_backend(), cqil_model_options{threads, 0, CQIL_ACTIVATIONS_INT8, nullptr, 0});
  };
  for (bool odd_heads : {false, true}) {
    if (odd_heads && dtype_info(dtype_from_name(dtype)).block_weights > 32) continue;
    const std::string name = std::string(dtype) + (odd_heads ? " interleaved, odd heads" : " interleaved");
    Session first(model(1, odd_heads), Plan{}, Execution::kWide, 64);
    const std::vector<float> expected = run(first, ids, {1});
    for (int threads : {1, 3})
      for (uint64_t piece : {uint64_t{1}, uint64_t{1} << 30}) {
        const auto prepared = model(threads, odd_heads);
        std::atomic<uint64_t> bytes{0};
        prepared->read([&](uint64_t more) { bytes += more; }, piece);
        CHECK(bytes == prepared->weights().bytes(), name + " was read once");
        Session session(prepared, Plan{}, Execution::kWide, 64);
        CHECK(check::same_bits(run(session, ids, {37}), expected), name + ", threads " + std::to_string(threads));
      }
  }
}

// Whole, in rows of tensors, or not at all before the first session: the products are the same, and so they are while pages come back.
void test_reading(const char* dtype, cqil_activations activations) {
  const char* path = "session_test.bin";
  const std::string name = std::string("reading ") + dtype;
  const std::vector<int32_t> ids = some_ids(37);
  Session random(small_model(2, dtype, activations), Plan{}, Execution::kWide, 64);
  const std::vector<float> expected = run(random, ids, {37});
  const WeightsSpec spec = in_file(small_weights(dtype), path);
  auto model = [&] { return std::make_shared<Model>(spec, *cpu_backend(), cqil_model_options{2, 0, activations, nullptr, 0}); };
  for (uint64_t piece : {uint64_t{1}, uint64_t{100000}, uint64_t{1} << 30}) {
    const auto read = model();
    std::atomic<uint64_t> bytes{0};
    read->read([&](uint64_t more) { bytes += more; }, piece);
    CHECK(bytes == read->weights().bytes(), name + " gives every byte once");
    Session session(read, Plan{}, Execution::kWide, 64);
    CHECK(check::same_bits(run(session, ids, {37}), expected), name + " in pieces of " + std::to_string(piece));
  }
  const auto stopped = model();
  check::throws("ABORTED", [&] { stopped->read([&](uint64_t) { stopped->stop_reading(); }, 1); }, "reading that is stopped");
  Session session(stopped, Plan{}, Execution::kWide, 64);
  CHECK(check::same_bits(run(session, ids, {37}), expected), name + " that was stopped");
#ifdef __linux__
  if (madvise(nullptr, 0, 22) == 0) {  // MADV_POPULATE_READ: an older system can only end the process
    const auto shortened = model();
    std::fclose(std::fopen(path, "wb"));
    check::throws("FILE_NOT_FOUND", [&] { shortened->read([](uint64_t) {}); }, name + " of a file that was shortened");
  }
#endif
  std::remove(path);
}

}  // namespace

int main() {
  for (const char* dtype : {"F32", "Q8_0", "Q4_0", "Q4_K", "Q6_K"}) test_interleaved(dtype);
  for (const char* dtype : {"BF16", "Q8_0", "Q4_K"})
    for (cqil_activations activations : {CQIL_ACTIVATIONS_F32, CQIL_ACTIVATIONS_INT8}) test_reading(dtype, activations);
  return check::report("reading");
}
