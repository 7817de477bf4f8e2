# Builds the fuzz target with libFuzzer and both sanitizers, and gives every place that reads what others send RUNS
# inputs; those that need connections and threads, SLOW_RUNS.
cmake_minimum_required(VERSION 3.20)
if(NOT COMPILER)
  message(STATUS "skipped: libFuzzer is part of clang, and there is no clang++ (Debian: clang-19, libclang-rt-19-dev)")
  return()
endif()
file(MAKE_DIRECTORY "${FOLDER}")
execute_process(
  COMMAND "${COMPILER}" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all "-I${INCLUDE}"
    "${SOURCES}/fuzz.cpp" -o "${FOLDER}/fuzz"
  RESULT_VARIABLE result ERROR_VARIABLE complaint)
if(complaint MATCHES "libclang_rt|cannot find -l|fsanitize=fuzzer")
  message(STATUS "skipped: ${COMPILER} has no libFuzzer or no sanitizers (Debian: libclang-rt-19-dev)")
  return()
endif()
if(result)
  message(FATAL_ERROR "the fuzz target does not compile:\n${complaint}")
endif()

# The places in the order of fuzz_target.hpp: greetings, frames, a wild rank, a wild hub, the door, bootstrap messages,
# launch files, environments, fingerprints, captured lists.
foreach(place RANGE 9)
  set(runs ${RUNS})
  if(place MATCHES "^[234]$")
    set(runs ${SLOW_RUNS})
  endif()
  file(MAKE_DIRECTORY "${FOLDER}/inputs${place}")
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env SHARDKIT_FUZZ_PLACE=${place}
      "${FOLDER}/fuzz" -runs=${runs} -timeout=20 -max_len=2000 -print_final_stats=1 "${FOLDER}/inputs${place}" "${SOURCES}/seeds"
    WORKING_DIRECTORY "${FOLDER}" RESULT_VARIABLE result)
  if(result)
    message(FATAL_ERROR "libFuzzer has found an input for place ${place}, see above")
  endif()
endforeach()
