# nvcc without CMake's CUDA language, which would link the real runtime: SHARDKIT_NVCC, where there is one, and
#
#   shardkit_compile_with_nvcc(<source> <variable>)
#
# which sets <variable> to the object of a .cu file. The code for the GPU is of one architecture, which newer GPUs can
# take too.

find_program(SHARDKIT_NVCC nvcc HINTS "$ENV{CUDA_HOME}/bin" "$ENV{CUDA_PATH}/bin" /usr/local/cuda/bin)
mark_as_advanced(SHARDKIT_NVCC)

function(shardkit_compile_with_nvcc source object)
  get_filename_component(path "${source}" ABSOLUTE)
  string(REGEX REPLACE "[^A-Za-z0-9]" "_" name "${source}")
  set(output "${CMAKE_CURRENT_BINARY_DIR}/${name}.o")
  add_custom_command(OUTPUT "${output}" DEPENDS "${path}" DEPFILE "${output}.d" VERBATIM
    COMMAND "${SHARDKIT_NVCC}" -std=c++20 -O1 -arch=sm_80 -Werror all-warnings -Xcompiler -fPIC
      -I "${PROJECT_SOURCE_DIR}/include" -I "${PROJECT_SOURCE_DIR}/tests" -MD -MF "${output}.d" -c "${path}"
      -o "${output}")
  set(${object} "${output}" PARENT_SCOPE)
endfunction()
