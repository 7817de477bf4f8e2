# An overlay port: its sources are the checkout that it lies in.
#   vcpkg install "shardkit[mpi,checkpoint]" --overlay-ports=<checkout>/packaging/vcpkg
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

set(VCPKG_BUILD_TYPE release)  # header only

# Features bring libraries for find_package(shardkit COMPONENTS ...) to find; what is installed is the same.
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    -DSHARDKIT_BUILD_TESTS=OFF
    -DSHARDKIT_BUILD_EXAMPLES=OFF
    -DSHARDKIT_BUILD_BENCHMARKS=OFF
    -DSHARDKIT_COMPONENTS=none
    "-DSHARDKIT_INSTALL_CMAKEDIR=share/${PORT}"
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup()
vcpkg_fixup_pkgconfig()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/licenses")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
