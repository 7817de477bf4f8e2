// A program of its own, because it counts the calls of operator new of every thread.
#include "dense_model.hpp"

#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/cblas_gemm.hpp>
#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <shardkit/tensor/vocabulary.hpp>
#include <support/counted_heap.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <vector>

using counted_heap::allocations;
using dense::stored;
using shardkit::partition;
using shardkit::simd_gemm;
using shardkit::thread_communicator;
using shardkit::view;

TEST_CASE("A decoding step of a divided model allocates nothing once it has run") {
  for (int size : {1, 2, 3}) {
    long during = -1;
    shardkit::run_ranks(size, [&](thread_communicator& comm) {
      const int rank = comm.rank();
      constexpr std::size_t hidden = 12, rows = 3;
      const partition words = partition::balanced(10, size),
                      features = partition::from_counts([&] {
                        std::vector<std::size_t> counts(static_cast<std::size_t>(size), 5);
                        counts.front() = 9;
                        return counts;
                      }());
      const shardkit::qkv_cut heads(6, 2, 2, size);
      const stored<float> table(words.count(rank), hidden), qkv_weights(heads.rows().count(rank), hidden),
          o_weights(hidden, heads.q().count(rank)), gate_up(2 * features.count(rank), hidden),
          down(hidden, features.count(rank)), bias(1, hidden), gathered_weights(features.count(rank), hidden);
      shardkit::vocabulary_embedding embedding(comm, table.view(), words);
      shardkit::qkv_parallel_linear qkv(comm, qkv_weights.view(), heads);
      shardkit::row_parallel_linear o(comm, o_weights.view(), heads.q(), {.bias = bias.flat()});
      shardkit::gated_mlp mlp(comm, gate_up.view(), down.view(), features);
      shardkit::column_parallel_linear wide(comm, gathered_weights.view(), features);
      shardkit::vocabulary_head head(comm, table.view(), words);

      stored<float> x(rows, hidden), y(rows, hidden), q(rows, qkv.columns()), logits(rows, words.count(rank)),
          whole(rows, features.total()), values(rows, 4);
      std::vector<int> ids{1, 9, 4}, best(rows), top(rows * 4);
      std::vector<std::byte> memory(1 << 16);
      const view<std::byte> workspace(memory.data(), memory.size());
      const auto step = [&] {
        const auto embedded = embedding.forward(ids, x.view());
        const auto parts = qkv.forward(embedded, q.view(), simd_gemm());
        o.forward(parts.q, y.view(), simd_gemm(), embedded.data);
        mlp.forward(y.view(), x.view(), shardkit::cblas_gemm(), shardkit::silu_multiply(), workspace);
        wide.forward_gathered(x.view(), whole.view(), simd_gemm(), workspace);
        const auto made = head.local_logits(x.view(), logits.view(), simd_gemm());
        head.argmax(made, best, workspace);
        head.top_k(made, values.view(), shardkit::matrix_view<int>(top.data(), rows, 4), workspace);
      };
      step();
      comm.barrier();
      const long before = allocations;
      comm.barrier();
      for (int i = 0; i < 3; ++i) step();
      comm.barrier();
      if (rank == 0) during = allocations - before;
      comm.barrier();
    });
    CHECK(during == 0);
  }
}
