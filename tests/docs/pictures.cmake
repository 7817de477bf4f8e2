# The pictures are those that draw_pictures.py draws.
#   cmake -D PYTHON=... -D DOCS=... -D SCRATCH=... -P pictures.cmake
cmake_minimum_required(VERSION 3.20)

file(REMOVE_RECURSE "${SCRATCH}")
execute_process(COMMAND "${PYTHON}" "${DOCS}/draw_pictures.py" "${SCRATCH}" COMMAND_ERROR_IS_FATAL ANY)
file(GLOB drawn RELATIVE "${SCRATCH}" "${SCRATCH}/*.svg")
file(GLOB kept RELATIVE "${DOCS}/pictures" "${DOCS}/pictures/*.svg")
if(NOT drawn STREQUAL kept)
  message(FATAL_ERROR "docs/pictures holds ${kept}; draw_pictures.py draws ${drawn}")
endif()
foreach(picture IN LISTS drawn)
  file(SHA256 "${SCRATCH}/${picture}" now)
  file(SHA256 "${DOCS}/pictures/${picture}" then)
  if(NOT now STREQUAL then)
    message(SEND_ERROR "docs/pictures/${picture} is not what docs/draw_pictures.py draws; run it")
  endif()
endforeach()
