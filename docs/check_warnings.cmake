# Fails where Doxygen has warned: of a public name without a comment, a page or snippet that is not there.
#
# Classes, functions and members have comments of their own, but for those that are described elsewhere:
#   - constructors, operators, deduction guides and specialisations, by their class or template
#   - the names that mean everywhere what they mean in the standard library, and rank(), size(), space and where
#   - what makes a class a backend or a decorator, by the list at the top of comm/backend.hpp
#   - macros that a header undefines at its end
#   - the fields of call descriptors, by their call and the top of comm/calls.hpp
# Fails also where the page of the communicator lacks verbs that it gets from a base class.
#   cmake -D LOG=warnings.log -D HTML=html -P check_warnings.cmake
cmake_minimum_required(VERSION 3.20)

set(shared_types "space|where|value_type|element_type|decorated_type|iterator_category|difference_type|pointer|reference")
set(shared_functions "data|size|rank|empty|begin|end")
set(backend_functions "perform|perform_plainly|start|split|exchange|control|fail|throw_if_failed|group_order|remembered")
set(backends "[a-z_]+_backend|call_recorder|complete|decorator|checked|faulty|traced|overlay")

file(STRINGS "${LOG}" lines)
foreach(described IN ITEMS
    "Member (${shared_types}) \\(typedef\\) of "
    "Member (${shared_functions})\\(\\)"
    "Member operator"
    "Member SHARDKIT_(NCCL_[A-Z]+|KEEP_REQUEST|MISSING_OPERATION|TEXT|VERSION_TEXT)[ (].*macro definition"
    "Member (${backend_functions})\\(.*\\).* of class shardkit::(${backends}) is "
    "Member [a-z_]+ \\(variable\\) of struct shardkit::[a-z_]+_call is "
    "Member [a-z_]+\\(.*\\) -> .* of namespace "
    "Compound [a-z_:]+< .* > is "
    " of (class|struct) [a-z_:]+< .* > is ")
  list(FILTER lines EXCLUDE REGEX "${described}.*not documented")
endforeach()
set(wrong "")
foreach(line IN LISTS lines)
  if(line MATCHES "Member ([a-z0-9_]+)\\(.*::([a-z0-9_]+) is not documented" AND CMAKE_MATCH_1 STREQUAL CMAKE_MATCH_2)
    continue()  # a constructor
  endif()
  string(APPEND wrong "\n${line}")
endforeach()
file(READ "${HTML}/classshardkit_1_1communicator.html" page)
foreach(verb IN ITEMS all_reduce all_reduce_async send_recv_async)
  if(NOT page MATCHES ">${verb}<")
    string(APPEND wrong "\nThe page of the communicator lacks ${verb}")
  endif()
endforeach()
if(wrong)
  message(FATAL_ERROR "The documentation has warnings:${wrong}")
endif()
