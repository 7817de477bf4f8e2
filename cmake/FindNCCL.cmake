# Finds NCCL, NVIDIA's collectives between GPUs: the target NCCL::nccl, and NCCL_VERSION, read from its header.
#
# Asked in this order: a CMake package of NCCL's own, which newer installations bring; NCCL_INCLUDE_DIR and
# NCCL_LIBRARY; below NCCL_ROOT (a CMake or an environment variable); beside the CUDA toolkit; in the system's folders.

if(TARGET NCCL::nccl)
  # A package of NCCL's own, or the surrounding project, has made it.
  set(NCCL_FOUND TRUE)
  return()
endif()
find_package(NCCL QUIET CONFIG)
if(TARGET NCCL::nccl)
  set(NCCL_FOUND TRUE)
  return()
endif()

find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS /usr/local/cuda PATH_SUFFIXES include)
# Header and library are to be of one installation: each folder is asked for both names of the library before the next.
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 NAMES_PER_DIR
  HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT} PATHS /usr/local/cuda
  PATH_SUFFIXES lib64 lib lib/x86_64-linux-gnu lib/aarch64-linux-gnu)
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)

set(NCCL_VERSION "")
if(NCCL_INCLUDE_DIR)
  file(STRINGS "${NCCL_INCLUDE_DIR}/nccl.h" NCCL_version_lines REGEX "#define NCCL_(MAJOR|MINOR|PATCH) +[0-9]+")
  foreach(NCCL_part MAJOR MINOR PATCH)
    if(NCCL_version_lines MATCHES "#define NCCL_${NCCL_part} +([0-9]+)")
      list(APPEND NCCL_VERSION ${CMAKE_MATCH_1})
    endif()
  endforeach()
  list(JOIN NCCL_VERSION "." NCCL_VERSION)
  unset(NCCL_version_lines)
  unset(NCCL_part)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL
  REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR VERSION_VAR NCCL_VERSION)
if(NCCL_FOUND)
  add_library(NCCL::nccl UNKNOWN IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES
    IMPORTED_LOCATION "${NCCL_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR}")
endif()
