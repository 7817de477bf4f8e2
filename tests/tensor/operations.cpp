#include "dense_model.hpp"

#include <shardkit/core/operations.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

using dense::stored;
using shardkit::candidate;
using shardkit::host_space;
using shardkit::matrix_view;
using shardkit::view;
using ops = shardkit::operations<host_space>;

namespace {

const double infinity = std::numeric_limits<double>::infinity();
const double nan = std::numeric_limits<double>::quiet_NaN();

// A serial search as one would write it: all indices, sorted.
std::vector<std::size_t> best_of(const std::vector<double>& scores, std::size_t k) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (std::isnan(scores[a]) || std::isnan(scores[b])) return std::isnan(scores[a]) && !std::isnan(scores[b]);
    return scores[a] > scores[b];
  });
  order.resize(k);
  return order;
}

std::vector<std::vector<double>> score_lists() {
  std::vector<std::vector<double>> lists{{1}, {2, 2}, {0, -0.0, 0}, {-infinity, -infinity}, {nan, 1, nan}, {3, nan}};
  std::mt19937 random(5);
  for (std::size_t n : {1u, 4u, 9u, 40u, 200u})
    for (unsigned distinct : {1u, 2u, 5u, 1000u}) {
      std::vector<double> list(n);
      for (double& value : list) value = static_cast<double>(random() % distinct) - 2;
      lists.push_back(list);
    }
  std::vector<double> ascending(60);
  std::iota(ascending.begin(), ascending.end(), 0.0);
  lists.push_back(ascending);
  return lists;
}

}  // namespace

TEST_CASE("add_bias and add change every row and nothing between the rows") {
  for (std::size_t rows : {0u, 1u, 3u})
    for (std::size_t columns : {0u, 1u, 5u})
      for (std::size_t gap : {0u, 2u}) {
        const auto a = dense::exact(rows, columns, 1), b = dense::exact(rows, columns, 2),
                   bias = dense::exact(1, columns, 3);
        dense::matrix expected = a;
        if (columns != 0) dense::add_row(expected, bias);
        dense::add(expected, b);
        stored<float> y(a, gap);
        const stored<float> other(b, gap), row(bias);
        ops::add_bias(y.view(), row.flat());
        ops::add(y.view(), other.view());
        CHECK(dense::wrong(y.view(), expected) == 0);
        for (std::size_t i = 0; gap != 0 && i < rows; ++i)
          CHECK(y.view().row(i).data()[columns] == stored<float>::nonsense);
      }
}

TEST_CASE("16-bit floats are added in float and rounded once") {
  stored<shardkit::bfloat16> y(1, 1);
  y.view()(0, 0) = shardkit::bfloat16(1.0f);
  const shardkit::bfloat16 tiny(0.00390625f);  // half of the last place of 1: to even
  ops::add_bias(y.view(), view<const shardkit::bfloat16>(&tiny, 1));
  CHECK(static_cast<float>(y.view()(0, 0)) == 1.0f);
}

TEST_CASE("gather_rows copies the rows it has and writes zeros for all others") {
  const auto table = dense::exact(4, 3, 1);
  const stored<float> rows(table, 1);
  const std::vector<long> ids{10, 13, 9, 14, -1, 0, std::numeric_limits<long>::max(), 11, 11};
  stored<float> out(ids.size(), 3, 2);
  ops::gather_rows(rows.view(), 10, view<const long>(ids.data(), ids.size()), out.view());
  for (std::size_t i = 0; i < ids.size(); ++i)
    for (std::size_t c = 0; c < 3; ++c)
      CHECK(static_cast<double>(out.view()(i, c)) ==
            (ids[i] >= 10 && ids[i] < 14 ? table(static_cast<std::size_t>(ids[i] - 10), c) : 0.0));
}

TEST_CASE("silu_multiply is x / (1 + exp(-x)) times up, also far from zero") {
  const std::vector<double> xs{-1000, -88, -20, -1.5, -0.0, 0, 0.25, 3, 30, 1000};
  dense::matrix expected(1, xs.size()), gate(1, xs.size()), up(1, xs.size());
  for (std::size_t i = 0; i < xs.size(); ++i) {
    gate(0, i) = xs[i];
    up(0, i) = 0.5 + static_cast<double>(i);
    expected(0, i) = xs[i] * (1 / (1 + std::exp(-xs[i]))) * up(0, i);
  }
  stored<float> f(gate);
  const stored<float> uf(up);
  ops::silu_multiply(f.view(), uf.view());
  for (std::size_t i = 0; i < xs.size(); ++i)
    CHECK(static_cast<double>(f.view()(0, i)) == doctest::Approx(expected(0, i)).epsilon(1e-6));
  stored<double> d(gate);
  const stored<double> ud(up);
  ops::silu_multiply(d.view(), ud.view());
  for (std::size_t i = 0; i < xs.size(); ++i) CHECK(d.view()(0, i) == doctest::Approx(expected(0, i)).epsilon(1e-14));
}

TEST_CASE("top_k finds what sorting finds: lowest index among equals, NaN first") {
  for (const auto& scores : score_lists())
    for (std::size_t k = 0; k <= scores.size() + 2; k = k < 4 ? k + 1 : k * 2) {
      const std::size_t found = std::min(k, scores.size());
      const auto expected = best_of(scores, found);
      dense::matrix row(1, scores.size());
      row.values = scores;
      const stored<float> values(row);
      std::vector<candidate<float>> best(k);
      ops::top_k(values.view(), 100, matrix_view<candidate<float>>(best.data(), 1, k));
      for (std::size_t i = 0; i < k; ++i)
        CHECK(best[i].index == (i < found ? 100 + static_cast<std::int32_t>(expected[i]) : -1));
    }
}

TEST_CASE("Merged lists of the parts are the list of the whole") {
  for (const auto& scores : score_lists())
    for (std::size_t parts : {1u, 2u, 3u, 7u})
      for (std::size_t k = 1; k <= scores.size(); k = k < 4 ? k + 1 : k * 2) {
        const auto expected = best_of(scores, k);
        // Two rows: the scores, and the same with the sign changed.
        dense::matrix rows(2, scores.size());
        for (std::size_t i = 0; i < scores.size(); ++i) {
          rows(0, i) = scores[i];
          rows(1, i) = -scores[i];
        }
        std::vector<double> negated(rows.values.begin() + static_cast<std::ptrdiff_t>(scores.size()),
                                    rows.values.end());
        const auto expected_negated = best_of(negated, k);
        const stored<double> values(rows);
        const auto cut = shardkit::partition::block(scores.size(), static_cast<int>(parts));
        std::vector<candidate<double>> lists(parts * 2 * k);
        for (std::size_t part = 0; part < parts; ++part) {
          const int rank = static_cast<int>(part);
          ops::top_k(values.view().column_range(cut.offset(rank), cut.count(rank)), cut.offset(rank),
                     matrix_view<candidate<double>>(lists.data() + part * 2 * k, 2, k));
        }
        std::vector<int> indices(2 * k);
        stored<double> found(2, k);
        ops::merge_top_k(view<candidate<double>>(lists.data(), lists.size()), parts, found.view(),
                         matrix_view<int>(indices.data(), 2, k));
        for (std::size_t i = 0; i < k; ++i) {
          CHECK(static_cast<std::size_t>(indices[i]) == expected[i]);
          CHECK(static_cast<std::size_t>(indices[k + i]) == expected_negated[i]);
          const double score = found.view()(0, i);
          CHECK((score == scores[expected[i]] || (std::isnan(score) && std::isnan(scores[expected[i]]))));
        }
      }
}
