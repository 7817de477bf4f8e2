#include "dense_model.hpp"

#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/vocabulary.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

using dense::matrix;
using dense::stored;
using shardkit::matrix_view;
using shardkit::partition;
using shardkit::reference_gemm;
using shardkit::run_ranks;
using shardkit::thread_communicator;
using shardkit::view;
using shardkit::vocabulary_embedding;
using shardkit::vocabulary_head;

namespace {

// Words in the order in which they would be chosen from whole logits.
std::vector<std::size_t> by_score(const matrix& logits, std::size_t row) {
  std::vector<std::size_t> order(logits.columns);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const double x = logits(row, a), y = logits(row, b);
    if (std::isnan(x) != std::isnan(y)) return std::isnan(x);
    if (!std::isnan(x) && x != y) return x > y;
    return a < b;
  });
  return order;
}

shardkit::launch_options quiet() {
  shardkit::launch_options options;
  options.on_failure = nullptr;
  return options;
}

}  // namespace

TEST_CASE("A divided embedding returns the rows of the whole table") {
  const std::size_t hidden = 5;
  for (int size = 1; size <= 6; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (std::size_t words : {1u, 4u, 17u})
        for (const partition& cut : dense::cuts(words, size)) {
          const matrix table = dense::rough(words, hidden, 1);
          const stored<float> mine(table, cut.offset(comm.rank()), cut.count(comm.rank()), 0, hidden, 1);
          vocabulary_embedding embedding(comm, mine.view(), cut);
          for (std::size_t tokens : {0u, 1u, 9u}) {
            std::vector<std::int32_t> ids(tokens);
            matrix expected(tokens, hidden);
            for (std::size_t t = 0; t < tokens; ++t) {
              ids[t] = static_cast<std::int32_t>((t * 7 + 3) % words);
              for (std::size_t c = 0; c < hidden; ++c) expected(t, c) = table(static_cast<std::size_t>(ids[t]), c);
            }
            stored<float> y(tokens, hidden);
            CHECK(dense::wrong(embedding.forward(ids, y.view()).data, expected) == 0);
          }
        }
    });
}

TEST_CASE("Local logits are columns of the dense ones, and argmax and top_k agree with a search of all of them") {
  const std::size_t hidden = 4;
  for (int size = 1; size <= 6; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      for (std::size_t words : {1u, 3u, 8u, 29u})
        for (const partition& cut : dense::cuts(words, size))
          for (std::size_t rows : {0u, 1u, 4u}) {
            matrix x = dense::exact(rows, hidden, 1), w = dense::exact(words, hidden, 2);
            // Few distinct weights: many equal logits, across ranks too.
            for (double& value : w.values) value = value > 0 ? 1 : -1;
            const matrix expected = dense::times_transposed(x, w);
            const int rank = comm.rank();
            const stored<float> xs(x), ws(w, cut.offset(rank), cut.count(rank), 0, hidden);
            vocabulary_head head(comm, ws.view(), cut);
            stored<float> y(rows, cut.count(rank), 1);
            const auto logits = head.local_logits(xs.view(), y.view(), reference_gemm());
            CHECK(dense::wrong(logits.data, expected, cut.offset(rank)) == 0);

            std::vector<std::byte> memory(head.workspace_bytes(rows, words));
            const view<std::byte> workspace(memory.data(), memory.size());
            std::vector<std::int64_t> best(rows);
            head.argmax(logits, best, workspace);
            for (std::size_t row = 0; row < rows; ++row)
              CHECK(static_cast<std::size_t>(best[row]) == by_score(expected, row).front());

            for (std::size_t k = 1; k <= words; k = k < 3 ? k + 1 : k * 2) {
              std::vector<int> ids(rows * k);
              stored<float> values(rows, k, 2);
              head.top_k(logits, values.view(), matrix_view<int>(ids.data(), rows, k), workspace);
              for (std::size_t row = 0; row < rows; ++row) {
                const auto order = by_score(expected, row);
                for (std::size_t i = 0; i < k; ++i) {
                  CHECK(static_cast<std::size_t>(ids[row * k + i]) == order[i]);
                  CHECK(static_cast<double>(values.view()(row, i)) == expected(row, order[i]));
                }
              }
            }
          }
    });
}

