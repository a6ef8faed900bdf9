# The CUDA backend: a shared library of its own with -DCQIL_CUDA=ON, which needs nvcc; and, without any toolkit, the same sources
# over an emulated device, for the native tests. The thread sanitizer does not know the emulator's fibers.
cqil_sources(cqil_cuda_sources cuda_sources)

if(CQIL_CUDA)
  # The architectures are given below, for each kind of code; CMake is to add none of its own.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # Objects, so that the benchmark can time what the library keeps to itself.
  add_library(cqil_cuda_objects OBJECT ${cuda_sources})
  target_include_directories(cqil_cuda_objects SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
  set_target_properties(cqil_cuda_objects PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden)
  add_library(cqil_cuda MODULE $<TARGET_OBJECTS:cqil_cuda_objects>)
  set_target_properties(cqil_cuda PROPERTIES LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY $<1:${CMAKE_BINARY_DIR}>)
  target_link_libraries(cqil_cuda PRIVATE CUDA::cudart_static)
  # Machine code for Ampere and Hopper, and PTX that the driver compiles for what came later. Registers spilled to memory are a
  # warning, and a warning is an error.
  set(cuda_options
    "SHELL:-gencode arch=compute_80,code=sm_80" "SHELL:-gencode arch=compute_90a,code=sm_90a"
    "SHELL:-gencode arch=compute_90,code=compute_90" "SHELL:-Werror all-warnings" "SHELL:-Xptxas -warn-spills")
  target_compile_options(cqil_cuda_objects PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
  if(MSVC)
    target_compile_options(cqil_cuda_objects PRIVATE $<$<COMPILE_LANGUAGE:CXX>:/W4 /WX /utf-8>)
  else()
    target_compile_options(cqil_cuda_objects PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror>)
    # Another engine in the process may bring a CUDA runtime of its own: this one is seen by nobody.
    target_link_options(cqil_cuda PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/native/cuda/exports.map)
    set_target_properties(cqil_cuda PROPERTIES LINK_DEPENDS ${CMAKE_SOURCE_DIR}/native/cuda/exports.map)
  endif()
elseif(UNIX AND EXISTS ${CMAKE_SOURCE_DIR}/test/native/cuda_emulator.h AND NOT CQIL_SANITIZE STREQUAL "thread")
  add_library(cqil_cuda_emulated STATIC ${cuda_sources} test/native/cuda_emulated_device.cc
              test/native/cuda_emulated_runtime.cc)
  set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
  foreach(file ${cuda_sources})
    if(file MATCHES "\\.cu$")
      set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "-x;c++")
    endif()
  endforeach()
  target_include_directories(cqil_cuda_emulated PUBLIC native test/native)
  target_compile_definitions(cqil_cuda_emulated PUBLIC CQIL_CUDA_EMULATOR)
  # A kernel loads and uses its registers under the same condition in two loops, which GCC does not see.
  target_compile_options(cqil_cuda_emulated PRIVATE -O2 $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_libraries(cqil_cuda_emulated PUBLIC cqil_core)
endif()
