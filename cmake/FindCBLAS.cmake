# Finds a BLAS library with its C interface, cblas.h: the target CBLAS::CBLAS. OpenBLAS by preference, which holds
# both in one library; its pkg-config file tells where, since several builds of it may be installed side by side.
# Set CBLAS_INCLUDE_DIR and CBLAS_LIBRARY to choose another.

find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_search_module(CBLAS_HINT QUIET openblas cblas)
endif()
find_path(CBLAS_INCLUDE_DIR cblas.h HINTS ${CBLAS_HINT_INCLUDE_DIRS} PATH_SUFFIXES openblas openblas-pthread)
find_library(CBLAS_LIBRARY NAMES openblas cblas HINTS ${CBLAS_HINT_LIBRARY_DIRS}
  PATH_SUFFIXES openblas openblas-pthread)
mark_as_advanced(CBLAS_INCLUDE_DIR CBLAS_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CBLAS REQUIRED_VARS CBLAS_LIBRARY CBLAS_INCLUDE_DIR)
if(CBLAS_FOUND AND NOT TARGET CBLAS::CBLAS)
  add_library(CBLAS::CBLAS UNKNOWN IMPORTED)
  set_target_properties(CBLAS::CBLAS PROPERTIES
    IMPORTED_LOCATION "${CBLAS_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${CBLAS_INCLUDE_DIR}")
endif()
