// Weights on their way to where products read them: however they are read, a session computes the same bits.
#include "core/session.h"

#include <atomic>
#include <cstdio>

#include "check.h"
#include "model_file.h"
#include "small_model.h"
#include "some_text.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

using namespace cqil;
using check::in_file;
using check::run;
using check::small_model;
using check::small_weights;
using check::some_ids;

namespace {

// Matrices stand interleaved where activations are int8: the same whether they were brought there piece by piece while
// a model was loaded, by its threads, or with the first session; and as many heads at a time as make whole interleaved
// rows.
void test_interleaved(const char* dtype) {
  const std::vector<int32_t> ids = some_ids(37);
  auto model = [&](int32_t threads, bool odd_heads) {
    WeightsSpec spec = small_weights(dtype, 3);
    if (odd_heads) {  // of 40 rows, two and a half times 16
      spec.shape.n_heads = 8;
      spec.shape.n_kv_heads = 4;
      spec.shape.head_dim = spec.shape.rope_dim = 40;
      spec.rope_frequencies.resize(20);
      for (TensorSpec& tensor : spec.tensors) {
        if (tensor.role == "wq") tensor.rows = 320;
        if (tensor.role == "wk" || tensor.role == "wv") tensor.rows = 160;
        if (tensor.role == "wo") tensor.cols = 320;
        if (tensor.role == "bq") tensor.cols = 320;
        if (tensor.role == "q_norm") tensor.cols = 40;
      }
    }
    return std::make_shared<Model>(std::move(spec), *cpu_backend(),
                                   cqil_model_options{threads, 0, CQIL_ACTIVATIONS_INT8, nullptr, 0, nullptr});
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

#ifndef _WIN32
// Gives a file another time of writing.
void touch_up(const char* path) {
  const timespec times[2] = {{1000000000, 0}, {1000000000, 5}};
  CHECK(utimensat(AT_FDCWD, path, times, 0) == 0, "the time of writing is set");
}
#endif

// Whole, in rows of tensors, or not at all before the first session: the products are the same, and so they are while
// pages come back.
void test_reading(const char* dtype, cqil_activations activations, bool mapped) {
  const char* path = "session_test.bin";
  const std::string name = std::string("reading ") + dtype + (mapped ? "" : " without mapping");
  const std::vector<int32_t> ids = some_ids(37);
  Session random(small_model(2, dtype, activations), Plan{}, Execution::kWide, 64);
  const std::vector<float> expected = run(random, ids, {37});
  WeightsSpec spec = in_file(small_weights(dtype), path);
  spec.mapped = mapped;
  auto model = [&] {
    return std::make_shared<Model>(spec, *cpu_backend(), cqil_model_options{2, 0, activations, nullptr, 0, nullptr});
  };
  for (uint64_t piece : {uint64_t{1}, uint64_t{100000}, uint64_t{1} << 30}) {
    const auto read = model();
    std::atomic<uint64_t> bytes{0};
    read->read([&](uint64_t more) { bytes += more; }, piece);
    CHECK(bytes == read->weights().bytes(), name + " gives every byte once");
    Session session(read, Plan{}, Execution::kWide, 64);
    CHECK(check::same_bits(run(session, ids, {37}), expected), name + " in pieces of " + std::to_string(piece));
  }
  const auto stopped = model();
  check::throws(
      "ABORTED", [&] { stopped->read([&](uint64_t) { stopped->stop_reading(); }, 1); }, "reading that is stopped");
  Session session(stopped, Plan{}, Execution::kWide, 64);
  CHECK(check::same_bits(run(session, ids, {37}), expected), name + " that was stopped");
#ifndef _WIN32
  const auto shortened = model(), written = model(), unread = model();
  touch_up(path);
  check::throws("FILE_CHANGED", [&] { written->read([](uint64_t) {}); }, name + " of a file that is written to");
  std::fclose(std::fopen(path, "wb"));
  check::throws("FILE_CHANGED", [&] { shortened->read([](uint64_t) {}); }, name + " of a file that was shortened");
  if (mapped) {
    Session late(unread, Plan{}, Execution::kWide, 64);
    check::throws(
        "FILE_CHANGED", [&] { run(late, ids, {37}); }, name + " of a file that was shortened, by the first session");
    check::throws("FILE_CHANGED", [&] { run(session, ids, {37}); }, name + ", and shortened later");
  } else {
    check::throws(
        "FILE_CHANGED", [&] { Session late(unread, Plan{}, Execution::kWide, 64); },
        name + " of a file that was shortened, by the first session");
    CHECK(check::same_bits(run(session, ids, {37}), expected), name + ", and shortened later");
  }
#endif
  std::remove(path);
}

#ifndef _WIN32
// A page goes while it is in use, after the file was looked at.
void test_lost_page() {
  const char* path = "session_test.bin";
  in_file(small_weights("F32"), path);
  const WeightsFile file(path);
  CHECK(truncate(path, 1) == 0, "the file is cut");
  CHECK(file.data()[file.size() - 1] == 0, "what cannot be had is zero");
  check::throws("FILE_CHANGED", [&] { file.expect_unchanged(); }, "a page that was lost");
  std::remove(path);
}
#endif

// An adapter merged into rows that were read and given up, as they stand interleaved elsewhere: as into rows that are
// mapped.
void test_adapter() {
  const char *path = "session_test.bin", *adapter_path = "adapter_of_reading_test.bin";
  const std::vector<int32_t> ids = some_ids(37);
  WeightsSpec spec = in_file(small_weights("Q8_0"), path);
  std::vector<float> values(static_cast<size_t>(2 * (512 + 256)), 0.01f);
  std::FILE* file = std::fopen(adapter_path, "wb");
  std::fwrite(values.data(), sizeof(float), values.size(), file);
  std::fclose(file);
  const AdapterSpec adapter = {adapter_path, {{"w_down", 1, 2, 0.5f, {"F32", 0}, {"F32", 4 * 2 * 512}}}};
  std::vector<float> expected;
  for (bool mapped : {true, false}) {
    spec.mapped = mapped;
    const auto base = std::make_shared<Model>(spec, *cpu_backend(),
                                              cqil_model_options{2, 0, CQIL_ACTIVATIONS_INT8, nullptr, 0, nullptr});
    base->read([](uint64_t) {});
    Session plain(base, Plan{}, Execution::kWide, 64),
        with(std::make_shared<Model>(base, adapter), Plan{}, Execution::kWide, 64);
    const std::vector<float> found = run(with, ids, {37});
    CHECK(!check::same_bits(found, run(plain, ids, {37})), "an adapter changes something");
    if (mapped) expected = found;
    CHECK(check::same_bits(found, expected), "an adapter merged into what is not mapped");
  }
  std::remove(path);
  std::remove(adapter_path);
}

}  // namespace

int main() {
  for (const char* dtype : {"F32", "Q8_0", "Q4_0", "Q4_K", "Q6_K"}) test_interleaved(dtype);
  for (const char* dtype : {"BF16", "Q8_0", "Q4_K"})
    for (cqil_activations activations : {CQIL_ACTIVATIONS_F32, CQIL_ACTIVATIONS_INT8})
      for (bool mapped : {true, false}) test_reading(dtype, activations, mapped);
#ifndef _WIN32
  test_lost_page();
#endif
  test_adapter();
  return check::report("reading");
}
