// The table of the CUDA backend: exceptions end here, as a status and a sentence.
#include <algorithm>
#include <cstdio>
#include <new>
#include <vector>

#include "device.h"
#include "forward.h"
#include "model.h"
#include "workspace.h"

#ifdef _WIN32
#define CQIL_EXPORT __declspec(dllexport)
#else
#define CQIL_EXPORT __attribute__((visibility("default")))
#endif

namespace cqil::cuda {
namespace {

void say(cqil_error* error, const std::string& text) {
  std::snprintf(error->text, sizeof error->text, "%s", text.c_str());
}

template <class Body>
cqil_status guarded(cqil_error* error, Body body) {
  try {
    return body();
  } catch (const Failure& failure) {
    say(error, failure.what());
    return failure.status;
  } catch (const std::bad_alloc&) {
    say(error, "There is no memory for the host's side of the GPU.");
    return CQIL_OUT_OF_MEMORY;
  } catch (const std::exception& other) {
    say(error, other.what());
    return CQIL_INTERNAL;
  }
}

// Runs body on the model's device. Once that is lost, every call fails with what lost it.
template <class Body>
cqil_status on_device(Model& model, cqil_error* error, Body body) {
  return guarded(error, [&] {
    const std::string lost = model.lost();
    if (!lost.empty()) throw Failure(CQIL_BACKEND_UNAVAILABLE, lost);
    try {
      const DeviceScope scope(model.device.ordinal);
      return body();
    } catch (const Failure& failure) {
      if (failure.device_lost) model.lose(failure.what());
      throw;
    }
  });
}

Model& model_of(cqil_backend_model* model) { return *reinterpret_cast<Model*>(model); }
Workspace& workspace_of(cqil_backend_workspace* workspace) { return *reinterpret_cast<Workspace*>(workspace); }
Cache& cache_of(cqil_backend_cache* cache) { return *reinterpret_cast<Cache*>(cache); }

cqil_status list_devices(cqil_device* devices, int32_t capacity, int32_t* count, cqil_error* error) {
  *count = 0;
  return guarded(error, [&] {
    const std::vector<Device> usable = usable_devices();
    *count = static_cast<int32_t>(usable.size());
    for (int32_t i = 0; i < std::min(*count, capacity); i++) {
      const Device& from = usable[static_cast<size_t>(i)];
      devices[i] = {{}, from.capability_major, from.capability_minor, from.multiprocessors, from.memory_bytes};
      std::snprintf(devices[i].name, sizeof devices[i].name, "%s", from.name.c_str());
    }
    return CQIL_OK;
  });
}

cqil_status model_create(const cqil_weights* weights, const cqil_model_options* options, cqil_backend_model** out,
                         cqil_error* error) {
  return guarded(error, [&] {
    const std::vector<Device> devices = usable_devices();
    if (options->device < 0 || static_cast<size_t>(options->device) >= devices.size())
      throw Failure(CQIL_INVALID_ARGUMENT, "There is no CUDA device " + std::to_string(options->device) +
                                               "; expected 0 to " + std::to_string(devices.size() - 1) + ".");
    const Device& device = devices[static_cast<size_t>(options->device)];
    if (options->activations != CQIL_ACTIVATIONS_F32)
      throw Failure(CQIL_INVALID_ARGUMENT, "The cuda backend does not round activations; expected float32.");
    if (options->ranks)
      throw Failure(CQIL_BACKEND_UNAVAILABLE, "The cuda backend computes a model in one process; expected one rank.");
    const DeviceScope scope(device.ordinal);
    if (shared_plan(weights->shape, 1, device.shared_bytes).stage_floats == 0)
      throw Failure(CQIL_UNSUPPORTED_MODEL, "A vector of this model, of " + std::to_string(weights->shape.dim) +
                                                " values, or the selection from its " +
                                                std::to_string(weights->shape.vocab_size) +
                                                " logits, does not fit the " + std::to_string(device.shared_bytes) +
                                                " bytes of shared memory of " + device.name + ".");
    check(prepare_kernels(device.shared_bytes), "its kernels were loaded");
    const Model* base = options->base ? &model_of(options->base) : nullptr;
    *out = reinterpret_cast<cqil_backend_model*>(new Model(*weights, device, base));
    return CQIL_OK;
  });
}

uint32_t executions(const cqil_backend_model* model) {
  const Model& on = *reinterpret_cast<const Model*>(model);
  const bool persistent = on.device.cooperative && token_supported(on.weights.device());
  return 1u << CQIL_WIDE | 1u << CQIL_LANES | (persistent ? 1u << CQIL_PERSISTENT : 0u);
}

// Memory is freed on the device it belongs to; where that is lost, freeing fails and says nothing.
template <class T>
void destroy(T* object, int ordinal) {
  cqil_error ignored;
  guarded(&ignored, [&] {
    const DeviceScope scope(ordinal);
    delete object;
    object = nullptr;
    return CQIL_OK;
  });
  delete object;
}

int32_t threads(const cqil_backend_model*) { return 0; }

void model_destroy(cqil_backend_model* model) { destroy(&model_of(model), model_of(model).device.ordinal); }

cqil_status workspace_create(cqil_backend_model* model, const cqil_program* program, cqil_backend_workspace** out,
                             cqil_error* error) {
  return on_device(model_of(model), error, [&] {
    *out = reinterpret_cast<cqil_backend_workspace*>(new Workspace(model_of(model), *program));
    return CQIL_OK;
  });
}

void workspace_destroy(cqil_backend_workspace* workspace) {
  destroy(&workspace_of(workspace), workspace_of(workspace).model.device.ordinal);
}

cqil_status cache_create(cqil_backend_workspace* workspace, const cqil_cache_options* options, cqil_backend_cache** out,
                         cqil_error* error) {
  Model& model = workspace_of(workspace).model;
  return on_device(model, error, [&] {
    *out = reinterpret_cast<cqil_backend_cache*>(new Cache(model, *options));
    return CQIL_OK;
  });
}

void cache_destroy(cqil_backend_cache* cache) { destroy(&cache_of(cache), cache_of(cache).model.device.ordinal); }

cqil_status run_forward(cqil_backend_workspace* workspace, const cqil_forward* request, cqil_error* error) {
  Workspace& on = workspace_of(workspace);
  return on_device(on.model, error, [&] { return forward(on, *request); });
}

}  // namespace
}  // namespace cqil::cuda

extern "C" CQIL_EXPORT const cqil_backend* cqil_backend_entry() {
  using namespace cqil::cuda;
  static const cqil_backend table = {CQIL_BACKEND_ABI,
                                     "cuda",
                                     {0, 1, 0, CQIL_MAX_BATCH},
                                     list_devices,
                                     model_create,
                                     model_destroy,
                                     nullptr,
                                     executions,
                                     threads,
                                     workspace_create,
                                     workspace_destroy,
                                     cache_create,
                                     cache_destroy,
                                     run_forward};
  return &table;
}
