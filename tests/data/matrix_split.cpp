#include <shardkit/data/matrix_split.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <vector>

using shardkit::gather_columns;
using shardkit::gather_columns_workspace;
using shardkit::gather_rows;
using shardkit::layout;
using shardkit::matrix_view;
using shardkit::participant;
using shardkit::partition;
using shardkit::run_ranks;
using shardkit::split_columns;
using shardkit::split_rows;
using shardkit::thread_communicator;

namespace {

// The element in row i and column j, known to everybody.
double element(std::size_t i, std::size_t j) { return static_cast<double>(1000 * i + j) + 0.25; }

// A matrix of doubles with a gap after each row that must stay as it is.
struct gapped {
  gapped(std::size_t m, std::size_t n, std::size_t gap)
      : memory(m * (n + gap), -1.0), matrix(memory.data(), m, n, n + gap) {}

  void fill(std::size_t first_row, std::size_t first_column) {
    for (std::size_t i = 0; i < matrix.rows(); ++i)
      for (std::size_t j = 0; j < matrix.columns(); ++j) matrix(i, j) = element(first_row + i, first_column + j);
  }
  bool holds_everything() const {
    for (std::size_t i = 0; i < matrix.rows(); ++i)
      for (std::size_t j = 0; j < matrix.row_stride(); ++j)
        if (memory[i * matrix.row_stride() + j] != (j < matrix.columns() ? element(i, j) : -1.0)) return false;
    return true;
  }

  std::vector<double> memory;
  matrix_view<double> matrix;
};

std::vector<partition> cuts_of(std::size_t total, int size) {
  std::vector<std::size_t> all_at_last(static_cast<std::size_t>(size), 0);
  all_at_last.back() = total;
  return {partition::balanced(total, size), partition::block(total, size), partition::balanced(total, size, 4),
          partition::from_counts(all_at_last)};
}

template <class Body>
int ranks_told(int size, Body body) {
  std::atomic<int> told{0};
  shardkit::launch_options quiet;
  quiet.on_failure = nullptr;
  try {
    run_ranks(size, quiet, [&](thread_communicator& comm) {
      try {
        body(comm);
        comm.barrier();
      } catch (const shardkit::error&) {
        ++told;
        throw;
      }
    });
    FAIL("nothing was thrown");
  } catch (const shardkit::usage_error&) {
  }
  return told;
}

}  // namespace

TEST_CASE("split_rows and split_columns are views of the same memory") {
  for (const layout how : {layout::balanced, layout::block})
    for (int size = 1; size <= 5; ++size)
      for (std::size_t m = 0; m <= 7; ++m)
        for (std::size_t n = 0; n <= 7; ++n) {
          gapped whole(m, n, 2);
          whole.fill(0, 0);
          std::size_t next_row = 0, next_column = 0;
          for (int rank = 0; rank < size; ++rank) {
            const auto rows = split_rows(participant(rank, size), whole.matrix, how);
            CHECK(rows.columns() == n);
            for (std::size_t i = 0; i < rows.rows(); ++i, ++next_row)
              for (std::size_t j = 0; j < n; ++j) CHECK(&rows(i, j) == &whole.matrix(next_row, j));
            const auto columns = split_columns(participant(rank, size), whole.matrix, how);
            CHECK(columns.rows() == m);
            for (std::size_t j = 0; j < columns.columns(); ++j, ++next_column)
              for (std::size_t i = 0; i < m; ++i) CHECK(&columns(i, j) == &whole.matrix(i, next_column));
          }
          CHECK(next_row == m);
          CHECK(next_column == n);
        }
}

TEST_CASE("gather_columns puts blocks of every width side by side") {
  for (int size = 1; size <= 7; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (const std::size_t m : std::vector<std::size_t>{0, 1, 2, 3, 5})
        for (const std::size_t n : std::vector<std::size_t>{0, 1, 2, 5, 9, 16})
          for (const partition& part : cuts_of(n, size))
            for (const std::size_t local_gap : std::vector<std::size_t>{0, 3})
              for (const std::size_t out_gap : std::vector<std::size_t>{0, 2}) {
                gapped local(m, part.count(comm.rank()), local_gap), out(m, n, out_gap);
                local.fill(0, part.offset(comm.rank()));
                std::vector<double> workspace(gather_columns_workspace(m, part));
                gather_columns(comm, local.matrix, out.matrix, part, workspace);
                CHECK(out.holds_everything());
              }
    });
}

