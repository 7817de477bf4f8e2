# Compiles SOURCE with DEFINITION and checks what the compiler says first: EXPECTED must be in the first line with an
# error. Without EXPECTED it must compile, so that a failure elsewhere is not taken for the expected one.
#   cmake -D COMPILER=... -D FLAGS=... -D SOURCE=... -D DEFINITION=... [-D EXPECTED=...] -P expect_first_error.cmake

execute_process(
  COMMAND "${CMAKE_COMMAND}" -E env LC_ALL=C "${COMPILER}" ${FLAGS} -D${DEFINITION} -fsyntax-only "${SOURCE}"
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)

if(NOT EXPECTED)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${DEFINITION} must compile:\n${output}")
  endif()
  return()
endif()

if(result EQUAL 0)
  message(FATAL_ERROR "${DEFINITION} compiled, and must be refused with: ${EXPECTED}")
endif()
string(REGEX MATCH "[^\n]*error:[^\n]*" first "${output}")
string(FIND "${first}" "${EXPECTED}" found)
if(found EQUAL -1)
  message(FATAL_ERROR "The first error of ${DEFINITION} must say: ${EXPECTED}\nIt says: ${first}\n${output}")
endif()
