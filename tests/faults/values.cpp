// Numbers that are none, on thread ranks and under mpiexec alike: NaN and infinities arrive where they should, with
// their bits where nothing is computed, and every rank gets the same.
#include <shardkit/testing/on_ranks.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

using shardkit::in_place;
using shardkit::testing::on_ranks;

constexpr float infinite = std::numeric_limits<float>::infinity();

std::uint32_t bits_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
float from_bits(std::uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Quiet and signalling, either sign, with a payload that tells whose it is.
std::vector<float> strange_values(int rank) {
  const auto payload = static_cast<std::uint32_t>(rank + 1);
  return {from_bits(0x7fc00000u | payload),
          from_bits(0xffc00000u | payload),
          from_bits(0x7f800000u | payload),
          infinite,
          -infinite,
          -0.0f,
          from_bits(payload)};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Inline and by reference, one element and many.
const std::vector<std::size_t> copies{1, 3000};

std::vector<float> repeated(const std::vector<float>& values, std::size_t times) {
  std::vector<float> all;
  for (std::size_t i = 0; i < times; ++i) all.insert(all.end(), values.begin(), values.end());
  return all;
}

}  // namespace

TEST_CASE("what is only moved keeps the bits of its NaNs") {
  on_ranks([](auto& comm) {
    const auto ranks = static_cast<std::size_t>(comm.size());
    for (std::size_t times : copies) {
      const auto mine = repeated(strange_values(comm.rank()), times);
      for (int root = 0; root < comm.size(); ++root) {
        auto data = mine;
        comm.broadcast(data, root);
        CHECK(same_bits(data, repeated(strange_values(root), times)));
      }
      std::vector<float> all(mine.size() * ranks), theirs(mine.size()), expected;
      comm.all_gather(mine, all);
      for (int rank = 0; rank < comm.size(); ++rank) {
        const auto part = repeated(strange_values(rank), times);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      CHECK(same_bits(all, expected));
      const int before = (comm.rank() + comm.size() - 1) % comm.size();
      comm.send_recv(mine, (comm.rank() + 1) % comm.size(), theirs, before);
      CHECK(same_bits(theirs, repeated(strange_values(before), times)));
    }
  });
}

TEST_CASE("one NaN makes the sum, the minimum and the maximum NaN on every rank") {
  on_ranks([](auto& comm) {
    for (std::size_t count : {std::size_t{1}, std::size_t{20000}})
      for (int culprit = 0; culprit < comm.size(); ++culprit)
        for (const auto& op : {shardkit::sum, shardkit::minimum, shardkit::maximum, by_rank(shardkit::sum)}) {
          std::vector<float> x(count, 1.0f);
          if (comm.rank() == culprit) x.back() = std::nanf("");
          comm.all_reduce(in_place(x), op);
          CHECK(std::isnan(x.back()));
          if (count > 1) CHECK(!std::isnan(x.front()));
        }
  });
}

TEST_CASE("infinities add up to infinity, and to NaN where their signs differ") {
  on_ranks([](auto& comm) {
    std::vector<float> x{infinite, -infinite, comm.rank() == 0 ? infinite : -infinite, comm.rank() == 0 ? infinite : 1,
                         std::numeric_limits<float>::max()};
    comm.all_reduce(in_place(x), shardkit::sum);
    const bool alone = comm.size() == 1;
    CHECK(x[0] == infinite);
    CHECK(x[1] == -infinite);
    CHECK((alone ? x[2] == infinite : std::isnan(x[2])));
    CHECK(x[3] == infinite);
    CHECK((alone || x[4] == infinite));
    // The same bits everywhere, NaN included.
    std::vector<float> all(x.size() * static_cast<std::size_t>(comm.size()));
    comm.all_gather(x, all);
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(bits_of(all[i]) == bits_of(x[i % x.size()]));
  });
}
