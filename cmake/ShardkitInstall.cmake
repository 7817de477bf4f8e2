# Install rules: the headers, the CMake package and the pkg-config file. None depends on the processor.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(SHARDKIT_INSTALL_CMAKEDIR "${CMAKE_INSTALL_DATADIR}/cmake/shardkit" CACHE STRING
  "Where the CMake package is installed, below the prefix")
set(package_dir "${SHARDKIT_INSTALL_CMAKEDIR}")
set(generated "${PROJECT_BINARY_DIR}/package")

configure_package_config_file(cmake/shardkit-config.cmake.in "${generated}/shardkit-config.cmake"
  INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file("${generated}/shardkit-config-version.cmake"
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
file(RELATIVE_PATH prefix_from_pc "/prefix/${CMAKE_INSTALL_DATADIR}/pkgconfig" "/prefix")
configure_file(cmake/shardkit.pc.in "${generated}/shardkit.pc" @ONLY)

install(DIRECTORY include/shardkit DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS shardkit shardkit_cxx17 EXPORT shardkit-targets INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT shardkit-targets NAMESPACE shardkit:: DESTINATION "${package_dir}")
install(FILES
  "${generated}/shardkit-config.cmake" "${generated}/shardkit-config-version.cmake"
  cmake/shardkit-components.cmake cmake/shardkit-cuda-double.cmake cmake/FindCBLAS.cmake cmake/FindNCCL.cmake
  DESTINATION "${package_dir}")
install(DIRECTORY tests/double DESTINATION "${package_dir}/cuda_double" FILES_MATCHING
  PATTERN "*.hpp" PATTERN "*.cpp" PATTERN "exports.map" PATTERN "README.md" PATTERN stub EXCLUDE)
install(FILES "${generated}/shardkit.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/shardkit")
