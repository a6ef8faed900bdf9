// Ranks that are threads of one process: the turns and slots of shm over plain memory. It works wherever C++ runs, and
// under ThreadSanitizer, which sees only what happens within a process.
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>

#include "exchanges.h"
#include "slots.h"

namespace cqil {
namespace {

struct FreeTable {
  void operator()(Table* table) const { ::operator delete(table, std::align_val_t(alignof(Table))); }
};

// What the ranks share.
struct Hub {
  Hub(int size, int64_t slot_bytes) : bytes(table_bytes(size, slot_bytes)) {
    table.reset(static_cast<Table*>(::operator new(static_cast<size_t>(bytes), std::align_val_t(alignof(Table)))));
    make_table(table.get(), size, slot_bytes, 0);
  }
  const int64_t bytes;
  std::unique_ptr<Table, FreeTable> table;
  std::mutex mutex;
  std::condition_variable rung;
};

// Hubs whose ranks have not all come, by the number in their address.
std::mutex hubs_mutex;
std::map<std::string, std::weak_ptr<Hub>>& hubs() {
  static std::map<std::string, std::weak_ptr<Hub>> all;
  return all;
}

class MemoryEnd final : public SlotsEnd {
 public:
  explicit MemoryEnd(const cqil_exchange_options& options) : SlotsEnd(options.rank, options.size) {
    std::lock_guard<std::mutex> lock(hubs_mutex);
    if (rank == 0) {
      static uint64_t made = 0;
      hub_ = std::make_shared<Hub>(size, checked_slot_bytes(options.slot_bytes));
      address_ = "memory:" + std::to_string(++made);
      hubs()[address_] = hub_;
    } else {
      address_ = options.address;
      const auto found = hubs().find(address_);
      if (found != hubs().end()) hub_ = found->second.lock();
      if (!hub_) throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, 0, "No rank 0 waits for others at " + address_ + "."};
    }
    check_table(hub_->table.get(), hub_->bytes, rank, size);
    sit(hub_->table.get(), 0);
  }
  ~MemoryEnd() override {
    leave();
    forget();
  }
  void describe(cqil_exchange_state& state) noexcept override { copy_text(state.address, address_); }

 protected:
  void sleep(std::atomic<uint32_t>& bell, uint32_t seen, std::chrono::nanoseconds at_most) override {
    std::unique_lock<std::mutex> lock(hub_->mutex);
    hub_->rung.wait_for(lock, at_most, [&] { return bell.load(std::memory_order_seq_cst) != seen; });
  }
  void wake(std::atomic<uint32_t>&) noexcept override {
    {
      std::lock_guard<std::mutex> lock(hub_->mutex);
    }
    hub_->rung.notify_all();
  }
  void all_came() override { forget(); }
  bool ended(int) override { return false; }  // a thread does not end by itself
  std::string name(int of) const override { return "Rank " + std::to_string(of); }

 private:
  void forget() {
    if (rank != 0) return;
    std::lock_guard<std::mutex> lock(hubs_mutex);
    hubs().erase(address_);
  }

  std::shared_ptr<Hub> hub_;
  std::string address_;
};

std::unique_ptr<cqil_exchange_end> create(const cqil_exchange_options& options) {
  return std::make_unique<MemoryEnd>(options);
}

}  // namespace

const cqil_exchange* memory_exchange() {
  static const cqil_exchange table = exchange_table<create>("memory");
  return &table;
}

}  // namespace cqil
