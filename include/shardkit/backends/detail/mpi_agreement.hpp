// Options that have to be the same on every rank, compared before anything depends on them.
#pragma once

#include <shardkit/backends/detail/mpi_api.hpp>
#include <shardkit/core/detail/list.hpp>

#include <cstddef>
#include <cstdio>
#include <string>

namespace shardkit::detail {

/// One number of mpi_options.
struct mpi_option {
  const char* name;
  double value;
};

/// What to say of the first option that ranks disagree about; empty where there is none. Collective over
/// MPI_COMM_WORLD, with the same answer on every rank.
[[gnu::cold, gnu::noinline]] inline std::string mpi_disagreement(const mpi_option* options, int count) {
  // The greatest of each value and of its negative: two equal ones are opposite.
  list<double> mine(2 * static_cast<std::size_t>(count)), greatest(mine.size());
  for (int i = 0; i < count; ++i) {
    mine.data()[i] = options[i].value;
    mine.data()[count + i] = -options[i].value;
  }
  mpi_check(MPI_Allreduce(mine.data(), greatest.data(), 2 * count, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD),
            "MPI_Allreduce");
  int at = 0;
  while (at < count && greatest.data()[at] == -greatest.data()[count + at]) ++at;
  if (at == count) return "";

  int size = 0;
  mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  list<double> all(static_cast<std::size_t>(size));
  mpi_check(MPI_Allgather(&options[at].value, 1, MPI_DOUBLE, all.data(), 1, MPI_DOUBLE, MPI_COMM_WORLD),
            "MPI_Allgather");
  const auto text = [](double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.12g", value);
    return std::string(digits);
  };
  std::string difference =
      std::string("mpi_options: ") + options[at].name + " is " + text(all.front()) + " on rank 0, but ";
  constexpr int most_named = 16;
  int named = 0;
  for (int rank = 1; rank < size; ++rank) {
    const double value = all.data()[rank];
    if (value == all.front()) continue;
    if (++named > most_named) return difference + ", and so on; it has to be the same on every rank";
    difference += (named > 1 ? ", " : "") + text(value) + " on rank " + std::to_string(rank);
  }
  return difference + "; it has to be the same on every rank";
}

}  // namespace shardkit::detail
