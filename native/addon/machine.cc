// What this machine has, as far as Node does not know it.
#include <napi.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "../registry/registry.h"
#include "../cpu/bandwidth.h"
#include "../cpu/kernels/kernels.h"
#include "call.h"
#include "calls.h"

#ifdef __linux__
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace cqil {
namespace {

// Physical cores this process may use: hyperthreads of one core share its arithmetic, so counting both only adds
// waiting.
int usable_cores() {
  int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::set<std::string> siblings;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      std::string list = "cpu" + std::to_string(cpu);
      std::ifstream topology("/sys/devices/system/cpu/" + list + "/topology/thread_siblings_list");
      std::getline(topology, list);
      siblings.insert(list);
    }
    if (!siblings.empty()) cores = static_cast<int>(siblings.size());
  }
  // A container's quota, in microseconds of processor per period; "max" when there is none.
  std::ifstream limit("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (limit >> quota >> period && quota > 0 && period > 0)
    cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota / period))));
#elif defined(__APPLE__)
  int physical = 0;
  size_t size = sizeof physical;
  if (sysctlbyname("hw.physicalcpu", &physical, &size, nullptr, 0) == 0 && physical > 0) cores = physical;
#endif
  return cores;
}

Napi::Value write_limits(Napi::Env env, const cqil_limits& limits) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("aloneBytes", static_cast<double>(limits.alone_bytes));
  out.Set("queriesTogether", limits.queries_together);
  out.Set("stopsAtStage", limits.stops_at_stage != 0);
  out.Set("rowsTogether", limits.rows_together);
  return out;
}

}  // namespace

Napi::Value describe_machine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&]() -> Napi::Value {
    Napi::Object machine = Napi::Object::New(env);
    machine.Set("cores", usable_cores());
    const IsaList list = isa_list();
    Napi::Array isas = Napi::Array::New(env);
    for (int i = 0; i < list.count; i++) {
      Napi::Object isa = Napi::Object::New(env);
      isa.Set("name", list.items[i].name);
      isa.Set("supported", list.items[i].supported);
      isas.Set(static_cast<uint32_t>(i), isa);
    }
    machine.Set("isas", isas);
    machine.Set("isa", best_isa().name);
    machine.Set("bf16Products", multiplies_bf16(best_isa()));
    machine.Set("limits", write_limits(env, find_backend("cpu").limits));
    return machine;
  });
}

Napi::Value describe_cuda_call(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    return Task<CudaState>::start(env, describe_cuda, [](Napi::Env env, CudaState state) -> Napi::Value {
      Napi::Array devices = Napi::Array::New(env, state.devices.size());
      for (uint32_t i = 0; i < state.devices.size(); i++) {
        const cqil_device& from = state.devices[i];
        Napi::Object device = Napi::Object::New(env);
        device.Set("name", from.name);
        device.Set("capability", std::to_string(from.capability_major) + "." + std::to_string(from.capability_minor));
        device.Set("multiprocessors", from.multiprocessors);
        device.Set("memoryBytes", static_cast<double>(from.memory_bytes));
        devices.Set(i, device);
      }
      Napi::Object cuda = Napi::Object::New(env);
      cuda.Set("available", state.reason.empty());
      cuda.Set("reason", state.reason);
      cuda.Set("library", state.library);
      cuda.Set("devices", devices);
      if (state.reason.empty()) cuda.Set("limits", write_limits(env, find_backend("cuda").limits));
      return cuda;
    });
  });
}

Napi::Value measure_bandwidth(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return call(env, [&] {
    const int threads = info[0].ToNumber().Int32Value();
    const int64_t bytes = info[1].ToNumber().Int64Value();
    if (threads < 1 || threads > 1024 || bytes < 1 || bytes > int64_t{1} << 34)
      throw Error("INVALID_ARGUMENT", "Bandwidth is measured with 1 to 1024 threads over 1 byte to 16 GiB each.");
    return Task<double>::start(
        env, [=] { return measure_read_bandwidth(threads, static_cast<uint64_t>(bytes)); },
        [](Napi::Env env, double value) { return Napi::Number::New(env, value); });
  });
}

}  // namespace cqil
