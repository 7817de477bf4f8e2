// A part of a C++17 engine: it is written over a communicator whose backend the C++20 file beside it has chosen.
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/core/partition.hpp>

#include <cstddef>

static_assert(__cplusplus == 201703L, "this file is compiled as C++17");

std::size_t count_rows(shardkit::any_communicator<shardkit::host_space>& comm, std::size_t rows) {
  const auto mine = shardkit::partition::balanced(rows, comm.size()).count(comm.rank());
  return comm.all_reduce(mine, shardkit::sum);
}
