// Work shared out to threads of the moment.
#pragma once
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace cqil {

// Calls work(part, first, end) for parts of [0, n), each on a thread of its own where the system gives one. work must
// not throw.
template <class Work>
void in_parts(int64_t n, int parts, Work work) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(parts));
  int own = parts - 1;  // of the parts from here on, this thread does all
  for (int part = 0; part < own; part++) {
    try {
      threads.emplace_back(work, part, n * part / parts, n * (part + 1) / parts);
    } catch (const std::exception&) {  // no thread to be had, or no memory for one
      own = part;
    }
  }
  for (int part = own; part < parts; part++) work(part, n * part / parts, n * (part + 1) / parts);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace cqil
