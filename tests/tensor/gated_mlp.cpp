#include "dense_model.hpp"

#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/cblas_gemm.hpp>
#include <shardkit/tensor/gated_mlp.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

using dense::matrix;
using dense::stored;
using shardkit::gated_mlp;
using shardkit::level_features;
using shardkit::matrix_view;
using shardkit::partition;
using shardkit::run_ranks;
using shardkit::silu_multiply;
using shardkit::thread_communicator;
using shardkit::view;

namespace {

double largest(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

}  // namespace

TEST_CASE("A divided gated MLP is the dense one, with gate and up fused or apart") {
  const std::size_t hidden = 6;
  for (int size = 1; size <= 6; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      const int rank = comm.rank();
      for (std::size_t features : {1u, 4u, 11u})
        for (const partition& cut : dense::cuts(features, size))
          for (std::size_t rows : {0u, 1u, 5u}) {
            const matrix x = dense::exact(rows, hidden, 1), gate = dense::exact(features, hidden, 2),
                         up = dense::exact(features, hidden, 3), down = dense::exact(hidden, features, 4),
                         bias = dense::exact(1, hidden, 5), residual = dense::exact(rows, hidden, 6);
            matrix inner = dense::times_transposed(x, gate);
            const matrix other = dense::times_transposed(x, up);
            for (std::size_t i = 0; i < inner.values.size(); ++i)
              inner.values[i] = inner.values[i] / (1 + std::exp(-inner.values[i])) * other.values[i];
            matrix expected = dense::times_transposed(inner, down);
            dense::add_row(expected, bias);
            matrix expected_with_residual = expected;
            dense::add(expected_with_residual, residual);

            const std::size_t offset = cut.offset(rank), count = cut.count(rank);
            const stored<float> xs(x), gs(gate, offset, count, 0, hidden), us(up, offset, count, 0, hidden),
                ds(down, 0, hidden, offset, count), bs(bias), rs(residual);
            stored<float> fused(2 * count, hidden), y(rows, hidden);
            shardkit::copy(fused.view().row_range(0, count), gs.view());
            shardkit::copy(fused.view().row_range(count, count), us.view());

            gated_mlp together(comm, std::as_const(fused).view(), ds.view(), cut, {.bias = bs.flat()});
            gated_mlp apart(comm, gs.view(), us.view(), ds.view(), cut, {.bias = bs.flat()});
            REQUIRE(together.workspace_bytes(rows) == rows * 2 * count * sizeof(float));
            std::vector<std::byte> memory(together.workspace_bytes(rows));
            const view<std::byte> workspace(memory.data(), memory.size());
            for (const auto* mlp : {&together, &apart}) {
              mlp->forward(xs.view(), y.view(), shardkit::cblas_gemm(), silu_multiply(), workspace);
              CHECK(dense::wrong(y.view(), expected, 0, 1e-3) == 0);
              mlp->forward(xs.view(), y.view(), shardkit::reference_gemm(), silu_multiply(), workspace, rs.view());
              CHECK(dense::wrong(y.view(), expected_with_residual, 0, 1e-3) == 0);
              const auto summand = mlp->partial(xs.view(), y.view(), shardkit::simd_gemm(), silu_multiply(), workspace);
              mlp->down().finish(summand, rs.view());
              CHECK(dense::wrong(y.view(), expected_with_residual, 0, 1e-3) == 0);
            }
          }
    });
}

