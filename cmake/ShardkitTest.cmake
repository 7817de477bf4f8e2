# The two functions with which every folder of tests/ declares its programs.
#
#   shardkit_add_test(NAME name SOURCES a.cpp ... [LIBRARIES targets...] [LABELS labels...] [TIMEOUT seconds])
#   shardkit_add_mpi_test(NAME name SOURCES ... RANKS 1 2 4 [LIBRARIES ...] [LABELS ...] [TIMEOUT seconds])
#
# The first is one process, the second is run under mpiexec once for each number of ranks. doctest and its main
# function are provided; under MPI, <support/mpi_world.hpp> gives the environment that main has made. A test whose
# libraries are missing on this machine is reported as skipped, with the reason.
#
# Labels choose what runs where (scripts/test.sh): `single` or `mpi` and the name of the folder are given to every
# test; `threads` asks for a run under ThreadSanitizer too; `nightly` keeps a long test out of the ordinary run. For
# each label there is a build target shardkit_tests_<label>; shardkit_tests is everything but the nightly tests.
#
# TIMEOUT is in seconds of an ordinary build (default 120); sanitizer builds get a multiple of it.

add_custom_target(shardkit_tests)

set(shardkit_timeout_factor 1)
if(SHARDKIT_SANITIZE)
  set(shardkit_timeout_factor 4)
endif()

# Options of the sanitizers, and of the MPI libraries where several ranks share few cores: every rank may run on any
# core, more ranks than cores are welcome, root too (containers), and waiting ranks give way.
set(shardkit_environment
  UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=second_deadlock_stack=1 ASAN_OPTIONS=detect_stack_use_after_return=1)
set(shardkit_mpi_environment
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_hwloc_base_binding_policy=none
  OMPI_MCA_mpi_yield_when_idle=1
  UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=second_deadlock_stack=1
  ASAN_OPTIONS=detect_leaks=0)  # the MPI libraries leak
if(SHARDKIT_SANITIZE STREQUAL "thread")
  # UCX, below MPICH, patches memory functions that ThreadSanitizer has replaced.
  list(APPEND shardkit_mpi_environment UCX_MEM_EVENTS=n)
endif()

# Open MPI refuses more ranks than cores without this flag; other launchers do not know it.
set(shardkit_mpi_flags "")
if(TARGET shardkit::mpi AND MPIEXEC_EXECUTABLE)
  if(NOT DEFINED SHARDKIT_MPIEXEC_OVERSUBSCRIBE)
    execute_process(
      COMMAND "${CMAKE_COMMAND}" -E env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        "${MPIEXEC_EXECUTABLE}" --oversubscribe ${MPIEXEC_NUMPROC_FLAG} 1 "${CMAKE_COMMAND}" -E true
      RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET TIMEOUT 60)
    if(result EQUAL 0)
      set(result ON)
    else()
      set(result OFF)
    endif()
    set(SHARDKIT_MPIEXEC_OVERSUBSCRIBE ${result} CACHE INTERNAL "mpiexec takes --oversubscribe")
  endif()
  if(SHARDKIT_MPIEXEC_OVERSUBSCRIBE)
    set(shardkit_mpi_flags --oversubscribe)
  endif()
endif()

# Puts a built target under shardkit_tests and under one target for each label.
function(shardkit_label_target target)
  set(groups shardkit_tests)
  foreach(label IN LISTS ARGN)
    if(label STREQUAL "nightly")
      set(groups shardkit_tests_nightly)
      set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON)
      break()
    endif()
    list(APPEND groups shardkit_tests_${label})
  endforeach()
  foreach(group IN LISTS groups)
    if(NOT TARGET ${group})
      add_custom_target(${group})
    endif()
    add_dependencies(${group} ${target})
  endforeach()
endfunction()

# A test of one process that starts MPI jobs of `program`: SHARDKIT_TEST_MPIEXEC is the launcher up to the number of
# ranks, and `definition` the program.
function(shardkit_let_start_jobs test processors definition program)
  add_dependencies(${test} ${program})
  list(JOIN shardkit_mpi_flags " " flags)
  target_compile_definitions(${test} PRIVATE
    SHARDKIT_TEST_MPIEXEC="${MPIEXEC_EXECUTABLE} ${flags} ${MPIEXEC_NUMPROC_FLAG}"
    ${definition}="$<TARGET_FILE:${program}>")
  set_tests_properties(${test} PROPERTIES PROCESSORS ${processors} ENVIRONMENT "${shardkit_mpi_environment}")
