# Every relative link of the pages leads to a file or folder that is there.
#   cmake -D ROOT=... -P links.cmake
cmake_minimum_required(VERSION 3.20)

file(GLOB_RECURSE pages "${ROOT}/docs/*.md" "${ROOT}/examples/*.md")
list(APPEND pages "${ROOT}/README.md" "${ROOT}/benchmarks/README.md")
set(checked 0)
foreach(page IN LISTS pages)
  get_filename_component(folder "${page}" DIRECTORY)
  file(READ "${page}" text)
  string(REPLACE "](" "\n@" text "${text}")
  string(REGEX REPLACE "[][;]" " " text "${text}")  # what means something in CMake's lists
  string(REPLACE "\n@" ";@" text "${text}")  # each element begins with where its link leads
  foreach(link IN LISTS text)
    if(link MATCHES "^@([A-Za-z0-9_./-]+)\\)")
      if(NOT EXISTS "${folder}/${CMAKE_MATCH_1}")
        message(SEND_ERROR "${page} leads to ${CMAKE_MATCH_1}, which is not there")
      endif()
      math(EXPR checked "${checked} + 1")
    endif()
  endforeach()
endforeach()
if(checked LESS 30)
  message(FATAL_ERROR "only ${checked} links were found")
endif()
