// The kernels against the host's operations, to the bit. On the double the grid is a loop on the host around the
// device's own code; how blocks work together shows on a GPU only.
#include "kernels.hpp"

#include "fixture.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

using shardkit::bfloat16;
using shardkit::buffer;
using shardkit::candidate;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::dtype;
using shardkit::float16;
using shardkit::matrix_view;
using shardkit::pinned_space;
using shardkit::reduction_kind;
using shardkit::view;
using namespace cuda_tests;

namespace {

using host = shardkit::operations<shardkit::host_space>;

struct kernel_machine : clean_machine {
  kernel_machine() { set_kernel_stand_ins(); }
};

// Numbers of all sizes and signs, with zeros of both signs and, where asked for, infinities and NaN.
template <class T>
std::vector<T> numbers(std::size_t count, unsigned seed, bool special = false) {
  std::vector<T> result(count);
  std::uint32_t state = seed * 2654435761u + 1;
  for (T& one : result) {
    state = state * 1664525u + 1013904223u;
    const float value = static_cast<float>(static_cast<std::int32_t>(state)) / 4e8f;
    one = static_cast<T>(std::is_unsigned_v<T> ? std::fabs(value) : value);
    if (special && state % 29 == 0) one = static_cast<T>(-0.0f);
    if constexpr (!std::is_integral_v<T>) {
      if (special && state % 31 == 0) one = static_cast<T>(std::nanf(""));
      if (special && state % 37 == 0) one = static_cast<T>(-HUGE_VALF);
    }
  }
  return result;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const bool both_nan = a[i] != a[i] && b[i] != b[i];  // payloads are unspecified
    if (!both_nan && std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return false;
  }
  return true;
}

// Rows with gaps between them.
template <class T>
matrix_view<T> gapped(std::vector<T>& of, std::size_t rows, std::size_t columns) {
  return {of.data(), rows, columns, columns + 2};
}
template <class T, class Owner>
matrix_view<T, cuda_space> gapped(Owner& of, std::size_t rows, std::size_t columns) {
  return {of.data(), rows, columns, columns + 2};
}

template <class T>
void check_cells(std::size_t rows, std::size_t columns) {
  const cuda_stream stream;
  const std::size_t size = rows * (columns + 2) + 1;
  std::vector<T> x = numbers<T>(size, 1), y = numbers<T>(size, 2, true), bias = numbers<T>(columns + 1, 3);
  auto device_x = on_device(x);
  const auto device_y = on_device(y), device_bias = on_device(bias);

  host::add_bias(gapped(x, rows, columns), view<const T>(bias.data(), columns));
  host::add(gapped(x, rows, columns), gapped(y, rows, columns));
  kernels<T>::add_bias(gapped<T>(device_x, rows, columns), view<const T, cuda_space>(device_bias.data(), columns),
                       stream);
  kernels<T>::add(gapped<T>(device_x, rows, columns), gapped<const T>(device_y, rows, columns), stream);
  CHECK(same(on_host(device_x, stream), x));

  // The last bit of an exponential is the library's business.
  std::vector<T> gate = numbers<T>(size, 4);
  const auto before = gate;
  auto device_gate = on_device(gate);
  std::vector<T> up = numbers<T>(size, 5);
  const auto device_up = on_device(up);
  kernels<T>::silu_multiply(gapped<T>(device_gate, rows, columns), gapped<const T>(device_up, rows, columns), stream);
  const auto result = on_host(device_gate, stream);
  for (std::size_t i = 0; i < size; ++i) {
    const bool inside = i / (columns + 2) < rows && i % (columns + 2) < columns;
    const double g = static_cast<double>(before[i]), u = static_cast<double>(up[i]);
    const double expected = inside ? g / (1 + std::exp(-g)) * u : g;
    const double tolerance = sizeof(T) == 2 ? 1.0 / 128 : 1e-5;
    CHECK(std::fabs(static_cast<double>(result[i]) - expected) <= tolerance * std::fabs(expected));
  }
}

}  // namespace

TEST_CASE("Bias, residual and gated activation on a device are the host's, on awkward shapes with gaps") {
  const kernel_machine machine;
  for (const std::size_t rows : extents{0, 1, 3, 17})
    for (const std::size_t columns : extents{0, 1, 2, 31, 300}) {
      CAPTURE(rows);
      CAPTURE(columns);
      check_cells<float>(rows, columns);
      check_cells<bfloat16>(rows, columns);
    }
}

