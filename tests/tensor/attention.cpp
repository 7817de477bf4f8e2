#include "dense_model.hpp"

#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using dense::matrix;
using dense::stored;
using shardkit::head_groups;
using shardkit::matrix_view;
using shardkit::partition;
using shardkit::qkv_cut;
using shardkit::qkv_parallel_linear;
using shardkit::reference_gemm;
using shardkit::run_ranks;
using shardkit::thread_communicator;

namespace {

struct model {
  std::size_t heads, kv_heads, head_size;
};

// Whole groups, replicas, one key/value head for all, plain multi-head attention, and SmolLM2's 9 and 3.
const model models[] = {{9, 3, 4}, {4, 4, 2}, {8, 2, 3}, {6, 1, 2}, {1, 1, 4}, {10, 5, 1}};

constexpr std::size_t tokens = 5, hidden = 8;

// Rows of the parts of a whole matrix that a rank holds, packed.
stored<float> shard_of(const matrix& whole, const shardkit::segmented_partition& cut, int rank) {
  stored<float> shard(cut.count(rank), whole.columns);
  for (const auto& range : cut.ranges(rank))
    for (std::size_t i = 0; i < range.count; ++i)
      for (std::size_t c = 0; c < whole.columns; ++c)
        shard.view()(range.shard_offset + i, c) = static_cast<float>(whole(range.source_offset + i, c));
  return shard;
}

// Causal attention of one query head over one key/value head, in double, into columns [column, + size) of out.
template <class Q, class K, class V, class Out>
void attend(std::size_t size, Q q, K k, V v, Out out) {
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<double> weight(t + 1);
    double total = 0;
    for (std::size_t s = 0; s <= t; ++s) {
      double score = 0;
      for (std::size_t i = 0; i < size; ++i) score += q(t, i) * k(s, i);
      total += weight[s] = std::exp(score / std::sqrt(static_cast<double>(size)) / 16);
    }
    for (std::size_t i = 0; i < size; ++i) {
      double sum = 0;
      for (std::size_t s = 0; s <= t; ++s) sum += weight[s] / total * v(s, i);
      out(t, i, sum);
    }
  }
}

// Every number of ranks with both ways of dealing heads.
std::vector<std::pair<int, head_groups>> cuts() {
  std::vector<std::pair<int, head_groups>> all;
  for (int size = 1; size <= 6; ++size)
    for (const head_groups how : {head_groups::whole, head_groups::split}) all.emplace_back(size, how);
  return all;
}

}  // namespace

TEST_CASE("Every query head is on one rank, together with the key/value head that it reads") {
  for (const model& m : models)
    for (const auto& [size, how] : cuts()) {
      const qkv_cut cut(m.heads, m.kv_heads, m.head_size, size, how);
      std::vector<int> held(m.heads, 0);
      for (int rank = 0; rank < size; ++rank) {
        CHECK(cut.q().count(rank) == cut.heads(rank) * m.head_size);
        CHECK(cut.kv().count(rank) == cut.kv_heads(rank) * m.head_size);
        for (std::size_t head = 0; head < cut.heads(rank); ++head) {
          const std::size_t whole_head = cut.first_head(rank) + head;
          ++held.at(whole_head);
          REQUIRE(cut.kv_head(rank, head) < cut.kv_heads(rank));
          CHECK(cut.first_kv_head(rank) + cut.kv_head(rank, head) == whole_head * m.kv_heads / m.heads);
        }
      }
      for (int times : held) CHECK(times == 1);
    }
}

TEST_CASE("SmolLM2's 9 and 3 heads are dealt as promised") {
  const auto heads = [](int size, head_groups how = head_groups::whole) {
    std::string text;
    const qkv_cut cut(9, 3, 64, size, how);
    for (int rank = 0; rank < size; ++rank)
      text += std::to_string(cut.heads(rank)) + "/" + std::to_string(cut.kv_heads(rank)) + " ";
    return text;
  };
  CHECK(heads(1) == "9/3 ");
  CHECK(heads(2) == "6/2 3/1 ");
  CHECK(heads(3) == "3/1 3/1 3/1 ");
  CHECK(heads(4) == "3/1 3/1 3/1 0/0 ");
  CHECK(heads(6) == "2/1 1/1 2/1 1/1 2/1 1/1 ");
  CHECK(heads(2, head_groups::split) == "5/2 4/2 ");
  CHECK(heads(4, head_groups::split) == "3/1 2/1 2/2 2/1 ");
  CHECK_THROWS_AS(qkv_cut(9, 2, 64, 2), shardkit::usage_error);
}

