// Two hosts, which are network namespaces with a cable (veth) between them: delay and loss only cost time, and once the
// cable is pulled, both sides hear that the other is lost, whether they have sent something or only wait. Skipped where
// a process may not make network namespaces. Linux only.
#include <fcntl.h>
#include <sched.h>

#include "exchange_process.h"

namespace {

const uint8_t kToken[16] = {9, 8, 7};

bool run(const std::string& command) { return std::system((command + " 2>/dev/null").c_str()) == 0; }

bool write_file(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  const bool written = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) close(fd);
  return written;
}

// Gives this process a network of its own; the reason why not, or nothing.
std::string leave_network() {
  if (!run("ip -V > /dev/null")) return "the ip tool is not installed";
  const std::string user = std::to_string(geteuid()), group = std::to_string(getegid());
  const bool root = geteuid() == 0;
  if (unshare(CLONE_NEWNET | (root ? 0 : CLONE_NEWUSER)) != 0) return "network namespaces are not allowed";
  if (!root && (!write_file("/proc/self/setgroups", "deny") || !write_file("/proc/self/uid_map", "0 " + user + " 1") ||
                !write_file("/proc/self/gid_map", "0 " + group + " 1")))
    return "network namespaces are not allowed";
  return run("ip link set lo up") && run("ip link add one type veth peer name two")
             ? ""
             : "network namespaces are not allowed";
}

// Rank 1 moves to a network of its own, at the other end of the cable.
std::string move_to_other_host() {
  if (unshare(CLONE_NEWNET) != 0) return "no second network";
  board().pid = getpid();
  await_events(1);
  return run("ip addr add 10.213.0.2/24 dev two") && run("ip link set two up") ? "" : "the cable's other end";
}

std::string lay_cable() {
  while (board().pid.load() == 0) nap(1000);
  if (!run("ip link set two netns " + std::to_string(board().pid.load()))) return "the cable";
  board().events++;
  return run("ip addr add 10.213.0.1/24 dev one") && run("ip link set one up") ? "" : "the cable's end";
}

std::string rank_on_host(int rank, const std::string& cut) {
  const std::string wrong = rank == 0 ? lay_cable() : move_to_other_host();
  if (!wrong.empty()) return wrong;
  Made made = {cqil::tcp_exchange(), "one:0", kToken};
  return run_rank(made, rank, 2, 1, [&](Rank& its) -> std::string {
    for (int turn = 0; turn < 20; turn++) {
      const std::string wrong_bytes = gather_bytes(its, turn, turn * 10000, false);
      if (!wrong_bytes.empty()) return wrong_bytes;
    }
    // Slower and lossy, where the kernel can do so.
    if (rank == 0 && run("tc qdisc add dev one root netem delay 2ms loss 1%"))
      std::printf("  with 2 ms of delay and 1 %% loss\n");
    for (int turn = 20; turn < 60; turn++) {
      const std::string wrong_bytes = gather_bytes(its, turn, turn * 100, false);
      if (!wrong_bytes.empty()) return wrong_bytes;
    }
    uint8_t mine = 1, all[2];
    if (rank == 0) {
      if (!run(cut)) return "the cable stays";
      board().ended_at = now_ns();
    } else {
      while (board().ended_at.load() == 0) nap(1000);
    }
    // Rank 0 has sent something that nobody acknowledges, rank 1 nothing.
    const Came came = rank == 0 ? its.gather(&mine, all, 1) : its.broadcast(&mine, 1);
    std::printf("  rank %d: \"%s\" after %.1f s\n", rank, came.text.c_str(),
                static_cast<double>(now_ns() - board().ended_at.load()) / 1e9);
    std::fflush(stdout);
    // Where one direction still works, one may hear from the other which of them cannot be reached.
    return came.status == CQIL_EXCHANGE_RANK_LOST && came.rank >= 0 ? "" : told(came);
  });
}

}  // namespace

int main() {
  // First the cable is pulled. The second time packets go nowhere, and nobody is told so.
  for (const char* cut : {"ip link set one down", "ip neigh replace 10.213.0.2 lladdr 02:00:00:00:00:01 dev one"}) {
    const std::vector<std::string> found = run_processes(1, [&](int) -> std::string {
      const std::string reason = leave_network();
      if (!reason.empty()) return "skipped: two hosts: " + reason + "\n";
      all_right(run_processes(2, [&](int rank) { return rank_on_host(rank, cut); }), cut);
      return check::failed > 0 ? "see above" : "";
    });
    if (found[0].rfind("skipped: ", 0) == 0) {
      std::printf("%s", found[0].c_str());
      return 77;
    }
    all_right(found, cut);
  }
  return check::report("exchange_hosts");
}