endfunction()

# A test that only says why it is not there.
function(shardkit_add_skipped_test name reason)
  add_test(NAME ${name} COMMAND "${CMAKE_COMMAND}" -E echo "skipped: ${reason}")
  set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped: " LABELS "${ARGN}")
endfunction()

# Parses what the two functions have in common; sets T_* and `labels`, and `reason` where the test cannot be built.
macro(shardkit_parse_test kind)
  cmake_parse_arguments(T "" "NAME;TIMEOUT" "SOURCES;RANKS;LIBRARIES;LABELS" ${ARGN})
  if(NOT T_NAME OR NOT T_SOURCES OR T_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "A test needs NAME and SOURCES, and takes no '${T_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  math(EXPR T_TIMEOUT "${T_TIMEOUT} * ${shardkit_timeout_factor}")
  get_filename_component(folder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
  set(labels ${folder} ${kind} ${T_LABELS})
  list(REMOVE_DUPLICATES labels)
  set(reason "")
  foreach(library IN LISTS T_LIBRARIES)
    if(library MATCHES "::" AND NOT TARGET ${library})
      set(reason "needs ${library}, which is off in this build")
    endif()
  endforeach()
endmacro()

function(shardkit_add_test)
  shardkit_parse_test(single ${ARGN})
  if(reason)
    shardkit_add_skipped_test(${T_NAME} "${reason}" ${labels})
    return()
  endif()
  add_executable(${T_NAME} ${T_SOURCES})
  target_link_libraries(${T_NAME} PRIVATE shardkit_test_main shardkit::shardkit ${T_LIBRARIES})
  shardkit_label_target(${T_NAME} ${labels})
  # The program ends itself a little before ctest would, to say where it hangs.
  math(EXPR deadline "${T_TIMEOUT} - ${T_TIMEOUT} / 10 - 1")
  add_test(NAME ${T_NAME} COMMAND ${T_NAME} --deadline=${deadline} --case-deadline=${deadline})
  set_tests_properties(${T_NAME} PROPERTIES
    LABELS "${labels}" TIMEOUT ${T_TIMEOUT} ENVIRONMENT "${shardkit_environment}")
endfunction()

function(shardkit_add_mpi_test)
  shardkit_parse_test(mpi ${ARGN})
  if(NOT T_RANKS)
    message(FATAL_ERROR "shardkit_add_mpi_test(${T_NAME}) needs RANKS")
  endif()
  if(NOT TARGET shardkit::mpi OR NOT MPIEXEC_EXECUTABLE)
    set(reason "needs MPI, which is off in this build")
  endif()
  if(reason)
    shardkit_add_skipped_test(${T_NAME} "${reason}" ${labels})
    return()
  endif()
  add_executable(${T_NAME} ${T_SOURCES})
  target_link_libraries(${T_NAME} PRIVATE shardkit_mpi_test_main shardkit::mpi ${T_LIBRARIES})
  shardkit_label_target(${T_NAME} ${labels})
  math(EXPR deadline "${T_TIMEOUT} - ${T_TIMEOUT} / 10 - 1")
  foreach(ranks IN LISTS T_RANKS)
    set(name ${T_NAME}.ranks_${ranks})
    add_test(NAME ${name} COMMAND
      "${MPIEXEC_EXECUTABLE}" ${shardkit_mpi_flags} ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${MPIEXEC_PREFLAGS}
      "$<TARGET_FILE:${T_NAME}>" ${MPIEXEC_POSTFLAGS} --ranks=${ranks} --deadline=${deadline}
      --case-deadline=${deadline})
    set_tests_properties(${name} PROPERTIES
      LABELS "${labels}" TIMEOUT ${T_TIMEOUT} PROCESSORS ${ranks} ENVIRONMENT "${shardkit_mpi_environment}")
  endforeach()
endfunction()
