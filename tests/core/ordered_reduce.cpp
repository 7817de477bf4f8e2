#include <shardkit/core/buffer.hpp>
#include <shardkit/core/ordered_reduce.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

using shardkit::bfloat16;
using shardkit::float16;
using shardkit::reduction_kind;

namespace {

constexpr std::size_t lengths[] = {0, 1, 2, 17, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 9000};

// Elements as an array: std::vector<bool> would pack them.
template <class T>
struct row {
  explicit row(std::size_t n) : size(n), data(new T[n + 1]()) {}
  row(row&&) = default;
  std::size_t size;
  std::unique_ptr<T[]> data;
};

// Rank r's element i is make(r, i); the reduction goes to an output of its own and, for rank 1 on, over an input.
template <class T, class Make>
row<T> reduced(reduction_kind kind, int ranks, std::size_t n, Make make) {
  std::vector<row<T>> rows;
  std::vector<const void*> inputs;
  for (int rank = 0; rank < ranks; ++rank) {
    rows.emplace_back(n);
    for (std::size_t i = 0; i < n; ++i) rows.back().data[i] = make(rank, i);
    inputs.push_back(rows.back().data.get());
  }
  row<T> out(n);
  const T untouched = make(0, n + 1);
  out.data[n] = untouched;
  void* const outputs[] = {out.data.get(), rows.back().data.get()};
  shardkit::ordered_reduce<T>(kind, inputs.data(), ranks, outputs, 2, n);
  CHECK(std::memcmp(out.data.get(), rows.back().data.get(), n * sizeof(T)) == 0);
  CHECK(std::memcmp(&out.data[n], &untouched, sizeof(T)) == 0);
  return out;
}

// 64 bits for every rank and index, the same at every call (the mixing function of splitmix64, by Steele, Lea and
// Flood: Fast Splittable Pseudorandom Number Generators, 2014).
std::uint64_t noise_bits(int rank, std::size_t i) {
  std::uint64_t z = (static_cast<std::uint64_t>(rank) * 1000003 + i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Between -1 and 1.
double noise(int rank, std::size_t i) { return static_cast<double>(noise_bits(rank, i) >> 11) * 0x1p-52 - 1; }

template <class T>
T number(double x) {
  if constexpr (std::is_constructible_v<T, float> && !std::is_floating_point_v<T>) return T(static_cast<float>(x));
  else return static_cast<T>(x);
}

// Sums, products and averages of floats: against double arithmetic, within the roundings of the accumulation and of
// the result.
template <class T>
void check_floats(double step, double result_step) {
  for (int ranks = 1; ranks <= 9; ++ranks)
    for (const std::size_t n : lengths) {
      const auto value = [](int rank, std::size_t i) { return number<T>(noise(rank, i)); };
      const row<T> sum = reduced<T>(reduction_kind::sum, ranks, n, value);
      const row<T> product = reduced<T>(reduction_kind::product, ranks, n, value);
      const row<T> average = reduced<T>(reduction_kind::average, ranks, n, value);
      int wrong = 0;
      for (std::size_t i = 0; i < n; ++i) {
        double added = 0, multiplied = 1, size = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const double x = static_cast<double>(static_cast<float>(value(rank, i)));
          const double exact = std::is_same_v<T, double> ? noise(rank, i) : x;
          added += exact;
          multiplied *= exact;
          size += std::abs(exact);
        }
        const double accumulated = ranks * step * size;
        const double smallest = 1e-7;  // of subnormal halves
        const double got = static_cast<double>(sum.data[i]), got_product = static_cast<double>(product.data[i]),
                     got_average = static_cast<double>(average.data[i]);
        if (!(std::abs(got - added) <= accumulated + result_step * std::abs(added) + smallest * result_step)) ++wrong;
        if (!(std::abs(got_average - added / ranks) <=
              accumulated / ranks + result_step * std::abs(added) / ranks + smallest))
          ++wrong;
        if (!(std::abs(got_product - multiplied) <= (ranks * step + result_step) * std::abs(multiplied) + smallest))
          ++wrong;
      }
      CHECK(wrong == 0);
    }
}

template <class T>
T awkward(int rank, std::size_t i) {
  const double values[] = {0.0, -0.0, 1.5, -2.25, INFINITY, -INFINITY, NAN, 3.0, -0.0, 0.0, 0.5};
  return number<T>(values[(static_cast<std::size_t>(rank) * 5 + i + i / 11 * static_cast<std::size_t>(rank)) % 11]);
}

// By sorting keys: -0 below +0, and a NaN anywhere wins.
template <class T>
void check_extremes() {
  for (const bool smallest : {true, false})
    for (int ranks = 1; ranks <= 9; ++ranks)
      for (const std::size_t n : lengths) {
        const row<T> out =
            reduced<T>(smallest ? reduction_kind::minimum : reduction_kind::maximum, ranks, n, awkward<T>);
        int wrong = 0;
        for (std::size_t i = 0; i < n; ++i) {
          bool any_nan = false;
          std::vector<std::pair<double, int>> keys;
          for (int rank = 0; rank < ranks; ++rank) {
            const double x = static_cast<double>(awkward<T>(rank, i));
            if (std::isnan(x)) any_nan = true;
            else keys.emplace_back(x, std::signbit(x) ? 0 : 1);
          }
          const double got = static_cast<double>(out.data[i]);
          if (any_nan) {
            wrong += !std::isnan(got);
          } else {
            const auto expected =
                smallest ? *std::min_element(keys.begin(), keys.end()) : *std::max_element(keys.begin(), keys.end());
            wrong += !(got == expected.first && std::signbit(got) == (expected.second == 0));
          }
        }
        CHECK(wrong == 0);
      }
}

// In 128 bits, then the low ones: what wrapping around means.
template <class T>
void check_integers() {
  const auto value = [](int rank, std::size_t i) {
    if (i % 5 == 0) return std::numeric_limits<T>::max();
    if (i % 5 == 1) return std::numeric_limits<T>::min();
    return static_cast<T>(noise_bits(rank, i));
  };
  using kind = reduction_kind;
  for (const kind op :
       {kind::sum, kind::product, kind::minimum, kind::maximum, kind::bit_and, kind::bit_or, kind::bit_xor})
    for (int ranks = 1; ranks <= 9; ++ranks)
      for (const std::size_t n : lengths) {
        const row<T> out = reduced<T>(op, ranks, n, value);
        int wrong = 0;
        for (std::size_t i = 0; i < n; ++i) {
          std::uint64_t wrapped = static_cast<std::uint64_t>(value(0, i));
          T extreme = value(0, i);
          for (int rank = 1; rank < ranks; ++rank) {
            const T x = value(rank, i);
            const std::uint64_t bits = static_cast<std::uint64_t>(x);
            if (op == kind::sum) wrapped += bits;
            if (op == kind::product) wrapped *= bits;
            if (op == kind::bit_and) wrapped &= bits;
            if (op == kind::bit_or) wrapped |= bits;
            if (op == kind::bit_xor) wrapped ^= bits;
            if (op == kind::minimum ? x < extreme : x > extreme) extreme = x;
          }
          const bool ordered = op == kind::minimum || op == kind::maximum;
          wrong += out.data[i] != (ordered ? extreme : static_cast<T>(wrapped));
        }
        CHECK(wrong == 0);
      }
}

}  // namespace

TEST_CASE("Sums, products and averages of floats agree with double arithmetic") {
  check_floats<double>(0x1p-52, 0x1p-52);
  check_floats<float>(0x1p-23, 0x1p-23);
  check_floats<float16>(0x1p-23, 0x1p-11);
  check_floats<bfloat16>(0x1p-23, 0x1p-8);
}

TEST_CASE("Floats are summed in rank order, bit by bit") {
  const std::size_t n = 2000;
  const auto value = [](int rank, std::size_t i) { return static_cast<float>(noise(rank, i)); };
  const row<float> out = reduced<float>(reduction_kind::sum, 7, n, value);
  int wrong = 0;
  for (std::size_t i = 0; i < n; ++i) {
    volatile float expected = value(0, i);
    for (int rank = 1; rank < 7; ++rank) expected = expected + value(rank, i);
    const float rounded = expected;
    wrong += std::bit_cast<std::uint32_t>(rounded) != std::bit_cast<std::uint32_t>(out.data[i]);
  }
  CHECK(wrong == 0);
}

TEST_CASE("16-bit floats are accumulated in float and rounded once") {
  // Each 1 is lost where the sum is rounded to 16 bits after every rank: 2048 + 1 = 2048 in half precision.
  const auto half = [](int rank, std::size_t) { return float16(rank == 0 ? 2048.0f : 1.0f); };
  CHECK(static_cast<float>(reduced<float16>(reduction_kind::sum, 9, 5, half).data[4]) == 2056.0f);
  const auto brain = [](int rank, std::size_t) { return bfloat16(rank == 0 ? 256.0f : 1.0f); };
  CHECK(static_cast<float>(reduced<bfloat16>(reduction_kind::sum, 9, 5, brain).data[4]) == 264.0f);
  // A sum beyond the range of half precision has an average within it.
  const auto large = [](int, std::size_t) { return float16(60000.0f); };
  CHECK(static_cast<float>(reduced<float16>(reduction_kind::average, 4, 5, large).data[0]) == 60000.0f);
  CHECK(std::isinf(static_cast<float>(reduced<float16>(reduction_kind::sum, 4, 5, large).data[0])));
}

TEST_CASE("Minimum and maximum give NaN where any rank has one, and order -0 below +0") {
  check_extremes<double>();
  check_extremes<float>();
  check_extremes<float16>();
  check_extremes<bfloat16>();
}

TEST_CASE("Integers wrap around, signed ones too") {
  check_integers<std::int8_t>();
  check_integers<std::uint8_t>();
  check_integers<std::int16_t>();
  check_integers<std::uint16_t>();
  check_integers<std::int32_t>();
  check_integers<std::uint32_t>();
  check_integers<std::int64_t>();
  check_integers<std::uint64_t>();
}

TEST_CASE("bool is reduced by logic") {
  using kind = reduction_kind;
  for (int ranks = 1; ranks <= 5; ++ranks)
    for (const kind op : {kind::minimum, kind::maximum, kind::bit_and, kind::bit_or, kind::bit_xor}) {
      // Index i holds every combination of the ranks' values.
      const auto value = [](int rank, std::size_t i) { return (i >> rank & 1) != 0; };
      const std::size_t n = 1u << ranks;
      const row<bool> out = reduced<bool>(op, ranks, n, value);
      for (std::size_t i = 0; i < n; ++i) {
        const int set = std::popcount(i);
        const bool expected = op == kind::bit_xor                          ? set % 2 == 1
                              : op == kind::minimum || op == kind::bit_and ? set == ranks
                                                                           : set > 0;
        CHECK(out.data[i] == expected);
      }
    }
}

TEST_CASE("Every output gets the same bits, and no output is fine") {
  const float a[] = {1, 2, 3}, b[] = {10, 20, 30};
  float x[3], y[3], z[3];
  const void* const inputs[] = {a, b};
  void* const outputs[] = {x, y, z};
  shardkit::ordered_reduce<float>(reduction_kind::sum, inputs, 2, outputs, 3, 3);
  for (const float* out : {x, y, z}) CHECK((out[0] == 11 && out[1] == 22 && out[2] == 33));
  shardkit::ordered_reduce<float>(reduction_kind::sum, inputs, 2, outputs, 0, 3);
}

namespace {

// Bits at random: every kind of number, NaN included, whose payload is unspecified; and zeros of either sign.
template <class T>
T any_value(int rank, std::size_t i) {
  const std::uint64_t noise = noise_bits(rank, i);
  const std::uint64_t bits = i % 4 != 0 ? noise : (noise & 1) << (8 * sizeof(T) - 1);
  if constexpr (requires { T::from_bits(std::uint16_t()); }) return T::from_bits(static_cast<std::uint16_t>(bits));
  else if constexpr (sizeof(T) == 8) return std::bit_cast<T>(bits);
  else if constexpr (sizeof(T) == 4) return std::bit_cast<T>(static_cast<std::uint32_t>(bits));
  else return static_cast<T>(bits);
}
template <class T>
bool same_value(T a, T b) {
  const auto is_nan = [](T x) {
    if constexpr (std::is_integral_v<T>) return false;
    else return std::isnan(static_cast<double>(static_cast<shardkit::detail::accumulator<T>>(x)));
  };
  return std::memcmp(&a, &b, sizeof a) == 0 || (is_nan(a) && is_nan(b));
}

template <class T, reduction_kind Kind>
void compare_units(int divisor = 1) {
  using namespace shardkit::detail;
  constexpr int ranks = 3;
  constexpr std::size_t n = 517;
  std::vector<std::vector<T>> rows(ranks, std::vector<T>(n));
  for (int rank = 0; rank < ranks; ++rank)
    for (std::size_t i = 0; i < n; ++i) rows[static_cast<std::size_t>(rank)][i] = any_value<T>(rank, i);
  const auto run = [&](auto kernel, std::size_t first, std::size_t count, T* out) {
    const void* inputs[ranks];
    for (std::size_t rank = 0; rank < ranks; ++rank) inputs[rank] = rows[rank].data() + first;
    void* const outputs[] = {out};
    decltype(kernel)::template run<Kind, T>(inputs, ranks, outputs, 1, 0, count, divisor);
  };
  std::vector<T> one_by_one(n), vectors(n);
  for (std::size_t i = 0; i < n; ++i) run(baseline_reduce(), i, 1, &one_by_one[i]);
  const auto compare = [&](auto kernel) {
    run(kernel, 0, n, vectors.data());
    CHECK(std::equal(vectors.begin(), vectors.end(), one_by_one.begin(), same_value<T>));
  };
  compare(baseline_reduce());
#if defined(__x86_64__)
  if (best_vector_unit() >= vector_unit::avx2) compare(avx2_reduce());
  if constexpr (Kind == reduction_kind::sum && !std::is_integral_v<T>) {
    if (best_vector_unit() >= vector_unit::avx512) compare(avx512_reduce());
  }
#endif
}
template <class T>
void compare_floats() {
  compare_units<T, reduction_kind::sum>();
  compare_units<T, reduction_kind::sum>(3);
  compare_units<T, reduction_kind::product>();
  compare_units<T, reduction_kind::minimum>();
  compare_units<T, reduction_kind::maximum>();
}
template <class T>
void compare_integers() {
  compare_units<T, reduction_kind::minimum>();
  compare_units<T, reduction_kind::maximum>();
  compare_units<std::make_unsigned_t<T>, reduction_kind::sum>();
  compare_units<std::make_unsigned_t<T>, reduction_kind::product>();
  compare_units<std::make_unsigned_t<T>, reduction_kind::bit_and>();
  compare_units<std::make_unsigned_t<T>, reduction_kind::bit_or>();
  compare_units<std::make_unsigned_t<T>, reduction_kind::bit_xor>();
}

}  // namespace

TEST_CASE("Every vector unit gives the bits of elements combined one by one") {
  compare_floats<double>();
  compare_floats<float>();
  compare_floats<float16>();
  compare_floats<bfloat16>();
  compare_integers<std::int8_t>();
  compare_integers<std::int64_t>();
}

TEST_CASE(
    "Sums of bfloat16 that are subnormal, or rounded up to a number that is not, are those of elements one by one") {
  using namespace shardkit::detail;
  constexpr std::size_t n = 1024;
  std::vector<bfloat16> rows[2], vectors(n), one_by_one(n);
  for (int rank = 0; rank < 2; ++rank)
    for (std::size_t i = 0; i < n; ++i)
      rows[rank].push_back(bfloat16::from_bits(static_cast<std::uint16_t>(noise_bits(rank, i) & 0x80ff)));
  const void* const inputs[] = {rows[0].data(), rows[1].data()};
  void* const one[] = {one_by_one.data()};
  void* const all[] = {vectors.data()};
  reduce_one_by_one<reduction_kind::sum, bfloat16>(inputs, 2, one, 1, 0, n, 3);
  shardkit::detail::reduce_all(kernels_of<reduction_kind::sum, bfloat16>, inputs, 2, all, 1, n, 3);
  CHECK(std::memcmp(vectors.data(), one_by_one.data(), n * sizeof(bfloat16)) == 0);
  CHECK(std::any_of(vectors.begin(), vectors.end(),
                    [](bfloat16 x) { return (x.bits & 0x7f80) == 0 && x.bits % 2 != 0; }));
}

#if defined(SHARDKIT_STREAMING_STORES)
namespace {

// Sums of `n` elements, written to two places that begin `skipped` elements after a line, with the bytes around them.
template <class T>
void compare_streamed(std::size_t n, std::size_t skipped) {
  using namespace shardkit::detail;
  constexpr std::size_t line = 64 / sizeof(T);
  std::vector<T> rows[2];
  for (int rank = 0; rank < 2; ++rank)
    for (std::size_t i = 0; i < n; ++i) rows[rank].push_back(any_value<T>(rank, i));
  const void* const inputs[] = {rows[0].data(), rows[1].data()};
  shardkit::buffer<T> plain(n + 3 * line), first(n + 3 * line), second(n + 3 * line);
  for (auto* memory : {&plain, &first, &second}) std::fill_n(memory->data(), memory->size(), T(7));
  void* const alone[] = {plain.data() + skipped};
  void* const both[] = {first.data() + skipped, second.data() + line + skipped};
  baseline_reduce::run<reduction_kind::sum, T>(inputs, 2, alone, 1, 0, n, 2);
  reduce_by_vectors(kernels_of<reduction_kind::sum, T>, inputs, 2, both, 2, n, 2, has_streaming_stores);
  CHECK(std::equal(plain.data(), plain.data() + n + 2 * line, first.data(), same_value<T>));
  CHECK(std::equal(plain.data(), plain.data() + n + 2 * line, second.data() + line, same_value<T>));
}

}  // namespace

TEST_CASE("Sums written past the caches are those written through them, wherever they begin and end") {
  if (shardkit::detail::best_vector_unit() == shardkit::detail::vector_unit::baseline) return;
  for (std::size_t n : {0u, 1u, 31u, 64u, 127u, 1031u})
    for (std::size_t skipped : {0u, 1u, 3u, 7u}) {
      compare_streamed<double>(n, skipped);
      compare_streamed<float>(n, skipped);
      compare_streamed<float16>(n, skipped);
      compare_streamed<bfloat16>(n, skipped);
    }
}

TEST_CASE("Results are written past the caches where no cache holds them and lines are written whole") {
  using shardkit::detail::streams_outputs;
  alignas(64) static char memory[256];
  const std::size_t large = std::size_t{1} << 40;
  const void* const inputs[] = {memory, memory + 64};
  const auto streams = [&](void* first, void* second, std::size_t bytes, std::size_t element) {
    void* const outputs[] = {first, second};
    return streams_outputs(inputs, 2, outputs, 2, bytes, element);
  };
  CHECK(streams(memory + 128, memory + 192, large, 4));
  CHECK(streams(memory + 132, memory + 196, large, 4));
  CHECK_FALSE(streams(memory + 128, memory + 192, 4096, 4));   // small
  CHECK_FALSE(streams(memory + 128, memory + 196, large, 4));  // not alike
  CHECK_FALSE(streams(memory + 130, memory + 194, large, 4));  // in the middle of an element
  CHECK_FALSE(streams(memory + 128, memory + 64, large, 4));   // in place
}
#endif

TEST_CASE("Every reducible dtype has its function, and 8-bit floats have none") {
  using shardkit::dtype;
  using shardkit::detail::ordered_reduce_of;
  static_assert(ordered_reduce_of<dtype::f8e4m3>() == nullptr && ordered_reduce_of<dtype::f8e5m2>() == nullptr);
  CHECK((ordered_reduce_of<dtype::f64>() == &shardkit::ordered_reduce<double>));
  CHECK((ordered_reduce_of<dtype::bf16>() == &shardkit::ordered_reduce<bfloat16>));
  CHECK((ordered_reduce_of<dtype::boolean>() == &shardkit::ordered_reduce<bool>));
  CHECK((ordered_reduce_of<shardkit::dtype_of<unsigned long long>>() == &shardkit::ordered_reduce<std::uint64_t>));
}
