// The seeds and their mutations against everything that reads from a connection; libFuzzer's run of the same target is
// the nightly one.
#include <doctest/doctest.h>
#include "fuzz_target.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

namespace {

using bytes = std::vector<unsigned char>;

std::vector<bytes> seeds() {
  std::vector<bytes> all;
  for (const auto& entry : std::filesystem::directory_iterator(SHARDKIT_TEST_SEEDS)) {
    std::ifstream in(entry.path(), std::ios::binary);
    all.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return all;
}

/// A few of the things that go wrong with bytes.
void mutate(bytes& input, const bytes& other, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (std::size_t times = 1 + below(4); times > 0; --times) {
    const auto at = static_cast<std::ptrdiff_t>(below(input.size()));
    switch (below(7)) {
      case 0: if (!input.empty()) input[static_cast<std::size_t>(at)] ^= static_cast<unsigned char>(1u << below(8)); break;
      case 1: if (!input.empty()) input[static_cast<std::size_t>(at)] = static_cast<unsigned char>(random()); break;
      case 2: input.insert(input.begin() + at, static_cast<unsigned char>(random())); break;
      case 3: input.erase(input.begin() + at, input.begin() + at + static_cast<std::ptrdiff_t>(below(input.size() - static_cast<std::size_t>(at) + 1))); break;
      case 4: input.resize(below(input.size() + 1)); break;
      case 5: input.insert(input.end(), other.begin(), other.end()); break;
      default:
        for (std::size_t i = static_cast<std::size_t>(at); i < input.size() && i < static_cast<std::size_t>(at) + 8; ++i)
          input[i] = static_cast<unsigned char>(random() % 2 == 0 ? 0xff : 0);
    }
  }
}

}  // namespace

TEST_CASE("what comes over a connection is read safely, seeds and 20,000 mutations") {
  const std::vector<bytes> all = seeds();
  REQUIRE(all.size() >= 10);
  for (const bytes& one : all)
    for (unsigned char place = 0; place < 5; ++place) {
      bytes input = one;
      input[0] = place;
      fuzzing::one_input(input.data(), input.size());
    }
  std::mt19937 random(20261121);
  for (int i = 0; i < 20000; ++i) {
    bytes input = all[random() % all.size()];
    mutate(input, all[random() % all.size()], random);
    if (input.empty()) continue;
    // The doors and threads are the slow part: one input in sixteen.
    if (input[0] % 5 >= 2 && i % 16 != 0) input[0] = static_cast<unsigned char>(i % 2);
    fuzzing::one_input(input.data(), input.size());
  }
}