TEST_CASE("gather_columns works where the columns already lie in their place") {
  for (int size = 1; size <= 5; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (const std::size_t m : std::vector<std::size_t>{1, 4}) {
        const partition part = partition::balanced(11, size);
        gapped out(m, 11, 1);
        const auto mine = split_columns(comm, out.matrix, part);
        for (std::size_t i = 0; i < m; ++i)
          for (std::size_t j = 0; j < mine.columns(); ++j) mine(i, j) = element(i, part.offset(comm.rank()) + j);
        std::vector<double> workspace(gather_columns_workspace(m, part) + 5);
        gather_columns(comm, mine, out.matrix, part, workspace);
        CHECK(out.holds_everything());
      }
    });
}

TEST_CASE("One row or one rank needs no workspace") {
  CHECK(gather_columns_workspace(0, partition::balanced(7, 3)) == 0);
  CHECK(gather_columns_workspace(1, partition::balanced(7, 3)) == 0);
  CHECK(gather_columns_workspace(5, partition::balanced(7, 1)) == 0);
  CHECK(gather_columns_workspace(5, partition::balanced(7, 3)) == 35);
  static_assert(gather_columns_workspace(2, partition::balanced(7, 3)) == 14);
}

TEST_CASE("gather_rows puts shares of every height one below the other, in place too") {
  for (int size = 1; size <= 7; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (const std::size_t m : std::vector<std::size_t>{0, 1, 2, 5, 9, 16})
        for (const std::size_t n : std::vector<std::size_t>{0, 1, 3})
          for (const partition& part : cuts_of(m, size))
            for (const std::size_t local_gap : std::vector<std::size_t>{0, 3}) {
              gapped local(part.count(comm.rank()), n, local_gap), out(m, n, 0);
              local.fill(part.offset(comm.rank()), 0);
              gather_rows(comm, local.matrix, out.matrix, part);
              CHECK(out.holds_everything());

              gapped same(m, n, 0);
              const auto mine = split_rows(comm, same.matrix, part);
              for (std::size_t i = 0; i < mine.rows(); ++i)
                for (std::size_t j = 0; j < n; ++j) mine(i, j) = element(part.offset(comm.rank()) + i, j);
              gather_rows(comm, mine, same.matrix, part);
              CHECK(same.holds_everything());
            }
    });
}

TEST_CASE("Wrong shapes are errors on every rank and no hang, at size 1 too") {
  for (int size = 1; size <= 3; ++size) {
    const auto last = [](thread_communicator& comm) { return comm.rank() == comm.size() - 1; };
    const auto run_columns = [&](std::size_t more_local_rows, std::size_t more_local, std::size_t more_out,
                                 std::size_t less_workspace, int more_parts) {
      return ranks_told(size, [&, size](thread_communicator& comm) {
        const std::size_t wrong = last(comm) ? 1 : 0;
        const partition part = partition::balanced(8, size + static_cast<int>(wrong) * more_parts);
        gapped local(4 + wrong * more_local_rows, partition::balanced(8, size).count(comm.rank()) + wrong * more_local,
                     0);
        gapped out(4, 8 + wrong * more_out, 0);
        std::vector<double> workspace(32 - wrong * less_workspace);
        gather_columns(comm, local.matrix, out.matrix, part, workspace);
      });
    };
    CHECK(run_columns(1, 0, 0, 0, 0) == size);
    CHECK(run_columns(0, 1, 0, 0, 0) == size);
    CHECK(run_columns(0, 0, 1, 0, 0) == size);
    CHECK(run_columns(0, 0, 0, 0, 1) == size);
    if (size > 1) CHECK(run_columns(0, 0, 0, 1, 0) == size);

    const auto run_rows = [&](std::size_t more_local, std::size_t more_columns, std::size_t more_out, std::size_t gap) {
      return ranks_told(size, [&](thread_communicator& comm) {
        const std::size_t wrong = last(comm) ? 1 : 0;
        const partition part = partition::balanced(8, size);
        gapped local(part.count(comm.rank()) + wrong * more_local, 3 + wrong * more_columns, 0);
        gapped out(8 + wrong * more_out, 3, wrong * gap);
        gather_rows(comm, local.matrix, out.matrix, part);
      });
    };
    CHECK(run_rows(1, 0, 0, 0) == size);
    CHECK(run_rows(0, 1, 0, 0) == size);
    CHECK(run_rows(0, 0, 1, 0) == size);
    CHECK(run_rows(0, 0, 0, 1) == size);
  }
}

TEST_CASE("A shape error reads as shapes") {
  shardkit::launch_options quiet;
  quiet.on_failure = nullptr;
  CHECK_THROWS_WITH_AS(
      run_ranks(1, quiet,
                [](thread_communicator& comm) {
                  gapped local(2, 3, 0), out(2, 4, 0);
                  std::vector<double> workspace(8);
                  gather_columns(comm, local.matrix, out.matrix, partition::balanced(4, 1), workspace);
                }),
      doctest::Contains("local is [2, 3] and needs to be [2, 4] [rank 0 of 1 of 'world', gather_columns, at "),
      shardkit::usage_error);
}
