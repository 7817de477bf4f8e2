# The library behind the component cuda_double: CUDA, NCCL and cuBLASLt on the CPU, for tests on machines without a GPU.
# It is compiled in the project that uses it, from its sources: beside this file where it is installed, else in tests/.

# Makes the target shardkit_cuda_double with what the components cuda, nccl and cublaslt have found; cuda has to be there.
function(shardkit_add_cuda_double_library)
  set(folder "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/cuda_double/double")
  if(NOT EXISTS "${folder}")
    get_filename_component(folder "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../tests/double" ABSOLUTE)
  endif()
  set(headers "$<TARGET_PROPERTY:CUDA::cudart,INTERFACE_INCLUDE_DIRECTORIES>")
  set(parts cuda)
  if(TARGET shardkit::nccl)
    list(APPEND parts nccl)
    list(APPEND headers "$<TARGET_PROPERTY:NCCL::nccl,INTERFACE_INCLUDE_DIRECTORIES>")
  endif()
  if(TARGET shardkit::cublaslt)
    list(APPEND parts cublaslt)
  endif()
  set(sources "")
  foreach(part IN LISTS parts)
    file(GLOB of_part CONFIGURE_DEPENDS "${folder}/${part}_*.cpp")
    list(APPEND sources ${of_part})
  endforeach()
  list(FILTER sources EXCLUDE REGEX "_absent.cpp$")

  add_library(shardkit_cuda_double SHARED ${sources})
  # Without instrumentation: ThreadSanitizer is to watch the program, not the double.
  foreach(options COMPILE_OPTIONS LINK_OPTIONS)
    get_target_property(kept shardkit_cuda_double ${options})
    if(kept)  # "kept-NOTFOUND" where there are none
      list(FILTER kept EXCLUDE REGEX "^-f(no-)?sanitize")
      set_target_properties(shardkit_cuda_double PROPERTIES ${options} "${kept}")
    endif()
  endforeach()
  target_compile_features(shardkit_cuda_double PRIVATE cxx_std_20)
  set_target_properties(shardkit_cuda_double PROPERTIES
    VISIBILITY_INLINES_HIDDEN ON LINK_DEPENDS "${folder}/exports.map")
  get_filename_component(include_folder "${folder}" DIRECTORY)
  target_include_directories(shardkit_cuda_double PUBLIC "${include_folder}")
  target_include_directories(shardkit_cuda_double SYSTEM PUBLIC ${headers})
  target_link_options(shardkit_cuda_double PRIVATE
    "LINKER:--version-script=${folder}/exports.map" "LINKER:-z,defs")
  target_link_libraries(shardkit_cuda_double PRIVATE Threads::Threads)
  target_precompile_headers(shardkit_cuda_double PRIVATE "${folder}/state.hpp")
endfunction()
