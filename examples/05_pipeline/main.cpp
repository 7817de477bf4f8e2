// Five layers over two stages, a batch of 10 rows in microbatches of 3, 3, 2 and 2: while stage 1 computes one
// microbatch, stage 0 is at the next. The result comes back to all ranks.
#include <shardkit/shardkit.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

using namespace shardkit;

constexpr std::size_t rows = 10, width = 4, layers = 5;

// Stands for a layer of the engine: in place.
void layer(matrix_view<float> x, std::size_t index) {
  for (std::size_t r = 0; r < x.rows(); ++r)
    for (float& value : x.row(r)) value = 2 * value + static_cast<float>(index);
}

int main() {
  std::vector<float> batch(rows * width);
  for (std::size_t i = 0; i < batch.size(); ++i) batch[i] = static_cast<float>(i);

  run_ranks(2, [&](thread_communicator& comm) {
    const matrix_view<const float> input(batch.data(), rows, width);
    std::vector<float> result(rows * width);
    const matrix_view<float> output(result.data(), rows, width);
    // [pipeline]
    const partition mine = balance(layers, comm.size());       // 3 and 2 layers
    stage pipeline(comm, {{"hidden", dtype::f32, width, 4}});  // what passes between stages: at most 4 rows of `width`
    pipeline.forward(partition::balanced(rows, 4), [&](const microbatch& part, const auto& in, auto& out) {
      auto x = out.template matrix<float>("hidden");
      if (pipeline.is_first()) copy(x, input.row_range(part.first, part.rows));
      else copy(x, in.template matrix<float>("hidden"));
      for (std::size_t i = 0; i < mine.count(comm.rank()); ++i) layer(x, mine.offset(comm.rank()) + i);
      if (pipeline.is_last()) copy(output.row_range(part.first, part.rows), x);
    });
    deliver(comm, result, delivery::all);
    // [pipeline]

    auto expected = batch;
    for (std::size_t i = 0; i < layers; ++i) layer(matrix_view(expected.data(), rows, width), i);
    const int right = comm.all_reduce(result == expected ? 1 : 0, sum);
    const auto counts = comm.exchange(mine.count(comm.rank()));
    if (comm.is_root())
      std::printf("layers per stage: %zu %zu\nresult equals the serial one on %d of %d ranks\n", counts[0], counts[1],
                  right, comm.size());
  });
}
