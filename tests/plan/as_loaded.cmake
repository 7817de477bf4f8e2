# What the plan says that ranks hold is what the llama example loads.
#   cmake -D PLAN=... -D LLAMA=... -D SCRATCH=... -P as_loaded.cmake
cmake_minimum_required(VERSION 3.20)

execute_process(COMMAND "${LLAMA}" --make-tiny "${SCRATCH}" COMMAND_ERROR_IS_FATAL ANY)
foreach(mesh "--tensor;2" "--tensor;3;--pipeline;2" "--pipeline;4")
  execute_process(COMMAND "${LLAMA}" --model "${SCRATCH}" --tokens 1 --steps 0 ${mesh}
    ERROR_VARIABLE loaded OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND "${PLAN}" "${SCRATCH}" --weight-bytes 4 --context 0 ${mesh}
    OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE ".*MiB: ([^\n]*)\n.*" "\\1" loaded "${loaded}")
  string(REGEX MATCHALL "[0-9]+\\.[0-9]+  +0\\.00\n" planned "${table}")
  list(TRANSFORM planned REPLACE " .*" "")
  list(JOIN planned " " planned)
  if(planned STREQUAL "" OR NOT planned STREQUAL loaded)
    message(SEND_ERROR "${mesh}: planned ${planned}, loaded ${loaded} MiB")
  endif()
endforeach()
