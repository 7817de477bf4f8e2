# Does what a reader of README does: takes its first program and the block behind it, which begins with the command that
# compiles and runs the program and goes on with what it prints, and sees whether that is so.
#   cmake -D README=... -D COMPILER=... -D INCLUDE=... -D SCRATCH=... -P first_program.cmake
cmake_minimum_required(VERSION 3.20)
include("${CMAKE_CURRENT_LIST_DIR}/take_block.cmake")

set(most_lines 20)
set(flags -std=c++20 -I include program.cpp -pthread)
set(command "g++ -std=c++20 -I include program.cpp -pthread && ./a.out\n")

file(READ "${README}" text)
take_block(text cpp program)
take_block(text "" shown)
if(program STREQUAL "" OR shown STREQUAL "")
  message(FATAL_ERROR "${README} has no program in a block of cpp, or no block with its output behind it")
endif()

string(REGEX REPLACE "[][;]" "" lines "${program}")  # what means something in CMake's lists
string(REGEX MATCHALL "[^ \n][^\n]*\n" lines "${lines}")
list(LENGTH lines count)
if(count GREATER most_lines)
  message(FATAL_ERROR "The first program of ${README} has ${count} lines of code; a first look has at most ${most_lines}")
endif()

string(LENGTH "${command}" length)
string(SUBSTRING "${shown}" 0 ${length} shown_command)
string(SUBSTRING "${shown}" ${length} -1 expected)
if(NOT shown_command STREQUAL command)
  message(FATAL_ERROR "${README} compiles its first program in another way than this test\nREADME: ${shown}test: ${command}")
endif()

file(REMOVE_RECURSE "${SCRATCH}")
file(MAKE_DIRECTORY "${SCRATCH}")
file(WRITE "${SCRATCH}/program.cpp" "${program}")
file(CREATE_LINK "${INCLUDE}" "${SCRATCH}/include" SYMBOLIC)
execute_process(COMMAND "${COMPILER}" ${flags} -Wall -Wextra -Werror WORKING_DIRECTORY "${SCRATCH}"
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "The first program of ${README} does not compile:\n${output}")
endif()
foreach(run RANGE 1 5)  # ranks that race would not print the same each time
  execute_process(COMMAND ./a.out WORKING_DIRECTORY "${SCRATCH}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE errors TIMEOUT 30)
  if(NOT result EQUAL 0 OR NOT output STREQUAL expected OR NOT errors STREQUAL "")
    message(FATAL_ERROR "The first program of ${README} ended with ${result}\n"
      "README says it prints:\n${expected}It prints:\n${output}${errors}")
  endif()
endforeach()
