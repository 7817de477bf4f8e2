// The same layers over another backend: uneven gathers, candidates as bytes and sums go through MPI.
#include "dense_model.hpp"
#include "support/mpi_world.hpp"

#include <shardkit/tensor/packed_column_linear.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>
#include <shardkit/tensor/simd_gemm.hpp>
#include <shardkit/tensor/vocabulary.hpp>

#include <doctest/doctest.h>

#include <vector>

using dense::matrix;
using dense::stored;
using shardkit::partition;
using shardkit::simd_gemm;
using shardkit::view;

TEST_CASE("Embedding, packed and row-parallel layers, gathers and the output head agree with the dense model") {
  auto comm = shardkit_test::mpi().world();
  const int rank = comm.rank(), size = comm.size();
  constexpr std::size_t words = 11, hidden = 4, features = 7, tokens = 3;
  const matrix table = dense::exact(words, hidden, 1), gate_up = dense::exact(2 * features, hidden, 2),
               down = dense::exact(hidden, features, 3), bias = dense::exact(1, hidden, 4);
  const std::vector<int> ids{10, 0, 5};

  matrix embedded(tokens, hidden);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t c = 0; c < hidden; ++c) embedded(t, c) = table(static_cast<std::size_t>(ids[t]), c);
  const matrix inner = dense::times_transposed(embedded, gate_up);
  matrix gate(tokens, features);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t f = 0; f < features; ++f) gate(t, f) = inner(t, f);
  matrix result = dense::times_transposed(gate, down);
  dense::add_row(result, bias);
  const matrix logits = dense::times_transposed(result, table);

  for (const partition& cut : dense::cuts(features, size))
    for (const partition& vocabulary : dense::cuts(words, size)) {
      const std::size_t count = cut.count(rank), offset = cut.offset(rank);
      const stored<float> ts(table, vocabulary.offset(rank), vocabulary.count(rank), 0, hidden),
          gs(gate_up, offset, count, 0, hidden), us(gate_up, features + offset, count, 0, hidden),
          ds(down, 0, hidden, offset, count), bs(bias);
      shardkit::vocabulary_embedding embedding(comm, ts.view(), vocabulary);
      shardkit::packed_column_linear up(comm, std::vector{gs.view(), us.view()},
                                        shardkit::segmented_partition::repeated(2, cut));
      shardkit::row_parallel_linear back(comm, ds.view(), cut, {.bias = bs.flat()});
      shardkit::vocabulary_head head(comm, ts.view(), vocabulary);
      shardkit::column_parallel_linear gathered(comm, ts.view(), vocabulary);

      stored<float> x(tokens, hidden), h(tokens, 2 * count), y(tokens, hidden), l(tokens, vocabulary.count(rank)),
          whole(tokens, words);
      std::vector<std::byte> memory(4096);
      const view<std::byte> workspace(memory.data(), memory.size());
      const auto made = up.forward(embedding.forward(ids, x.view()), h.view(), simd_gemm());
      CHECK(dense::wrong(x.view(), embedded) == 0);
      const auto out = back.forward(made[0], y.view(), simd_gemm());
      CHECK(dense::wrong(y.view(), result) == 0);
      CHECK(dense::wrong(gathered.forward_gathered(out, whole.view(), simd_gemm(), workspace).data, logits) == 0);

      std::vector<int> best(tokens);
      head.argmax(head.local_logits(out, l.view(), simd_gemm()), best, workspace);
      for (std::size_t t = 0; t < tokens; ++t) {
        std::size_t highest = 0;
        for (std::size_t word = 1; word < words; ++word)
          if (logits(t, word) > logits(t, highest)) highest = word;
        CHECK(static_cast<std::size_t>(best[t]) == highest);
      }
    }
}
