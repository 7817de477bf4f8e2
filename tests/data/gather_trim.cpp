#include "serial_model.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

using shardkit::gather_trim;
using shardkit::gather_trim_into;
using shardkit::layout;
using shardkit::matrix_view;
using shardkit::pad_and_split;
using shardkit::partition;
using shardkit::run_ranks;
using shardkit::split;
using shardkit::thread_communicator;

namespace {

std::vector<float> awkward_floats(std::size_t n) {
  std::vector<float> all;
  for (std::size_t i = 0; i < n; ++i) all.push_back(serial_model::awkward_float(i));
  return all;
}

shardkit::launch_options quiet() {
  shardkit::launch_options options;
  options.on_failure = nullptr;
  return options;
}

// Runs `body` on every rank of a launch that is to fail; counts the ranks that were told so, by either error.
template <class Body>
int ranks_told(int size, Body body) {
  std::atomic<int> told{0};
  try {
    run_ranks(size, quiet(), [&](thread_communicator& comm) {
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

TEST_CASE("gather_trim restores every length on every size from padded shares, whatever the padding holds") {
  for (int size = 1; size <= 9; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (const layout how : {layout::balanced, layout::block})
        for (std::size_t n = 0; n <= 64; ++n) {
          const std::vector<float> all = awkward_floats(n);
          auto mine = pad_and_split(comm, all, how);
          CHECK(serial_model::same_bits(gather_trim(comm, mine, n, how), all));
          const std::size_t owned = split(comm, all, how).size();
          for (std::size_t i = owned; i < mine.size(); ++i) mine[i] = 1234.5f;
          CHECK(serial_model::same_bits(gather_trim(comm, mine, n, how), all));
        }
    });
}

TEST_CASE("gather_trim restores every length on every size from shares of split, without padding") {
  for (int size = 1; size <= 9; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (std::size_t n = 0; n <= 64; ++n) {
        const std::vector<float> all = awkward_floats(n);
        CHECK(serial_model::same_bits(gather_trim(comm, split(comm, all), n), all));
        CHECK(serial_model::same_bits(gather_trim(comm, split(comm, all, layout::block), n, layout::block), all));
      }
    });
}

TEST_CASE("gather_trim restores rows, also from shares with gaps between the rows") {
  const std::size_t columns = 3, stride = 5;
  for (int size = 1; size <= 5; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (const layout how : {layout::balanced, layout::block})
        for (std::size_t n = 0; n <= 17; ++n) {
          const std::vector<float> all = awkward_floats(n * columns);
          const matrix_view<const float> matrix(all.data(), n, columns);
          const auto mine = pad_and_split(comm, matrix, how);
          const auto restored = gather_trim(comm, mine, n, how);
          CHECK(restored.rows() == n);
          CHECK(restored.columns() == columns);
          CHECK(serial_model::same_bits(restored, all));

          std::vector<float> memory(mine.rows() * stride);
          const matrix_view<float> wide(memory.data(), mine.rows(), columns, stride);
          shardkit::pad_and_split_into(comm, matrix, wide, shardkit::repeat_last{}, how);
          std::vector<float> out(n * columns);
          gather_trim_into(comm, wide, matrix_view(out.data(), n, columns), how);
          CHECK(serial_model::same_bits(out, all));
        }
    });
}

TEST_CASE("gather_trim follows a given partition and gathers in place") {
  run_ranks(4, [&](thread_communicator& comm) {
    const std::vector<float> all = awkward_floats(11);
    for (const partition& part :
         {partition::from_counts({0, 7, 1, 3}), partition::balanced(11, 4, 3), partition::block(11, 4, 4),
          partition::weighted(11, std::vector<double>{1, 0, 3, 2})}) {
      CHECK(serial_model::same_bits(gather_trim(comm, pad_and_split(comm, all, part), 11, part), all));
      std::vector<float> out(11, 7.0f);
      const auto place = split(comm, out, part);
      for (std::size_t i = 0; i < place.size(); ++i) place[i] = all[part.offset(comm.rank()) + i];
      gather_trim_into(comm, place, out, part);
      CHECK(serial_model::same_bits(out, all));
    }
  });
}

TEST_CASE("The STYLE call sites work as one program on any communicator, erased ones too") {
  const auto lengths = [](auto& comm, const std::vector<std::string>& prompts) {
    auto mine = split(comm, prompts);
    std::vector<int> answers;
    for (const std::string& prompt : mine) answers.push_back(static_cast<int>(prompt.size()));
    auto all = gather_trim(comm, answers, prompts.size());
    return std::vector<int>(all.begin(), all.end());
  };
  const std::vector<std::string> prompts{"a", "bb", "ccc", "dddd", "eeeee"};
  const std::vector<int> expected{1, 2, 3, 4, 5};
  shardkit::self_communicator alone{shardkit::self_backend()};
  CHECK(lengths(alone, prompts) == expected);
  run_ranks(3, [&](thread_communicator& comm) {
    CHECK(lengths(comm, prompts) == expected);
    shardkit::any_communicator<shardkit::host_space> erased = shardkit::erase(comm.split(0));
    CHECK(lengths(erased, prompts) == expected);
  });
}

TEST_CASE("A share of the wrong size is an error on every rank and no hang, at size 1 too") {
  for (int size = 1; size <= 4; ++size) {
    const int told = ranks_told(size, [](thread_communicator& comm) {
      const std::size_t padded = partition::balanced(7, comm.size()).padded_count();
      const std::vector<int> mine(comm.rank() == comm.size() - 1 ? padded + 1 : padded);
      gather_trim(comm, mine, 7);
    });
    CHECK(told == size);
  }
}

TEST_CASE("The error tells both sizes that would be right, and the user's line") {
  shardkit::self_communicator comm{shardkit::self_backend()};
  int line = 0;
  try {
    line = __LINE__ + 1;
    gather_trim(comm, std::vector<int>(4), 5);
    FAIL("no error");
  } catch (const shardkit::usage_error& wrong) {
    CHECK(wrong.message() == "local has 4 items; of 5 this rank holds 5, with padding 5");
    CHECK(wrong.context().operation == "gather_trim");
    CHECK(wrong.context().site.line == line);
    CHECK(std::string_view(wrong.context().site.file).find("gather_trim.cpp") != std::string_view::npos);
  }
}

TEST_CASE("Lists of unequal length on one rank of several fail all of them") {
  CHECK(ranks_told(3, [](thread_communicator& comm) {
          const std::vector<int> xs(5), ys(comm.rank() == 1 ? 4 : 5);
          split(comm, xs, ys);
        }) == 3);
}

TEST_CASE("Partitions with replicas and outputs with gaps are refused on every rank") {
  CHECK(ranks_told(4, [](thread_communicator& comm) {
          const auto twice = partition::balanced(6, 4).replicas(2);
          gather_trim(comm, std::vector<int>(3), 6, twice);
        }) == 4);
  CHECK(ranks_told(2, [](thread_communicator& comm) {
          std::vector<int> local(2), memory(8);
          gather_trim_into(comm, matrix_view(local.data(), 1, 2), matrix_view(memory.data(), 2, 2, 4));
        }) == 2);
}
