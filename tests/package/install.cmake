cmake_minimum_required(VERSION 3.20)
# Installs the build tree BUILD into an empty SCRATCH/prefix.
file(REMOVE_RECURSE "${SCRATCH}")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${SCRATCH}/prefix" RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the installation ended with ${result}")
endif()
