{
  "variables": {
    "cqil_sources": [
      "native/core/adapter.cc",
      "native/core/ahead.cc",
      "native/core/execution_tuner.cc",
      "native/core/model.cc",
      "native/core/page_guard.cc",
      "native/core/program.cc",
      "native/core/random_weights.cc",
      "native/core/row_codec.cc",
      "native/core/schedule.cc",
      "native/core/session.cc",
      "native/core/shared_library.cc",
      "native/core/weights.cc",
      "native/core/weights_file.cc",
      "native/backend/registry.cc",
      "native/cpu/bandwidth.cc",
      "native/cpu/buffer.cc",
      "native/cpu/cpu_backend.cc",
      "native/cpu/runner.cc",
      "native/cpu/interleaved.cc",
      "native/cpu/phase_products.cc",
      "native/cpu/phases.cc",
      "native/cpu/session.cc",
      "native/cpu/shortlist.cc",
      "native/cpu/team.cc",
      "native/cpu/kernels/targets/dispatch.cc",
      "native/cpu/kernels/simd/half_table.cc",
      "native/cpu/kernels/targets/int8_plain.cc",
      "native/cpu/kernels/targets/kernels_plain.cc"
    ],
    "cqil_avx2_sources": [
      "native/cpu/kernels/targets/int8_avx2.cc",
      "native/cpu/kernels/targets/int8_avxvnni.cc",
      "native/cpu/kernels/targets/kernels_avx2.cc"
    ],
    "cqil_avx512_sources": [
      "native/cpu/kernels/targets/bf16_avx512bf16.cc",
      "native/cpu/kernels/targets/int8_avx512vnni.cc",
      "native/cpu/kernels/targets/kernels_avx512.cc"
    ],
    "cqil_neon_sources": [
      "native/cpu/kernels/targets/int8_dotprod.cc",
      "native/cpu/kernels/targets/int8_neon.cc",
      "native/cpu/kernels/targets/kernels_neon.cc"
    ],
    "cqil_cuda_sources": [
      "native/core/shared_library.cc",
      "native/cuda/backend.cc",
      "native/cuda/cublas_lt.cc",
      "native/cuda/device.cc",
      "native/cuda/failure.cc",
      "native/cuda/forward.cc",
      "native/cuda/graph.cc",
      "native/cuda/products.cc",
      "native/cuda/session.cc",
      "native/cuda/walk.cc",
      "native/cuda/weights.cc",
      "native/cuda/kernels/matmul.cu",
      "native/cuda/pack.cc",
      "native/cuda/kernels/persistent.cu",
      "native/cuda/kernels/phases.cu",
      "native/cuda/kernels/prefill.cu",
      "native/cuda/kernels/prefill_attention.cu",
      "native/cuda/session_layout.cc"
    ],
    "cqil_addon_sources": [
      "native/addon/addon.cc",
      "native/addon/ahead_task.cc",
      "native/addon/convert.cc",
      "native/addon/machine.cc",
      "native/addon/model_calls.cc",
      "native/addon/session_calls.cc"
    ]
  }
}
