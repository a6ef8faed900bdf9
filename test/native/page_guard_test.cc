// A mapped file that is cut short while it is read, and every SIGBUS that is not about that.
#include "core/page_guard.h"

#include <cstdio>

#include "check.h"

#ifdef _WIN32
int main() { return check::report("page_guard"); }
#else
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

using cqil::PageGuard;

namespace {

const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));

// Four pages of ones in a file of which one page is left.
struct CutFile {
  const volatile uint8_t* data;
  CutFile() {
    const char* path = "page_guard_test.bin";
    const int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    const std::vector<uint8_t> ones(4 * page, 1);
    CHECK(write(file, ones.data(), ones.size()) == static_cast<ssize_t>(ones.size()), "the file is written");
    data = static_cast<const uint8_t*>(mmap(nullptr, 4 * page, PROT_READ, MAP_PRIVATE, file, 0));
    CHECK(ftruncate(file, static_cast<off_t>(page)) == 0, "the file is cut");
    close(file);
    std::remove(path);
  }
  ~CutFile() { munmap(const_cast<uint8_t*>(data), 4 * page); }
  const void* at() const { return const_cast<const uint8_t*>(data); }
};

void test_zeros() {
  const CutFile cut, other;
  const PageGuard guard(cut.at(), 4 * page), sound(other.at(), 4 * page);
  CHECK(!guard.failed(), "nothing has failed yet");
  CHECK(cut.data[2 * page + 5] == 0 && guard.failed(), "a page that is gone is zero, and told of");
  CHECK(cut.data[3 * page] == 0 && cut.data[page] == 0 && cut.data[4 * page - 1] == 0, "and so are the others");
  CHECK(cut.data[0] == 1 && cut.data[page - 1] == 1, "what is there is still there");
  CHECK(!sound.failed() && other.data[0] == 1, "another mapping has not failed");
}

sigjmp_buf back;
volatile sig_atomic_t handled = 0;
void jump(int, siginfo_t*, void*) {
  handled = handled + 1;
  siglongjmp(back, 1);
}
bool faults(const CutFile& file) {
  if (sigsetjmp(back, 1) != 0) return true;
  return file.data[2 * page] > 1;
}

// What a SIGBUS does in mappings that nobody guards, and when nothing is guarded any more.
void test_earlier_handler() {
  struct sigaction earlier = {}, before, now;
  earlier.sa_sigaction = jump;
  earlier.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &earlier, &before);
  {
    const CutFile ours, theirs;
    const PageGuard guard(ours.at(), 4 * page);
    CHECK(faults(theirs) && handled == 1, "a mapping that is not guarded: the earlier handler");
    CHECK(!faults(ours) && handled == 1 && guard.failed(), "one that is guarded: not");
    if (sigsetjmp(back, 1) == 0) raise(SIGBUS);
    CHECK(handled == 2, "a signal that was sent: the earlier handler");
  }
  sigaction(SIGBUS, nullptr, &now);
  CHECK(now.sa_sigaction == jump, "the earlier handler is back");
  sigaction(SIGBUS, &before, nullptr);
}

// Runs body in a process of its own, with a guarded mapping; gives the signal that ended it, or 0.
int signal_that_ends(const std::function<void()>& body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const CutFile ours;
    const PageGuard guard(ours.at(), 4 * page);
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void test_without_handler() {
  CHECK(signal_that_ends([] {
          CutFile theirs;
          (void)theirs.data[2 * page];
        }) == SIGBUS,
        "a mapping that is not guarded ends the process");
  CHECK(signal_that_ends([] { raise(SIGBUS); }) == SIGBUS, "a signal that was sent ends the process");
  signal(SIGBUS, SIG_IGN);
  CHECK(signal_that_ends([] { raise(SIGBUS); }) == 0, "one that is ignored does not");
  CHECK(signal_that_ends([] {
          CutFile theirs;
          (void)theirs.data[2 * page];
        }) == SIGBUS,
        "an access that cannot be made ends it all the same");
  signal(SIGBUS, SIG_DFL);
}

}  // namespace

int main() {
  test_zeros();
  test_earlier_handler();
  test_without_handler();
  return check::report("page_guard");
}
#endif
