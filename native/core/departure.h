// Word that an object is gone, for those who must not go on before that, and cannot wait.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace cqil {

class Departure {
 public:
  // told() is called once the object is gone: at once, or by the thread that ends it. It must not throw.
  void when_gone(std::function<void()> told) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!gone_) return waiting_.push_back(std::move(told));
    }
    told();
  }
  void announce() {
    std::vector<std::function<void()>> waiting;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      gone_ = true;
      waiting.swap(waiting_);
    }
    for (const auto& told : waiting) told();
  }

 private:
  std::mutex mutex_;
  bool gone_ = false;
  std::vector<std::function<void()>> waiting_;
};

// Shares an object whose end is announced.
template <class T>
std::shared_ptr<T> share_until_gone(std::unique_ptr<T> object, const std::shared_ptr<Departure>& departure) {
  return std::shared_ptr<T>(object.release(), [departure](T* last) {
    delete last;
    departure->announce();
  });
}

}  // namespace cqil
