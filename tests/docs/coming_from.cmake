# Each call of ours that the tables of coming-from.md show, the last cell of a row, stands word for word in SOURCE, which
# is compiled and run.
#   cmake -D PAGE=... -D SOURCE=... -P coming_from.cmake
cmake_minimum_required(VERSION 3.20)

# No semicolons, which would part the elements of a list, no brackets, which would keep them together, and no layout.
function(plain text result)
  string(REGEX REPLACE "[][; \n]" "" text "${text}")
  set(${result} "${text}" PARENT_SCOPE)
endfunction()

file(READ "${SOURCE}" source)
plain("${source}" source)
file(READ "${PAGE}" page)
string(REGEX REPLACE "[][;]" " " page "${page}")
string(REGEX MATCHALL "\n\\|[^\n]*" rows "${page}")
set(checked 0)
foreach(row IN LISTS rows)
  if(row MATCHES "`([^`]+)` \\|$")
    set(call "${CMAKE_MATCH_1}")
    plain("${call}" wanted)
    string(FIND "${source}" "${wanted}" place)
    if(place EQUAL -1)
      message(SEND_ERROR "${PAGE} shows a call that ${SOURCE} does not make:\n  ${call}")
    endif()
    math(EXPR checked "${checked} + 1")
  endif()
endforeach()
if(checked LESS 20)
  message(FATAL_ERROR "${PAGE} has only ${checked} calls in the last cells of its tables")
endif()
