// One illegal hand-over between layers for each value of MISUSE; MISUSE 0 is right and must compile.
#include <shardkit/backends/self.hpp>
#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/vocabulary.hpp>

#include <vector>

using namespace shardkit;

// A space that is not the host, with just what naming it needs.
struct device_space : host_space {
  struct stream {};
};

void use(self_communicator& comm) {
  std::vector<float> memory(64);
  std::vector<double> doubles(64);
  std::vector<int> ids(2);
  std::vector<std::byte> bytes(1024);
  const view workspace(bytes.data(), bytes.size());
  const matrix_view square(memory.data(), 4, 4), x(memory.data(), 2, 4), y(memory.data() + 8, 2, 4);
  const matrix_view<const float> constant = y;
  const matrix_view<float, device_space> far(memory.data(), 2, 4);
  const matrix_view other_type(doubles.data(), 2, 4);
  const partition cut = partition::balanced(4, 1);
  const reference_gemm gemm;
  column_parallel_linear up(comm, square, cut);
  row_parallel_linear down(comm, square, cut);
  vocabulary_head head(comm, square, cut);
  const sharded hidden = up.forward(x, y, gemm);
  const partial sums = down.partial(hidden, x, gemm);
  const replicated whole = down.finish(sums);

#if MISUSE == 0
  up.forward(whole, y, gemm);
  down.forward(whole, y, gemm);
  down.forward(hidden, y, gemm);
  down.finish(x);
  head.argmax(head.local_logits(whole, y, gemm), ids, workspace);
#elif MISUSE == 1
  up.forward(hidden, y, gemm);
#elif MISUSE == 2
  up.forward(sums, y, gemm);
#elif MISUSE == 3
  down.forward(sums, y, gemm);
#elif MISUSE == 4
  down.finish(whole);
#elif MISUSE == 5
  down.finish(hidden);
#elif MISUSE == 6
  head.local_logits(hidden, y, gemm);
#elif MISUSE == 7
  head.argmax(whole, ids, workspace);
#elif MISUSE == 8
  up.forward(far, y, gemm);
#elif MISUSE == 9
  up.forward(x, constant, gemm);
#elif MISUSE == 10
  up.forward(other_type, y, gemm);
#elif MISUSE == 11
  up.forward(x, y, 3);
#elif MISUSE == 12
  operations<device_space>::add_bias(far, view<const float, device_space>(memory.data(), 4));
#elif MISUSE == 13
  operations<device_space>::merge_top_k(far);
#elif MISUSE == 14
  up.forward_gathered(hidden, y, gemm, workspace);
#endif
  (void)whole, (void)sums, (void)far, (void)constant, (void)other_type, (void)workspace;
}