TEST_CASE("Rows that a rank's table does not hold come out as zeros, whatever was there") {
  const kernel_machine machine;
  const cuda_stream stream;
  // The table goes on behind the rows that are this rank's.
  std::vector<float> table = numbers<float>(6 * 9, 1), rows(6 * 9, -1);
  const std::vector<std::int32_t> ids{12, 9, 10, 15, -1, 14};  // of 10 .. 14
  const auto device_table = on_device(table);
  const auto device_ids = on_device(ids);
  auto device_rows = on_device(rows);
  host::gather_rows(matrix_view<const float>(table.data(), 5, 7, 9), 10, view<const std::int32_t>(ids.data(), 6),
                    matrix_view<float>(rows.data(), 6, 7, 9));
  kernels<float>::gather_rows(matrix_view<const float, cuda_space>(device_table.data(), 5, 7, 9), 10,
                              view<const std::int32_t, cuda_space>(device_ids.data(), 6),
                              matrix_view<float, cuda_space>(device_rows.data(), 6, 7, 9), stream);
  CHECK(same(on_host(device_rows, stream), rows));
}

TEST_CASE("The first k candidates on a device are the host's: ties, NaN, infinities, and fewer columns than k") {
  const kernel_machine machine;
  const cuda_stream stream;
  for (const std::size_t columns : extents{0, 1, 5, 256, 1000})
    for (const std::size_t k : extents{0, 1, 3, 8}) {
      CAPTURE(columns);
      CAPTURE(k);
      constexpr std::size_t rows = 4;
      std::vector<bfloat16> scores = numbers<bfloat16>(rows * (columns + 2), 7, true);
      for (bfloat16& score : scores)
        if (static_cast<float>(score) > 3) score = bfloat16(3);  // ties
      const auto device_scores = on_device(scores);
      std::vector<candidate<bfloat16>> best(rows * k + 1, {5, 5});
      auto device_best = on_device(best);
      host::top_k(matrix_view<const bfloat16>(scores.data(), rows, columns, columns + 2), 100,
                  matrix_view<candidate<bfloat16>>(best.data(), rows, k));
      kernels<bfloat16>::top_k(
          matrix_view<const bfloat16, cuda_space>(device_scores.data(), rows, columns, columns + 2), 100,
          matrix_view<candidate<bfloat16>, cuda_space>(device_best.data(), rows, k), stream);
      const auto result = on_host(device_best, stream);
      bool equal = true;
      for (std::size_t i = 0; i < best.size(); ++i)
        equal = equal && result[i].index == best[i].index &&
                (result[i].score == best[i].score || result[i].score != result[i].score);
      CHECK(equal);
    }
}

TEST_CASE("Candidates of several ranks are merged on a device as on the host, with and without scores") {
  const kernel_machine machine;
  const cuda_stream stream;
  constexpr std::size_t ranks = 3, rows = 2, k = 5, columns = 4;
  std::vector<candidate<float>> lists(ranks * rows * k);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    std::vector<float> scores = numbers<float>(rows * columns, static_cast<unsigned>(rank), true);
    host::top_k(matrix_view<const float>(scores.data(), rows, columns), rank * columns,
                matrix_view<candidate<float>>(lists.data() + rank * rows * k, rows, k));
  }
  for (const bool with_scores : {true, false}) {
    auto device_lists = on_device(lists);
    auto scratch = lists;
    std::vector<float> scores(rows * k, -1);
    std::vector<std::int32_t> indices(rows * (k + 1), -7);
    auto device_scores = on_device(scores);
    auto device_indices = on_device(indices);
    host::merge_top_k(view<candidate<float>>(scratch.data(), scratch.size()), ranks,
                      with_scores ? matrix_view<float>(scores.data(), rows, k) : matrix_view<float>(),
                      matrix_view<std::int32_t>(indices.data(), rows, k, k + 1));
    kernels<float>::merge_top_k(
        view<candidate<float>, cuda_space>(device_lists.data(), device_lists.size()), ranks,
        with_scores ? matrix_view<float, cuda_space>(device_scores.data(), rows, k) : matrix_view<float, cuda_space>(),
        matrix_view<std::int32_t, cuda_space>(device_indices.data(), rows, k, k + 1), stream);
    CHECK(on_host(device_indices, stream) == indices);
    CHECK(same(on_host(device_scores, stream), scores));
  }
}