TEST_CASE("NaN and infinite logits are found on every rank alike") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  matrix logits(4, 7);
  logits.values = {-infinity, -infinity, -infinity, -infinity, -infinity, -infinity, -infinity, 1,       2, nan,
                   3,         nan,       infinity,  2,         -0.0,      0,         -0.0,      0,       0, -0.0,
                   0,         -infinity, 5,         5,         -infinity, 5,         -infinity, infinity};
  for (int size = 1; size <= 6; ++size)
    for (const partition& cut : dense::cuts(7, size))
      run_ranks(size, [&](thread_communicator& comm) {
        const stored<float> weights(cut.count(comm.rank()), 1);
        vocabulary_head head(comm, weights.view(), cut);
        stored<float> mine(logits, 0, 4, cut.offset(comm.rank()), cut.count(comm.rank()));
        std::vector<std::byte> memory(head.workspace_bytes(4, 7));
        std::vector<int> ids(28);
        stored<float> values(4, 7);
        head.top_k(mine.view(), values.view(), matrix_view<int>(ids.data(), 4, 7),
                   view<std::byte>(memory.data(), memory.size()));
        for (std::size_t row = 0; row < 4; ++row) {
          const auto order = by_score(logits, row);
          for (std::size_t i = 0; i < 7; ++i) CHECK(static_cast<std::size_t>(ids[row * 7 + i]) == order[i]);
        }
      });
}

TEST_CASE("Only candidates travel, not logits") {
  const partition cut = partition::balanced(50000, 4);
  run_ranks(4, [&](thread_communicator& comm) {
    const stored<float> weights(cut.count(comm.rank()), 1);
    vocabulary_head head(comm, weights.view(), cut);
    CHECK(head.workspace_bytes(1) == 4 * 8);
    CHECK(head.workspace_bytes(2, 10) == 4 * 2 * 10 * 8);
  });
}

TEST_CASE("A word outside of the vocabulary and a k without sense are refused on every rank") {
  const partition cut = partition::balanced(6, 3);
  const auto refusal = [&](auto body) {
    std::atomic<int> told{0};
    std::string text;
    try {
      run_ranks(3, quiet(), [&](thread_communicator& comm) {
        try {
          body(comm);
          comm.barrier();
        } catch (const shardkit::error&) {
          ++told;
          throw;
        }
      });
    } catch (const shardkit::usage_error& wrong) {
      text = wrong.what();
    }
    CHECK(told == 3);
    return text;
  };
  const stored<float> table(2, 4);
  for (int bad : {6, -1}) {
    const std::string text = refusal([&](thread_communicator& comm) {
      vocabulary_embedding embedding(comm, table.view(), cut);
      const std::vector<int> ids{0, comm.rank() == 2 ? bad : 5};
      stored<float> y(2, 4);
      embedding.forward(ids, y.view());
    });
    CHECK(text.find("id " + std::to_string(bad) + " at position 1 is outside of the vocabulary of 6") !=
          std::string::npos);
  }
  for (std::size_t k : {0u, 7u}) {
    const std::string text = refusal([&](thread_communicator& comm) {
      vocabulary_head head(comm, table.view(), cut);
      const stored<float> logits(1, 2);
      stored<float> values(1, k);
      std::vector<int> ids(k);
      std::vector<std::byte> memory(1000);
      head.top_k(logits.view(), values.view(), matrix_view<int>(ids.data(), 1, k),
                 view<std::byte>(memory.data(), memory.size()));
    });
    CHECK(text.find("there is no top " + std::to_string(k) + " of 6 words") != std::string::npos);
  }
}
