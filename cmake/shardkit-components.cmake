# The optional parts of shardkit: each is a target shardkit::<component> that brings the library it stands on.
# Used by the build tree and, unchanged, by the installed package.

set(shardkit_all_components mpi cblas checkpoint)

# shardkit_define_component(<component> <missing> [GLOBAL])
#
# Makes the target shardkit::<component> and sets <missing> to nothing, or sets it to what lacks and what to do.
# With GLOBAL the whole project sees the target, not only this directory and those below.
function(shardkit_define_component component missing)
  set(remedy "")
  set(links "")
  set(definitions "")
  if(TARGET shardkit::${component})
    set(${missing} "" PARENT_SCOPE)
    return()
  elseif(component STREQUAL "mpi")
    string(CONCAT remedy "no MPI was found; install one with its headers (Debian: libopenmpi-dev openmpi-bin, or libmpich-dev "
      "mpich; set MPI_EXECUTABLE_SUFFIX=.mpich to choose where both are installed)")
    # The C library by preference: the C++ one, where it still exists, adds bindings that left MPI in 2012. Without
    # the language C, CMake finds only the C++ one; the definitions below keep its bindings out.
    get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if("C" IN_LIST languages AND NOT TARGET MPI::MPI_C)
      find_package(MPI QUIET COMPONENTS C)
    endif()
    if(NOT TARGET MPI::MPI_C AND NOT TARGET MPI::MPI_CXX)
      find_package(MPI QUIET COMPONENTS CXX)
    endif()
    foreach(target MPI::MPI_C MPI::MPI_CXX)
      if(TARGET ${target} AND NOT links)
        set(links ${target})
      endif()
    endforeach()
    set(definitions OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  elseif(component STREQUAL "cblas")
    string(CONCAT remedy "no BLAS with cblas.h was found; install one (Debian: libopenblas-dev), or set CBLAS_INCLUDE_DIR and "
      "CBLAS_LIBRARY")
    list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_FUNCTION_LIST_DIR}")
    find_package(CBLAS QUIET)
    if(TARGET CBLAS::CBLAS)
      set(links CBLAS::CBLAS)
    endif()
  elseif(component STREQUAL "checkpoint")
    string(CONCAT remedy "nlohmann_json 3.9 or newer was not found; install it (Debian: nlohmann-json3-dev), or set "
      "nlohmann_json_DIR")
    if(NOT TARGET nlohmann_json::nlohmann_json)
      find_package(nlohmann_json 3.9 QUIET CONFIG)
    endif()
    if(TARGET nlohmann_json::nlohmann_json)
      set(links nlohmann_json::nlohmann_json)
    endif()
  else()
    list(JOIN shardkit_all_components ", " known)
    set(remedy "shardkit has no such component; it has ${known}")
  endif()

  if(NOT links)
    set(${missing} "${remedy}" PARENT_SCOPE)
    return()
  endif()
  add_library(shardkit::${component} INTERFACE IMPORTED ${ARGN})
  target_link_libraries(shardkit::${component} INTERFACE shardkit::shardkit ${links})
  target_compile_definitions(shardkit::${component} INTERFACE ${definitions})
  set(${missing} "" PARENT_SCOPE)
endfunction()
