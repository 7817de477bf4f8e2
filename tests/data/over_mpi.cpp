// The round trips of gather_trim.cpp and matrix_split.cpp once more, between processes.
#include "../support/mpi_world.hpp"
#include "serial_model.hpp"

#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split.hpp>

#include <doctest/doctest.h>

#include <vector>

using shardkit::layout;
using shardkit::matrix_view;
using shardkit::partition;

TEST_CASE("gather_trim restores every length over MPI") {
  auto comm = shardkit_test::mpi().world();
  for (const layout how : {layout::balanced, layout::block})
    for (std::size_t n = 0; n <= 40; ++n) {
      std::vector<float> all;
      for (std::size_t i = 0; i < 2 * n; ++i) all.push_back(serial_model::awkward_float(i));
      const matrix_view<const float> rows(all.data(), n, 2);
      CHECK(serial_model::same_bits(gather_trim(comm, pad_and_split(comm, rows, how), n, how), all));
      CHECK(serial_model::same_bits(gather_trim(comm, split(comm, rows, how), n, how), all));
    }
}

TEST_CASE("gather_columns puts uneven blocks side by side over MPI") {
  auto comm = shardkit_test::mpi().world();
  for (std::size_t m = 0; m <= 4; ++m)
    for (std::size_t n = 0; n <= 11; ++n)
      for (const partition& cut : {partition::balanced(n, comm.size()), partition::block(n, comm.size(), 3)}) {
        std::vector<int> whole(m * n), out(m * n, -1), workspace(gather_columns_workspace(m, cut));
        for (std::size_t i = 0; i < m * n; ++i) whole[i] = static_cast<int>(i);
        gather_columns(comm, split_columns(comm, matrix_view(whole.data(), m, n), cut), matrix_view(out.data(), m, n),
                       cut, workspace);
        CHECK(out == whole);
      }
}
