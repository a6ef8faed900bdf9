// How long ranks that are processes of this machine take for a gather: shm, and tcp on the loopback interface. Every
// rank calls gather again and again with nothing else to do. Prints a Markdown table; judges nothing.
//   exchange_bench [ranks, default 2 [gathers of each size, default 20000]]
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "exchange/exchanges.h"

namespace {

constexpr int64_t kPatience = INT64_C(60) * 1000 * 1000 * 1000;
// One vector of models with 288, 1024, 2048 and 4096 dimensions.
constexpr int64_t kSizes[] = {1152, 4096, 8192, 16384};

void check(cqil_exchange_status status, const cqil_exchange_failure& failure) {
  if (status == CQIL_EXCHANGE_OK) return;
  std::fprintf(stderr, "%s\n", failure.text);
  std::exit(1);
}

cqil_exchange_end* open_end(const cqil_exchange& calls, int rank, int size, const char* address) {
  static const uint8_t token[CQIL_EXCHANGE_TOKEN_BYTES] = {1};
  cqil_exchange_options options = {};
  options.rank = rank, options.size = size, options.address = address, options.token = token;
  cqil_exchange_end* end = nullptr;
  cqil_exchange_failure failure;
  check(calls.create(&options, &end, &failure), failure);
  return end;
}

// Microseconds of each gather of a size, ascending.
std::vector<double> time_gathers(const cqil_exchange& calls, cqil_exchange_end* end, int size, int64_t bytes,
                                 int count) {
  using Clock = std::chrono::steady_clock;
  std::vector<uint8_t> mine(static_cast<size_t>(bytes), 1), all(static_cast<size_t>(bytes * size));
  std::vector<double> times;
  cqil_exchange_failure failure;
  for (int i = -count / 10; i < count; i++) {
    const auto begin = Clock::now();
    check(calls.gather(end, mine.data(), all.data(), bytes, kPatience, &failure), failure);
    const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
    if (i >= 0) times.push_back(took.count());
  }
  std::sort(times.begin(), times.end());
  return times;
}

void run(const cqil_exchange& calls, const char* leaders_address, int size, int count) {
  cqil_exchange_end* end = open_end(calls, 0, size, leaders_address);
  cqil_exchange_state state;
  calls.describe(end, &state);
  std::fflush(stdout);
  int rank = 0;
  for (int r = 1; r < size && rank == 0; r++)
    if (fork() == 0) rank = r;
  if (rank > 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    end = open_end(calls, rank, size, state.address);
  }
  cqil_exchange_failure failure;
  check(calls.meet(end, kPatience, &failure), failure);
  for (const int64_t bytes : kSizes) {
    const std::vector<double> us = time_gathers(calls, end, size, bytes, count);
    if (rank == 0)
      std::printf("| %s | %lld | %.1f | %.1f | %.1f |\n", calls.name, static_cast<long long>(bytes), us[us.size() / 10],
                  us[us.size() / 2], us[us.size() * 99 / 100]);
  }
  if (rank > 0) calls.close(end), _exit(0);
  while (wait(nullptr) > 0) {
  }
  calls.close(end);
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc > 1 ? std::atoi(argv[1]) : 2, count = argc > 2 ? std::atoi(argv[2]) : 20000;
  if (size < 1 || size > CQIL_MAX_RANKS || count < 100) {
    std::fprintf(stderr, "exchange_bench [1 to %d ranks [at least 100 gathers]]\n", CQIL_MAX_RANKS);
    return 2;
  }
  std::printf("%d processes, %d gathers of each size\n\n", size, count);
  std::printf(
      "| exchange | bytes of a rank | 10 %% within, µs | median, µs | 99 %% within, µs |\n|---|---|---|---|---|\n");
  run(*cqil::shm_exchange(), nullptr, size, count);
  run(*cqil::tcp_exchange(), "127.0.0.1:0", size, count);
}
