// The feed-forward block of a transformer, y = relu(x Up^T + b) Down^T + c, cut over three ranks: Up by rows
// (column-parallel: each rank makes some of the inner features), Down by columns (row-parallel: each rank reads those
// features, and the products are summed). One all_reduce for the whole block. 10 inner features on 3 ranks: 4, 3 and 3.
#include <shardkit/shardkit.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

using namespace shardkit;

constexpr std::size_t tokens = 2, hidden = 6, inner = 10;

std::vector<float> numbers(std::size_t count, unsigned seed) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>((seed = seed * 1103515245u + 12345u) >> 16) / 65536.0f - 0.5f;
  return values;
}

// The same block without any library, in double.
std::vector<double> serial(const std::vector<float>& x, const std::vector<float>& up, const std::vector<float>& b,
                           const std::vector<float>& down, const std::vector<float>& c) {
  std::vector<double> y;
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<double> features(b.begin(), b.end());
    for (std::size_t n = 0; n < inner; ++n)
      for (std::size_t k = 0; k < hidden; ++k) features[n] += double{x[t * hidden + k]} * up[n * hidden + k];
    for (std::size_t n = 0; n < hidden; ++n) {
      y.push_back(c[n]);
      for (std::size_t k = 0; k < inner; ++k) y.back() += std::max(features[k], 0.0) * down[n * inner + k];
    }
  }
  return y;
}

int main() {
  const auto x = numbers(tokens * hidden, 1);
  const auto up = numbers(inner * hidden, 2), b = numbers(inner, 3);     // [inner, hidden], [inner]
  const auto down = numbers(hidden * inner, 4), c = numbers(hidden, 5);  // [hidden, inner], [hidden]
  const auto expected = serial(x, up, b, down, c);

  run_ranks(3, [&](thread_communicator& comm) {
    const auto weights_up = matrix_view(up.data(), inner, hidden),
               weights_down = matrix_view(down.data(), hidden, inner);
    // [block]
    const auto cut = partition::balanced(inner, comm.size());
    const std::size_t first = cut.offset(comm.rank()), count = cut.count(comm.rank());
    const column_parallel_linear up_layer(comm, weights_up.row_range(first, count), cut,
                                          {.bias = view(b.data() + first, count)});
    const row_parallel_linear down_layer(comm, weights_down.column_range(first, count), cut,
                                         {.bias = view(c.data(), hidden)});  // added once, after the sum

    std::vector<float> features(tokens * count), y(tokens * hidden);
    const auto mine = up_layer.forward(matrix_view(x.data(), tokens, hidden),
                                       matrix_view(features.data(), tokens, count), reference_gemm());
    for (float& feature : features) feature = std::max(feature, 0.0f);
    down_layer.forward(mine, matrix_view(y.data(), tokens, hidden), reference_gemm());
    // [block]

    double difference = 0;
    for (std::size_t i = 0; i < y.size(); ++i) difference = std::max(difference, std::abs(y[i] - expected[i]));
    const auto worst = comm.all_reduce(difference, maximum);
    const auto counts = comm.exchange(count);
    if (comm.is_root())
      std::printf("inner features: %zu %zu %zu\ndifference to the serial block: %s\n", counts[0], counts[1], counts[2],
                  worst < 1e-6 ? "below 1e-6" : "TOO LARGE");
  });
}
