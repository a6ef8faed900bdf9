# What every user gets: the addon with the CPU backend, from a C++17 compiler alone.
{
  "includes": ["native/sources.gypi"],
  "target_defaults": {
    "cflags": ["-O3", "-Wall", "-Wextra", "-ffp-contract=off", "-fvisibility=hidden"],
    "cflags_cc": ["-std=c++17"],
    "cflags!": ["-fno-exceptions"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
    "defines": ["NAPI_VERSION=8"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
      "CLANG_CXX_LIBRARY": "libc++",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "11.0",
      "OTHER_CFLAGS": ["-O3", "-ffp-contract=off"]
    },
    "msvs_settings": {
      "VCCLCompilerTool": { "ExceptionHandling": 1, "AdditionalOptions": ["/std:c++17", "/fp:precise", "/utf-8"] }
    }
  },
  "targets": [
    {
      "target_name": "cqil",
      "sources": ["<@(cqil_addon_sources)", "<@(cqil_sources)"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_CPP_EXCEPTIONS",
        # A worker thread may end with work in flight; the result is then dropped, not the process.
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        # Electron keeps array buffers inside V8's memory.
        "NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED"
      ],
      "conditions": [
        ["target_arch=='x64'", { "dependencies": ["cqil_avx2", "cqil_avx512"] }],
        ["target_arch=='arm64'", { "sources": ["<@(cqil_neon_sources)"] }]
      ]
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          # Built apart because their instructions must not reach code that runs before dispatch.
          "target_name": "cqil_avx2",
          "type": "static_library",
          "sources": ["<@(cqil_avx2_sources)"],
          "cflags": ["-mavx2", "-mfma", "-mf16c"],
          "xcode_settings": { "OTHER_CFLAGS": ["-mavx2", "-mfma", "-mf16c"] },
          "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX2"] } }
        },
        {
          "target_name": "cqil_avx512",
          "type": "static_library",
          "sources": ["<@(cqil_avx512_sources)"],
          "cflags": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"],
          "xcode_settings": { "OTHER_CFLAGS": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"] },
          "msvs_settings": { "VCCLCompilerTool": { "AdditionalOptions": ["/arch:AVX512"] } }
        }
      ]
    }]
  ]
}
