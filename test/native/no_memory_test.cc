// Memory that cannot be had, at every allocation in turn: an error, or less of what is done for speed alone, but
// nothing that ends the process or loses an answer.
#include <atomic>
#include <cstdlib>
#include <new>

#include "check.h"
#include "core/ahead.h"
#include "core/in_parts.h"
#include "core/session.h"
#include "cpu/team.h"
#include "model_file.h"
#include "some_text.h"

#ifndef _WIN32
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace {

// Allocations until one fails, and whether all fail after it; none does while it is negative.
std::atomic<int> left{-1};
std::atomic<bool> for_good{false};

void* allocate(std::size_t size) {
  if (left >= 0 && left.fetch_sub(1) == 0) {
    if (for_good) left = 0;
    return nullptr;
  }
  return std::malloc(size ? size : 1);
}

}  // namespace

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // GCC sees malloc and free where it has inlined these
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // GCC sees malloc and free where it has inlined these
#endif
void* operator new(std::size_t size) {
  if (void* const at = allocate(size)) return at;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return operator new(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void operator delete(void* at) noexcept { std::free(at); }
void operator delete[](void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }
void operator delete[](void* at, std::size_t) noexcept { std::free(at); }

namespace {

using namespace cqil;

// Does work with the n-th allocation failing, n = 0, 1, 2, …, until it needs no more than that; work returns having
// caught what it threw.
void each_failure(const std::function<void()>& work) {
  for (bool all : {false, true})
    for (int n = 0; n < 2000; n++) {
      for_good = all;
      left = n;
      work();
      const bool enough = left > 0;
      left = -1;
      if (enough) break;
    }
}

template <class Work>
bool has_memory(Work work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const Error& error) {
    return std::strcmp(error.code(), "OUT_OF_MEMORY") == 0 ? false : throw;
  }
}

ForwardRequest request_of(int32_t id, int32_t position) {
  ForwardRequest request;
  request.ids = {id};
  request.position = position;
  request.output = CQIL_OUTPUT_SHORTLIST;
  request.count = 3;
  request.ahead = true;
  return request;
}

// Whoever waits for an answer gets one: who asked first, and who asked for what follows while it was under way.
void test_ahead() {
  Session session(check::small_model(2), Plan{}, Execution::kWide, 32);
  Ahead& ahead = session.ahead();
  int first = 0, second = 0;
  each_failure([&] {
    int answers[2] = {0, 0};
    bool asked = false;
    const int wanted = left.exchange(-1);  // what the test itself needs is there
    ForwardRequest request = request_of(5, 0), next = request_of(0, 1);
    const Ahead::Deliver deliver = [&](Ahead::Asker asker, const Outcome& outcome) {
      int& mine = answers[asker == &second];
      mine++;
      if (asker != &first || outcome.failure) return;
      next.ids[0] = outcome.shortlist.ids[0];
      next.ahead = false;
      has_memory([&] { asked = ahead.ask(session, next, &second); });
    };
    left = wanted;
    ahead.run(session, std::move(request), &first, deliver, std::chrono::milliseconds(1000));
    if (answers[0] != 1 || answers[1] != (asked ? 1 : 0)) check::that(false, "an answer is lost or comes twice");
    ahead.stop();
  });
  check::that(true, "every answer was given");
}

// Decoding a token takes memory for its result alone.
void test_decoded_token() {
  for (int threads : {1, 3}) {
    Session session(check::small_model(threads), Plan{}, Execution::kAuto, 64);
    ForwardRequest listed = request_of(5, 0), whole = request_of(5, 0);
    listed.ahead = false;
    whole.output = CQIL_OUTPUT_LOGITS;
    for (int i = 0; i < 8; i++) session.forward(whole);
    auto allocations = [&](auto work) {
      constexpr int kMany = 1000;
      left = kMany;
      work();
      return kMany - left.exchange(-1);
    };
    check::that(allocations([&] { session.shortlist(listed); }) == 1, "a shortlist takes memory for its entries alone");
    check::that(allocations([&] { session.forward(whole); }) == 1, "a forward takes memory for its logits alone");
  }
}

void test_threads() {
  each_failure([] {
    std::atomic<int> members{0};
    has_memory([&] {
      Team team(4);
      const int size = team.size();
      team.run(size, [&](int) { members++; });
      if (members != size) check::that(false, "a team has as many members as it says");
    });
    std::atomic<int64_t> done{0};
    if (has_memory([&] { in_parts(100, 4, [&](int, int64_t from, int64_t to) { done += to - from; }); }) && done != 100)
      check::that(false, "every part is done");
  });
  check::that(true, "threads were made, or not");
}

void test_models() {
  const char* path = "no_memory_test.bin";
  const WeightsSpec spec = check::in_file(check::small_weights("Q8_0", 2), path);
  const std::vector<int32_t> ids = check::some_ids(5);
  for (bool mapped : {true, false})
    each_failure([&] {
      has_memory([&] {
        WeightsSpec own = spec;
        own.mapped = mapped;
        const auto model = std::make_shared<Model>(
            std::move(own), *cpu_backend(), cqil_model_options{2, 0, CQIL_ACTIVATIONS_INT8, nullptr, 0, nullptr});
        model->read([](uint64_t) {}, 1 << 18);
        Session session(model, Plan{}, Execution::kWide, 8);
        check::run(session, ids, {5});
      });
    });
  std::remove(path);
  check::that(true, "models were loaded and used, or not");
}

#if !defined(_WIN32) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// A file that does not fit what may be mapped.
void test_mapping() {
  const char* path = "no_memory_test.bin";
  std::fclose(std::fopen(path, "wb"));
  check::that(truncate(path, int64_t{1} << 36) == 0, "a file of holes");
  rlimit before;
  getrlimit(RLIMIT_AS, &before);
  const rlimit less = {rlim_t{1} << 34, before.rlim_max};
  setrlimit(RLIMIT_AS, &less);
  check::throws("OUT_OF_MEMORY", [&] { WeightsFile file(path, true); }, "a file too large to be mapped");
  check::throws("OUT_OF_MEMORY", [&] { WeightsFile file(path, false); }, "a file too large to be read");
  setrlimit(RLIMIT_AS, &before);
  std::remove(path);
}
#else
void test_mapping() {}
#endif

}  // namespace

int main() {
  test_ahead();
  test_decoded_token();
  test_threads();
  test_models();
  test_mapping();
  return check::report("no_memory");
}
