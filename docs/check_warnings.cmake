# Fails where Doxygen has warned: of a public name without a comment, a page or snippet that is not there.
#
# Members of a class that has a comment may go without one of their own: rank() and size() explain themselves. So may
# deduction guides and specialisations, which belong to what they specialise.
#   cmake -D LOG=warnings.log -P check_warnings.cmake
cmake_minimum_required(VERSION 3.20)

file(STRINGS "${LOG}" lines)
list(FILTER lines EXCLUDE REGEX " of (class|struct|union) .* is not documented")
list(FILTER lines EXCLUDE REGEX "Member [a-z_]+\\(.*\\) -> .* is not documented")
list(FILTER lines EXCLUDE REGEX "Compound [a-z_:]+< .* > is not documented")
if(lines)
  list(JOIN lines "\n" text)
  message(FATAL_ERROR "The documentation has warnings:\n${text}")
endif()
