// Ranks that are processes, and what may happen to one. Linux only.
#pragma once
#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "exchange_cases.h"

// Runs a process for each rank, of which none outlives this one; what each found wrong, or how it ended.
inline std::vector<std::string> run_processes(int size, const std::function<std::string(int rank)>& work) {
  reset_board();
  std::fflush(stdout);
  struct Child {
    pid_t pid;
    int reads;
  };
  std::vector<Child> children;
  const pid_t parent = getpid();
  for (int r = 0; r < size; r++) {
    int ends[2];
    if (pipe(ends) != 0) return {"no pipe"};
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      close(ends[0]);
      for (const Child& other : children) close(other.reads);
      const std::string wrong = work(r);
      const bool written = write(ends[1], wrong.data(), wrong.size()) == static_cast<ssize_t>(wrong.size());
      _exit(written ? 0 : 1);
    }
    close(ends[1]);
    children.push_back({pid, ends[0]});
  }
  std::vector<std::string> wrong;
  // All are read before any is waited for: a rank that was killed stays a zombie until the others have seen its end.
  for (const Child& child : children) {
    std::string text;
    char part[512];
    for (ssize_t n; (n = read(child.reads, part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
    close(child.reads);
    wrong.push_back(text);
  }
  for (size_t r = 0; r < children.size(); r++) {
    int status = 0;
    if (waitpid(children[r].pid, &status, 0) != children[r].pid) wrong[r] += "not waited for";
    else if (WIFSIGNALED(status)) wrong[r] += "ended by signal " + std::to_string(WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0) wrong[r] += "exit code " + std::to_string(WEXITSTATUS(status));
  }
  return wrong;
}

inline std::vector<std::string> run_processes(const Made& made, int size, const Body& body) {
  return run_processes(size, [&](int rank) { return run_rank(made, rank, size, 1, body); });
}

inline const std::string kKilled = "ended by signal 9";

// One rank is killed while all are busy or wait: the others hear who, and every later call fails alike.
inline void test_killed(const Made& made, const std::string& what, int size, int victim, bool broadcast) {
  const std::vector<std::string> wrong = run_processes(made, size, [=](Rank& rank) -> std::string {
    std::thread killer;
    if (rank.rank == victim)
      killer = std::thread([] {
        nap(30 * 1000);
        board().ended_at = now_ns();
        kill(getpid(), SIGKILL);
      });
    uint8_t bytes[1000] = {}, all[CQIL_MAX_RANKS * 1000];
    Came came = {CQIL_EXCHANGE_OK, -1, ""};
    // Rank 0 has nothing to say before that, so the others sleep.
    while (broadcast && rank.rank == 0 && board().ended_at.load() == 0) nap(100);
    if (broadcast && rank.rank == 0 && victim == 0) killer.join();
    while (came.ok()) came = broadcast ? rank.broadcast(bytes, 1000) : rank.gather(bytes, all, 1000);
    if (killer.joinable()) killer.join();
    const double ms = static_cast<double>(now_ns() - board().ended_at.load()) / 1e6;
    if (came.status != CQIL_EXCHANGE_RANK_LOST || came.rank != victim) return told(came);
    const Came again = rank.gather(bytes, all, 1000);
    if (again.status != came.status || again.text != came.text) return "later: " + told(again);
    std::printf("  rank %d: \"%s\" %.1f ms after it was killed\n", rank.rank, came.text.c_str(), ms);
    std::fflush(stdout);
    return "";
  });
  for (int r = 0; r < size; r++)
    CHECK(wrong[static_cast<size_t>(r)] == (r == victim ? kKilled : ""),
          what + ": rank " + std::to_string(victim) + " of " + std::to_string(size) + " killed in a " +
              (broadcast ? "broadcast" : "gather") + ", rank " + std::to_string(r));
}

// One of two ranks is stopped: the other waits for as long as it was told, and says for whom it waited.
inline void test_stopped(const Made& made, const std::string& what, bool broadcast) {
  const int victim = broadcast ? 0 : 1;
  const std::vector<std::string> wrong = run_processes(made, 2, [=](Rank& rank) -> std::string {
    uint8_t mine = 1, all[CQIL_MAX_RANKS];
    Came came = rank.gather(&mine, all, 1);
    if (rank.rank == victim) {
      board().pid = getpid();
      raise(SIGSTOP);
      return "went on";
    }
    while (board().pid.load() == 0) nap(100);
    if (came.ok())
      came = broadcast ? rank.broadcast(&mine, 1, 300 * kMillisecond) : rank.gather(&mine, all, 1, 300 * kMillisecond);
    kill(board().pid.load(), SIGKILL);
    const bool right = came.status == CQIL_EXCHANGE_RANK_LOST && came.rank == victim &&
                       came.text.find("has not answered for 0.3 s") != std::string::npos;
    return right ? "" : told(came);
  });
  CHECK(wrong[static_cast<size_t>(victim)] == kKilled, what + ": the stopped rank");
  CHECK(wrong[static_cast<size_t>(1 - victim)] == "", what + ": who waited for it");
}

// A rank that waits for a broadcast leaves the processor to others.
inline void test_waiting(const Made& made, const std::string& what) {
  all_right(run_processes(made, 2,
                          [&](Rank& rank) -> std::string {
                            auto processor_ms = [] {
                              rusage its = {};
                              getrusage(RUSAGE_SELF, &its);
                              const auto ms = [](const timeval& t) { return t.tv_sec * 1000.0 + t.tv_usec / 1000.0; };
                              return ms(its.ru_utime) + ms(its.ru_stime);
                            };
                            if (rank.rank == 0) nap(1000 * 1000);
                            const double used = processor_ms();
                            const int64_t begin = now_ns();
                            uint8_t byte = 0;
                            const Came came = rank.broadcast(&byte, 1);
                            const double waited = static_cast<double>(now_ns() - begin) / 1e6;
                            const double its = processor_ms() - used;
                            if (rank.rank == 0 || !came.ok()) return came.ok() ? "" : told(came);
                            std::printf("  %s: %.1f ms of processor time in %.0f ms of waiting\n", what.c_str(), its,
                                        waited);
                            std::fflush(stdout);
                            // It may have come late, and not waited at all.
                            return its < 100 ? "" : std::to_string(its) + " ms of processor time";
                          }),
            what + ": waiting for a broadcast");
}

inline int entries_of(const char* folder, const char* containing) {
  int count = 0;
  if (DIR* its = opendir(folder)) {
    while (const dirent* entry = readdir(its)) count += std::strstr(entry->d_name, containing) != nullptr;
    closedir(its);
  }
  return count;
}

inline int mappings_with(const char* text) {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find(text) != std::string::npos;
  return count;
}

// Ends are opened and closed again and again: no descriptor, shared memory, thread or process stays.
inline void test_nothing_stays(const Made& made, const std::string& what, int cycles) {
  const int shared = entries_of("/dev/shm", "");
  all_right(run_processes(3,
                          [&](int rank) -> std::string {
                            auto one = [&](int round) {
                              return run_rank(made, rank, 3, round,
                                              [&](Rank& its) { return gather_bytes(its, round, 1153, false); });
                            };
                            std::string wrong = one(1);
                            const int before = entries_of("/proc/self/fd", "");
                            const int threads = entries_of("/proc/self/task", "");
                            for (int round = 2; round <= cycles && wrong.empty(); round++) {
                              // All wait here, so that none looks for an address that the next round replaces.
                              board().events++;
                              await_events(3 * (round - 1));
                              wrong = one(round);
                            }
                            const int after = entries_of("/proc/self/fd", "");
                            if (wrong.empty() && after != before)
                              return std::to_string(before) + " descriptors, then " + std::to_string(after);
                            if (wrong.empty() && mappings_with("cqil-exchange") > 0) return "memory is still mapped";
                            if (wrong.empty() && entries_of("/proc/self/task", "") != threads) return "a thread stays";
                            return wrong;
                          }),
            what + ": " + std::to_string(cycles) + " times opened and closed");
  CHECK(entries_of("/dev/shm", "") == shared, what + ": nothing stays in /dev/shm");
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1, what + ": no process stays");
}

// Everything that can happen to processes, with any exchange between them.
inline void test_processes(const Made& made, const std::string& what) {
  for (const bool broadcast : {false, true}) {
    for (const int size : {2, 4})
      for (const int victim : {0, 1}) test_killed(made, what, size, victim, broadcast);
    test_stopped(made, what, broadcast);
  }
  test_waiting(made, what);
  test_nothing_stays(made, what, 100);
}