TEST_CASE("Fused and separate projections give each rank the columns of its heads") {
  for (const model& m : models)
    for (const auto& [size, how] : cuts())
      run_ranks(size, [&](thread_communicator& comm) {
        const int rank = comm.rank();
        const qkv_cut cut(m.heads, m.kv_heads, m.head_size, size, how);
        const std::size_t q_rows = m.heads * m.head_size, kv_rows = m.kv_heads * m.head_size;
        const matrix x = dense::exact(tokens, hidden, 1), w = dense::exact(q_rows + 2 * kv_rows, hidden, 2),
                     b = dense::exact(1, w.rows, 3);
        matrix expected = dense::times_transposed(x, w);
        dense::add_row(expected, b);
        matrix bias_column(b.columns, 1);
        bias_column.values = b.values;

        const stored<float> xs(x), ws = shard_of(w, cut.rows(), rank), bs = shard_of(bias_column, cut.rows(), rank);
        const std::size_t nq = cut.q().count(rank), nkv = cut.kv().count(rank);
        const auto check = [&](const shardkit::qkv_shards<float>& made) {
          CHECK(made.q.cut == cut.q());
          CHECK(made.k.cut == cut.kv());
          CHECK(made.v.cut == cut.kv());
          CHECK(made.q.data.columns() == nq);
          CHECK(made.v.data.columns() == nkv);
          CHECK(dense::wrong(made.q.data, expected, cut.q().offset(rank)) == 0);
          CHECK(dense::wrong(made.k.data, expected, q_rows + cut.kv().offset(rank)) == 0);
          CHECK(dense::wrong(made.v.data, expected, q_rows + kv_rows + cut.kv().offset(rank)) == 0);
        };
        const auto not_empty = [](matrix_view<const float> in, matrix_view<const float> weights, matrix_view<float> y,
                                  const shardkit::gemm_args<float>& args, shardkit::host_space::stream) {
          if (y.empty()) throw std::logic_error("an empty product reached the GEMM");
          reference_gemm()(in, weights, y, args);
        };

        stored<float> y(tokens, nq + 2 * nkv, 1);
        qkv_parallel_linear fused(comm, ws.view(), cut, {.bias = bs.flat()});
        REQUIRE(fused.columns() == nq + 2 * nkv);
        check(fused.forward(xs.view(), y.view(), not_empty));

        qkv_parallel_linear separate(
            comm, ws.view().row_range(0, nq), ws.view().row_range(nq, nkv), ws.view().row_range(nq + nkv, nkv), cut,
            {.biases = {bs.flat().subview(0, nq), bs.flat().subview(nq, nkv), bs.flat().subview(nq + nkv, nkv)}});
        stored<float> z(tokens, nq + 2 * nkv);
        check(separate.forward(shardkit::replicated{xs.view()}, z.view(), not_empty));
      });
}

TEST_CASE("Attention over the ranks' own heads, projected back, is dense attention") {
  for (const model& m : models)
    for (const auto& [size, how] : cuts())
      run_ranks(size, [&](thread_communicator& comm) {
        const int rank = comm.rank();
        const std::size_t d = m.head_size, q_rows = m.heads * d, kv_rows = m.kv_heads * d;
        const matrix x = dense::exact(tokens, hidden, 1), w = dense::exact(q_rows + 2 * kv_rows, hidden, 2),
                     o = dense::exact(hidden, q_rows, 3);

        const matrix projected = dense::times_transposed(x, w);
        matrix context(tokens, q_rows);
        for (std::size_t head = 0; head < m.heads; ++head) {
          const std::size_t kv = q_rows + head / (m.heads / m.kv_heads) * d;
          attend(
              d, [&](std::size_t t, std::size_t i) { return projected(t, head * d + i); },
              [&](std::size_t t, std::size_t i) { return projected(t, kv + i); },
              [&](std::size_t t, std::size_t i) { return projected(t, kv + kv_rows + i); },
              [&](std::size_t t, std::size_t i, double value) { context(t, head * d + i) = value; });
        }
        const matrix expected = dense::times_transposed(context, o);

        const qkv_cut cut(m.heads, m.kv_heads, d, size, how);
        const stored<float> xs(x), ws = shard_of(w, cut.rows(), rank),
                                   os(o, 0, hidden, cut.q().offset(rank), cut.q().count(rank));
        qkv_parallel_linear qkv(comm, ws.view(), cut);
        shardkit::row_parallel_linear back(comm, os.view(), cut.q());
        stored<float> y(tokens, qkv.columns()), z(tokens, hidden);
        const auto parts = qkv.forward(xs.view(), y.view(), reference_gemm());
        for (std::size_t head = 0; head < cut.heads(rank); ++head) {
          const auto q = parts.q.data.column_range(head * d, d);
          const auto k = parts.k.data.column_range(cut.kv_head(rank, head) * d, d);
          const auto v = parts.v.data.column_range(cut.kv_head(rank, head) * d, d);
          stored<double> mine(tokens, d);
          attend(
              d, [&](std::size_t t, std::size_t i) { return static_cast<double>(q(t, i)); },
              [&](std::size_t t, std::size_t i) { return static_cast<double>(k(t, i)); },
              [&](std::size_t t, std::size_t i) { return static_cast<double>(v(t, i)); },
              [&](std::size_t t, std::size_t i, double value) { mine.view()(t, i) = value; });
          for (std::size_t t = 0; t < tokens; ++t)
            for (std::size_t i = 0; i < d; ++i) q(t, i) = static_cast<float>(mine.view()(t, i));
        }
        back.forward(parts.q, z.view(), reference_gemm());
        CHECK(dense::wrong(z.view(), expected, 0, 1e-3) == 0);
      });
}

TEST_CASE("Projections are refused where weights and segments do not belong together") {
  run_ranks(1, [](thread_communicator& comm) {
    const stored<float> w(8, hidden), b(1, 8);
    const qkv_cut cut(2, 1, 2, 1);
    CHECK_THROWS_WITH_AS(qkv_parallel_linear(comm, w.view().row_range(0, 7), cut),
                         doctest::Contains("the weights have 7 rows and this rank's shard has 8"),
                         shardkit::usage_error);
  });
  run_ranks(1, [](thread_communicator& comm) {
    const stored<float> w(8, hidden), b(1, 8);
    CHECK_THROWS_WITH_AS(qkv_parallel_linear(comm, w.view().row_range(0, 4), w.view().row_range(0, 2),
                                             w.view().row_range(0, 2), qkv_cut(2, 1, 2, 1), {.biases = {b.flat()}}),
                         doctest::Contains("3 weights and 1 biases were given for 3 segments"), shardkit::usage_error);
  });
}
