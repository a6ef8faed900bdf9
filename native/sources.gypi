{
  "variables": {
    "cqil_sources": [
      "native/core/mapped_file.cc",
      "native/core/model.cc",
      "native/core/program.cc",
      "native/core/random_weights.cc",
      "native/core/session.cc",
      "native/core/weights.cc",
      "native/backend/registry.cc",
      "native/cpu/bandwidth.cc",
      "native/cpu/cpu_backend.cc",
      "native/cpu/forward.cc",
      "native/cpu/phases.cc",
      "native/cpu/session.cc",
      "native/cpu/team.cc",
      "native/cpu/kernels/dispatch.cc",
      "native/cpu/kernels/half_table.cc",
      "native/cpu/kernels/kernels_plain.cc"
    ],
    "cqil_avx2_sources": [
      "native/cpu/kernels/kernels_avx2.cc"
    ],
    "cqil_avx512_sources": [
      "native/cpu/kernels/kernels_avx512.cc"
    ],
    "cqil_neon_sources": [
      "native/cpu/kernels/kernels_neon.cc"
    ],
    "cqil_addon_sources": [
      "native/addon/addon.cc",
      "native/addon/convert.cc",
      "native/addon/machine.cc",
      "native/addon/model_calls.cc",
      "native/addon/session_calls.cc"
    ]
  }
}
