// Reductions in rank order have the bits of a serial loop over the ranks, also where they take several rounds.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include "support/mpi_world.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using namespace shardkit;

namespace {

// Magnitudes far apart, so that the order of a sum shows in its bits; now and then a zero of either sign, an infinity
// or a NaN.
template <class T>
std::vector<T> values_of(int rank, std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(977 * rank + 1));
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const float magnitude = std::ldexp(1.0f, static_cast<int>(random() % 20) - 10);
    float value = (static_cast<float>(random() % 20001) / 10000.0f - 1.0f) * magnitude;
    const auto special = random() % 40;
    if (special == 0) value = 0.0f;
    if (special == 1) value = -0.0f;
    if (special == 2 && i % 7 == 0) value = std::numeric_limits<float>::infinity();
    if (special == 3 && i % 11 == 0) value = std::numeric_limits<float>::quiet_NaN();
    values[i] = static_cast<T>(value);
  }
  return values;
}

// Bits as a number that orders floats as minimum and maximum do: -0 below +0.
template <class T>
double place_in_order(T value) {
  const double wide = static_cast<double>(value);
  return wide == 0 ? (std::signbit(wide) ? -1e-300 : 1e-300) : wide;
}

template <class T>
T expected(reduction_kind kind, const std::vector<std::vector<T>>& inputs, std::size_t i) {
  using wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
  if (kind == reduction_kind::minimum || kind == reduction_kind::maximum) {
    T best = inputs[0][i];
    for (const auto& input : inputs) {
      if (std::isnan(static_cast<double>(input[i]))) return input[i];
      const double difference = place_in_order(input[i]) - place_in_order(best);
      if (kind == reduction_kind::minimum ? difference < 0 : difference > 0) best = input[i];
    }
    return best;
  }
  volatile wide total = static_cast<wide>(inputs[0][i]);
  for (std::size_t r = 1; r < inputs.size(); ++r) {
    const wide next = static_cast<wide>(inputs[r][i]);
    total = kind == reduction_kind::product ? total * next : total + next;
  }
  if (kind == reduction_kind::average) total = total / static_cast<wide>(inputs.size());
  return static_cast<T>(static_cast<wide>(total));
}

template <class T>
bool same_bits(T a, T b) {
  if (std::isnan(static_cast<double>(a)) || std::isnan(static_cast<double>(b)))
    return std::isnan(static_cast<double>(a)) && std::isnan(static_cast<double>(b));
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// First element of `got` that differs from the reduction of elements [offset, ...); got.size() where none does.
template <class T>
std::size_t first_wrong(const std::vector<T>& got, reduction_kind kind, const std::vector<std::vector<T>>& inputs,
                        std::size_t offset) {
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!same_bits(got[i], expected(kind, inputs, offset + i))) return i;
  return got.size();
}

template <class T>
void check_all(mpi_communicator& world, reduction op, std::size_t count) {
  const auto size = static_cast<std::size_t>(world.size()), rank = static_cast<std::size_t>(world.rank());
  INFO(name_of(dtype_of<T>), " ", name_of(op.kind), " of ", count);
  std::vector<std::vector<T>> inputs;
  for (int r = 0; r < world.size(); ++r) inputs.push_back(values_of<T>(r, count));
  const std::vector<T>& mine = inputs[rank];

  std::vector<T> all(count);
  world.all_reduce(mine, all, op);
  CHECK(first_wrong(all, op.kind, inputs, 0) == count);
  std::vector<T> both = mine;
  world.all_reduce(in_place(both), op);
  CHECK(first_wrong(both, op.kind, inputs, 0) == count);

  const int root = world.size() - 1;
  std::vector<T> at_root(world.rank() == root ? count : 0);
  world.reduce(mine, at_root, op, root);
  CHECK(first_wrong(at_root, op.kind, inputs, 0) == at_root.size());
  both = mine;
  world.reduce(in_place(both), op, 0);
  if (world.rank() == 0) CHECK(first_wrong(both, op.kind, inputs, 0) == count);
  else CHECK(std::equal(both.begin(), both.end(), mine.begin(), same_bits<T>));

  // The first rank gets nothing, the last the most.
  std::vector<std::size_t> counts(size);
  std::size_t left = count;
  for (std::size_t r = size; r-- > 1; left -= counts[r]) counts[r] = r == 1 ? left : left * 2 / 3;
  if (size == 1) counts[0] = count;
  const auto layout = partition::from_counts(counts);
  std::vector<T> part(counts[rank]);
  world.reduce_scatter(mine, part, op, layout);
  CHECK(first_wrong(part, op.kind, inputs, layout.offset(world.rank())) == part.size());
  both = mine;
  view<T> own(both.data() + layout.offset(world.rank()), counts[rank]);
  world.reduce_scatter(both, own, op, layout);
  part.assign(own.begin(), own.end());
  CHECK(first_wrong(part, op.kind, inputs, layout.offset(world.rank())) == part.size());
  for (std::size_t i = 0; i < count; ++i)
    if (&both[i] < own.begin() || &both[i] >= own.end()) REQUIRE(std::memcmp(&both[i], &mine[i], sizeof(T)) == 0);

  const std::size_t each = count / size;
  std::vector<T> equal(each);
  world.reduce_scatter(view(mine.data(), each * size), equal, op);
  CHECK(first_wrong(equal, op.kind, inputs, each * rank) == each);
}

template <class T>
void check_type(mpi_communicator& world) {
  for (const reduction_kind kind : {reduction_kind::sum, reduction_kind::product, reduction_kind::minimum,
                                    reduction_kind::maximum, reduction_kind::average})
    for (const std::size_t count : {0u, 1u, 3u, 1000u, 5003u}) check_all<T>(world, by_rank({kind}), count);
}

}  // namespace

TEST_CASE("reductions in rank order have the bits of a serial loop, for every floating type") {
  auto world = shardkit_test::mpi().world();
  check_type<double>(world);
  check_type<float>(world);
  check_type<float16>(world);
  check_type<bfloat16>(world);
}

TEST_CASE("reductions in rank order that take several rounds have the bits of a serial loop") {
  auto world = shardkit_test::mpi().world();
  check_all<float>(world, by_rank(sum), 700001);
  check_all<bfloat16>(world, average, 1400003);
  check_all<double>(world, maximum, 300007);
}

TEST_CASE("sixteen-bit sums and floating extremes are in rank order without by_rank") {
  auto world = shardkit_test::mpi().world();
  for (const std::size_t count : {7u, 10007u}) {
    check_all<float16>(world, sum, count);
    check_all<bfloat16>(world, product, count);
    check_all<float>(world, minimum, count);
  }
}

TEST_CASE("long reduce_scatters of MPI's own types are exact in place and beside it") {
  auto world = shardkit_test::mpi().world();
  const auto size = static_cast<std::size_t>(world.size()), rank = static_cast<std::size_t>(world.rank());
  for (const std::size_t each : {1000u, 300007u}) {  // in one call of MPI's, and in rounds
    std::vector<std::int32_t> in(each * size), out(each);
    for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<std::int32_t>(i % 1000 + rank);
    const auto wanted = [&](std::size_t i) {
      return static_cast<std::int32_t>(((each * rank + i) % 1000) * size + size * (size - 1) / 2);
    };
    world.reduce_scatter(in, out, sum);
    view<std::int32_t> own(in.data() + each * rank, each);
    world.reduce_scatter(in, own, sum);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < each; ++i) wrong += (out[i] != wanted(i)) + (own[i] != wanted(i));
    CHECK(wrong == 0);
  }
}
