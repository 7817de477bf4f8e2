# Builds the fuzz target with libFuzzer and both sanitizers, and gives it RUNS inputs.
cmake_minimum_required(VERSION 3.20)
file(MAKE_DIRECTORY "${FOLDER}/inputs")
set(complaint "no clang++ was found")
if(COMPILER)
  execute_process(
    COMMAND "${COMPILER}" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all "-I${INCLUDE}"
      "${SOURCES}/fuzz.cpp" -o "${FOLDER}/fuzz"
    RESULT_VARIABLE result ERROR_VARIABLE complaint)
endif()
if(NOT COMPILER OR complaint MATCHES "clang_rt")
  message(STATUS "skipped: needs clang++ with libFuzzer (libclang-rt): ${complaint}")
  return()
endif()
if(result)
  message(FATAL_ERROR "the fuzz target does not compile:\n${complaint}")
endif()
execute_process(
  COMMAND "${FOLDER}/fuzz" -runs=${RUNS} -timeout=20 -max_len=2000 -print_final_stats=1 "${FOLDER}/inputs" "${SOURCES}/seeds"
  WORKING_DIRECTORY "${FOLDER}" RESULT_VARIABLE result)
if(result)
  message(FATAL_ERROR "libFuzzer has found an input, see above")
endif()
