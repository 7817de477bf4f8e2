// An engine with raw buffers and kernels of its own, made parallel without changing either: its tensors go to the verbs
// as they are, its GEMM over 8-bit weights goes into the parallel layers.
#include <shardkit/shardkit.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// ---- The engine, which knows nothing of ranks --------------------------------------------------------------------

namespace engine {

struct tensor {
  float* data;
  std::size_t rows, columns;
};

// A row of weights is 8-bit numbers and one factor: the layout of many quantised formats.
struct quantised {
  const std::int8_t* numbers;
  const float* factors;  // one a row
  std::size_t rows, columns;
};

void multiply(const float* x, const quantised& weights, float* y, std::size_t row_stride, std::size_t tokens) {
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t n = 0; n < weights.rows; ++n) {
      float dot = 0;
      for (std::size_t k = 0; k < weights.columns; ++k)
        dot += x[t * weights.columns + k] * static_cast<float>(weights.numbers[n * weights.columns + k]);
      y[t * row_stride + n] = dot * weights.factors[n];
    }
}

}  // namespace engine

// ---- What makes it parallel --------------------------------------------------------------------------------------

// [adapt]
namespace engine {

// Found by the verbs: from here on an engine::tensor is an argument like any other.
inline shardkit::view<float> view_of(const tensor& t) { return {t.data, t.rows * t.columns}; }
inline shardkit::matrix_view<float> matrix_of(const tensor& t) { return {t.data, t.rows, t.columns}; }

// The engine's kernel as the layers call it. They never look into the weights.
struct gemm {
  void operator()(shardkit::matrix_view<const float> x, const quantised& weights, shardkit::matrix_view<float> y,
                  const shardkit::gemm_args<float>&, shardkit::host_space::stream) const {
    multiply(x.data(), weights, y.data(), y.row_stride(), x.rows());
  }
};

}  // namespace engine
// [adapt]

using namespace shardkit;
using quantised_layer = column_parallel_linear<thread_communicator, engine::quantised, float>;

int main() {
  constexpr std::size_t tokens = 3, in = 8, out = 10;
  static float x[tokens * in], whole[tokens * out], factors[out];
  static std::int8_t numbers[out * in];
  for (std::size_t i = 0; i < tokens * in; ++i) x[i] = static_cast<float>(i % 5);
  for (std::size_t i = 0; i < out * in; ++i) numbers[i] = static_cast<std::int8_t>(i * 37 % 255 - 127);
  for (std::size_t n = 0; n < out; ++n) factors[n] = 1.0f / static_cast<float>(n + 1);
  engine::multiply(x, {numbers, factors, out, in}, whole, out, tokens);

  run_ranks(4, [&](thread_communicator& comm) {
    // [layer]
    const auto cut = partition::balanced(out, comm.size());  // 3, 3, 2 and 2 rows of the weights
    const std::size_t first = cut.offset(comm.rank()), count = cut.count(comm.rank());
    const engine::quantised mine{numbers + first * in, factors + first, count, in};
    const quantised_layer layer(comm, mine, cut);

    engine::tensor y{static_cast<float*>(std::malloc(sizeof whole)), tokens, out};
    buffer<std::byte> workspace(layer.workspace_bytes(tokens));
    layer.forward_gathered(matrix_view<const float>(x, tokens, in), matrix_of(y), engine::gemm(), view_of(workspace));
    // [layer]
    const bool same = std::equal(whole, whole + tokens * out, y.data);

    comm.all_reduce(in_place(y), sum);  // the engine's own type, in place
    const bool summed = y.data[1] == static_cast<float>(comm.size()) * whole[1];
    std::free(y.data);
    const int right = comm.all_reduce(same && summed ? 1 : 0, sum);
    if (comm.is_root())
      std::printf("8-bit layer equals the unsplit one, bit for bit, on %d of %d ranks\n", right, comm.size());
  });
}
