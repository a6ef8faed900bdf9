#include "cache.h"

namespace cqil::cuda {

Cache::Cache(Model& model, const cqil_cache_options& options) : model(model) {
  if (options.kv_dtype != CQIL_F32 && options.kv_dtype != CQIL_F16 && options.kv_dtype != CQIL_Q8_0)
    throw Failure(CQIL_INVALID_ARGUMENT, "The KV cache cannot be kept in dtype " +
                                             std::to_string(static_cast<int>(options.kv_dtype)) +
                                             "; expected F32, F16 or Q8_0.");
  const auto bytes = static_cast<size_t>(cache_bytes(model.shape, options.context_length, options.kv_dtype));
  const uint64_t free = free_bytes();
  if (bytes > free)
    throw Failure(CQIL_OUT_OF_MEMORY, "A session of " + std::to_string(options.context_length) + " positions takes " +
                                          megabytes(bytes) + " on the GPU for keys and values, and " + megabytes(free) +
                                          " are free; expected a shorter contextLength or a smaller kvCache.");
  memory_ = device_array<uint8_t>(bytes);
  // On a stream of its own: a workspace's may be computing or capturing meanwhile, for another thread.
  const Stream stream = make_stream();
  const char* const doing = "a cache was made";
  check(cudaMemsetAsync(memory_.get(), 0, bytes, stream.get()), doing);
  check(cudaStreamSynchronize(stream.get()), doing);
  device = bind_cache(model.shape, options.context_length, options.kv_dtype, memory_.get());
}

}  // namespace cqil::cuda