TEST_CASE("The activation is the caller's, and an empty shard does not call it") {
  run_ranks(3, [](thread_communicator& comm) {
    const partition cut = partition::from_counts({2, 0, 1});
    const std::size_t count = cut.count(comm.rank());
    const matrix x = dense::exact(2, 3, 1), gate = dense::exact(3, 3, 2), up = dense::exact(3, 3, 3),
                 down = dense::exact(3, 3, 4);
    matrix inner = dense::times_transposed(x, gate);
    const matrix other = dense::times_transposed(x, up);
    for (std::size_t i = 0; i < inner.values.size(); ++i)
      inner.values[i] = std::max(inner.values[i], 0.0) + other.values[i];
    const std::size_t offset = cut.offset(comm.rank());
    const stored<float> xs(x), gs(gate, offset, count, 0, 3), us(up, offset, count, 0, 3),
        ds(down, 0, 3, offset, count);
    gated_mlp mlp(comm, gs.view(), us.view(), ds.view(), cut);
    std::vector<std::byte> memory(mlp.workspace_bytes(2));
    int calls = 0;
    stored<float> y(2, 3);
    mlp.forward(
        xs.view(), y.view(), shardkit::reference_gemm(),
        [&](matrix_view<float> a, matrix_view<float> b, shardkit::host_space::stream) {
          ++calls;
          for (std::size_t m = 0; m < a.rows(); ++m)
            for (std::size_t n = 0; n < a.columns(); ++n) a(m, n) = std::max(a(m, n), 0.0f) + b(m, n);
        },
        view<std::byte>(memory.data(), memory.size()));
    CHECK(calls == (comm.rank() == 1 ? 0 : 1));
    CHECK(dense::wrong(y.view(), dense::times_transposed(inner, down)) == 0);
  });
}

TEST_CASE("level_features evens out what attention leaves uneven") {
  // Costs in thousands of weights: 3,3,3,0 query heads of SmolLM2 over four ranks.
  const std::vector<double> attention{4, 4, 4, 0};
  const partition cut = level_features(1536, attention, 3.0 / 1536 * 16);
  std::vector<double> load;
  for (int rank = 0; rank < 4; ++rank)
    load.push_back(attention[static_cast<std::size_t>(rank)] + static_cast<double>(cut.count(rank)) * 3.0 / 1536 * 16);
  CHECK(cut.total() == 1536);
  CHECK(cut.count(3) > cut.count(0));
  CHECK(largest(load) == doctest::Approx((12.0 + 48.0) / 4).epsilon(0.01));

  // A rank above the level gets nothing, and the others still share evenly.
  const partition skipping = level_features(60, std::vector<double>{100, 0, 30}, 1.0);
  CHECK(skipping == partition::from_counts({0, 45, 15}));

  // No cut does better than the level, which a brute-force search over small cases confirms.
  for (std::size_t features : {0u, 1u, 5u, 9u})
    for (double a : {0.0, 1.0, 7.0})
      for (double b : {0.0, 2.0})
        for (double c : {0.0, 3.5}) {
          const std::vector<double> costs{a, b, c};
          const partition level = level_features(features, costs, 1.0);
          CHECK(level.total() == features);
          std::vector<double> got;
          for (int rank = 0; rank < 3; ++rank)
            got.push_back(costs[static_cast<std::size_t>(rank)] + static_cast<double>(level.count(rank)));
          double best = 1e9;
          for (std::size_t i = 0; i <= features; ++i)
            for (std::size_t j = 0; i + j <= features; ++j)
              best = std::min(best, largest({a + static_cast<double>(i), b + static_cast<double>(j),
                                             c + static_cast<double>(features - i - j)}));
          CHECK(largest(got) <= best + 1);  // whole features
        }
  CHECK(level_features(64, std::vector<double>{0, 8}, 1.0, 16).count(0) % 16 == 0);
  CHECK_THROWS_AS(level_features(8, std::vector<double>{0, 0}, 0.0), shardkit::usage_error);
}

TEST_CASE("A workspace that is too small is refused") {
  run_ranks(1, [](thread_communicator& comm) {
    const stored<float> w(4, 3), d(3, 2), x(2, 3);
    gated_mlp mlp(comm, w.view(), d.view(), partition::balanced(2, 1));
    std::vector<std::byte> memory(31);
    stored<float> y(2, 3);
    CHECK_THROWS_WITH_AS(mlp.forward(x.view(), y.view(), shardkit::reference_gemm(), silu_multiply(),
                                     view<std::byte>(memory.data(), memory.size())),
                         doctest::Contains("the workspace has 31 bytes and needs 32"), shardkit::usage_error);
  });
}
