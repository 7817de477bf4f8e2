// The seeds and their mutations against everything that reads what other processes send or leave; libFuzzer's run of
// the same target is the nightly one.
#include <doctest/doctest.h>
#include "fuzz_target.hpp"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
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
      case 0:
        if (!input.empty()) input[static_cast<std::size_t>(at)] ^= static_cast<unsigned char>(1u << below(8));
        break;
      case 1:
        if (!input.empty()) input[static_cast<std::size_t>(at)] = static_cast<unsigned char>(random());
        break;
      case 2: input.insert(input.begin() + at, static_cast<unsigned char>(random())); break;
      case 3:
        input.erase(
            input.begin() + at,
            input.begin() + at + static_cast<std::ptrdiff_t>(below(input.size() - static_cast<std::size_t>(at) + 1)));
        break;
      case 4: input.resize(below(input.size() + 1)); break;
      case 5: input.insert(input.end(), other.begin(), other.end()); break;
      default:
        for (std::size_t i = static_cast<std::size_t>(at); i < input.size() && i < static_cast<std::size_t>(at) + 8;
             ++i)
          input[i] = static_cast<unsigned char>(random() % 2 == 0 ? 0xff : 0);
    }
  }
}

}  // namespace

TEST_CASE("what comes from other processes is read safely, seeds and 20,000 mutations") {
  const std::vector<bytes> all = seeds();
  REQUIRE(all.size() >= 10);
  for (const bytes& one : all)
    for (unsigned char place = 0; place < fuzzing::place_count; ++place) {
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
    if (fuzzing::places[input[0] % fuzzing::place_count].slow && i % 16 != 0)
      input[0] = static_cast<unsigned char>(5 + i % 5);
    fuzzing::one_input(input.data(), input.size());
  }
}

TEST_CASE("a frame that breaks any one rule is refused as soon as its header is there") {
  namespace detail = shardkit::detail;
  detail::tcp_frame frame;
  frame.source = 1;
  frame.targets = {0, 4};
  frame.words = "sends";
  frame.payload.assign(100, 'x');
  const std::vector<char> good = encode(frame);
  const auto verdict = [](std::vector<char> wire, std::size_t place, std::uint64_t value, std::size_t width,
                          std::size_t cut) {
    for (std::size_t i = 0; i < width; ++i) wire[place + i] = static_cast<char>(value >> (8 * i));
    detail::tcp_frame_parser parser(5, 4096);
    parser.append(wire.data(), std::min(cut, wire.size()));
    detail::tcp_frame read;
    const auto result = parser.next(read);
    if (result == detail::tcp_frame_parser::outcome::frame) return std::string("frame");
    return std::string(parser.complaint() == nullptr ? "incomplete" : parser.complaint());
  };
  const std::size_t header = detail::tcp_frame_header, all = good.size();
  CHECK(verdict(good, 0, 1, 1, all) == "frame");
  for (std::size_t cut = 0; cut < all; ++cut) CHECK(verdict(good, 0, 1, 1, cut) == "incomplete");
  for (const std::uint64_t kind : {0u, 10u, 255u}) CHECK(verdict(good, 0, kind, 1, header) == "an unknown kind");
  CHECK(verdict(good, 1, shardkit::control_topics, 1, header) == "an unknown topic");
  for (const std::size_t place : {2u, 3u})
    CHECK(verdict(good, place, 1, 1, header) == "something where nothing may be");
  CHECK(verdict(good, 4, 5, 4, header) == "a source that is no rank");
  CHECK(verdict(good, 32, 6, 4, header) == "more targets than ranks");
  for (const std::uint64_t words : {4097u, 0x80000000u, 0xffffffffu})
    CHECK(verdict(good, 36, words, 4, header) == "words beyond the limit");
  for (const std::uint64_t bytes :
       {std::uint64_t{4097}, std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 55})
    CHECK(verdict(good, 40, bytes, 8, header) == "a payload beyond the limit");
  CHECK(verdict(good, header + 4, 5, 4, header + 8) == "a target that is no rank");

  frame.words.assign(5000, 'w');
  const std::vector<char> longest = encode(frame);
  detail::tcp_frame_parser parser(5, 4096);
  parser.append(longest.data(), longest.size());
  detail::tcp_frame read;
  CHECK(parser.next(read) == detail::tcp_frame_parser::outcome::frame);
  CHECK(read.words == std::string(4096, 'w'));
  CHECK(read.payload == frame.payload);
}
