// A part of a C++17 engine: it sees the vocabulary and the typed face, not the backends.
#include <shardkit/comm/communicator.hpp>
#include <shardkit/core/partition.hpp>

static_assert(__cplusplus == 201703L, "this file is compiled as C++17");

std::size_t first_row(std::size_t rows, int ranks, int rank) {
  return shardkit::partition::balanced(rows, ranks).offset(rank);
}