namespace {

template <class T>
void check_reductions(dtype type) {
  constexpr std::size_t most_ranks = 9, most = 67;
  const cuda_stream stream;
  buffer<T, cuda_space> device_in(most_ranks * most + 1), device_out(most);
  buffer<T, pinned_space> staging(most_ranks * most + 1);
  // The first `count` elements, from `from` on, after all that the stream holds.
  const auto fetch = [&](const T* from, std::size_t count) {
    cuda_space::copy(staging.data(), from, count * sizeof(T), stream);
    synchronize(stream, deadline);
    return std::vector<T>(staging.begin(), staging.begin() + count);
  };
  for (const std::size_t ranks : extents{1, 2, 5, 9})
    for (const std::size_t count : extents{0, 1, 16, 67})
      for (const std::size_t shift : extents{0, 1})  // off the 16 bytes of a vector
        for (int k = 0; k <= static_cast<int>(reduction_kind::bit_xor); ++k) {
          const reduction_kind kind = static_cast<reduction_kind>(k);
          if (!is_reducible(type, kind)) continue;
          CAPTURE(ranks);
          CAPTURE(count);
          CAPTURE(shift);
          CAPTURE(k);
          std::vector<T> in = numbers<T>(ranks * count, static_cast<unsigned>(k), true), out(count);
          if (type == dtype::boolean)
            for (T& one : in) one = static_cast<T>(one != T(0));
          T* const first = device_in.data() + shift;
          std::copy(in.begin(), in.end(), staging.begin());
          cuda_space::copy(first, staging.data(), in.size() * sizeof(T), stream);
          std::vector<const void*> inputs, device_inputs;
          for (std::size_t rank = 0; rank < ranks; ++rank) {
            inputs.push_back(in.data() + rank * count);
            device_inputs.push_back(first + rank * count);
          }
          void* target = out.data();
          const int n = static_cast<int>(ranks);
          shardkit::detail::ordered_reduce_of<shardkit::dtype_of<T>>()(kind, inputs.data(), n, &target, 1, count);
          ordered_reduce(kind, type, device_inputs.data(), n, device_out.data(), count, stream);
          CHECK(same(fetch(device_out.data(), count), out));
          // Side by side, the result in the place of rank 0.
          ordered_reduce_blocks(kind, type, first, n, first, count, stream);
          CHECK(same(fetch(first, count), out));
        }
}

}  // namespace

TEST_CASE("Ordered reductions on a device have the bits of the host's, from vectors and element by element") {
  const kernel_machine machine;
  check_reductions<double>(dtype::f64);
  check_reductions<float>(dtype::f32);
  check_reductions<float16>(dtype::f16);
  check_reductions<bfloat16>(dtype::bf16);
  check_reductions<std::int32_t>(dtype::i32);
  check_reductions<std::uint8_t>(dtype::boolean);
}

TEST_CASE("A reduction that is not defined, or of too many buffers, is refused") {
  const kernel_machine machine;
  buffer<float, cuda_space> out(1);
  const std::vector<const void*> inputs(129, out.data());
  CHECK_THROWS_AS(ordered_reduce(reduction_kind::bit_and, dtype::f32, inputs.data(), 2, out.data(), 1, {}),
                  shardkit::unsupported_error);
  CHECK_THROWS_AS(ordered_reduce(reduction_kind::sum, dtype::f8e4m3, inputs.data(), 2, out.data(), 1, {}),
                  shardkit::unsupported_error);
  CHECK_THROWS_WITH_AS(ordered_reduce(reduction_kind::sum, dtype::f32, inputs.data(), 129, out.data(), 1, {}),
                       doctest::Contains("side by side"), shardkit::usage_error);
}

TEST_CASE("A launch that fails is an error that names the kernel and the caller's line") {
  const kernel_machine machine;
  if (!shardkit_double::active()) return;
  const cuda_stream stream;
  buffer<float, cuda_space> memory(4);
  const matrix_view<float, cuda_space> x(memory.data(), 2, 2);
  shardkit_double::fail_call("cudaLaunchKernel", 1, cudaErrorLaunchOutOfResources);
  const std::string place = "kernels.cpp:" + std::to_string(__LINE__ + 2);
  try {
    kernels<float>::add(x, x, stream);
    FAIL("nothing was thrown");
  } catch (const shardkit::cuda_error& failure) {
    const std::string what = failure.what();
    CAPTURE(what);
    CHECK(what.find("add<<<>>> failed: cudaErrorLaunchOutOfResources") != std::string::npos);
    CHECK(what.find(place) != std::string::npos);
  }
}
