// Bodies of the decode ring tests for a communicator of any kind and size.
#pragma once

#include "support.hpp"

#include <shardkit/pipeline/decode_ring.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pipeline_test {

using shardkit::decode_ring;
using shardkit::dtype;
using shardkit::hop;
using shardkit::port;

/// One decoding of several groups: their prompts, how long each goes on, and what the serial model makes of them.
///
/// A step's row i, column k starts as (seed + 31 i + k) mod 8191, with the group's seed at step 0 and later the number
/// that was fed back; every stage also adds how many rows it has seen of that group, as a cache of keys and values
/// would. The sum of the last stage's rows is fed back.
struct decoding {
  std::uint64_t seed;
  int groups;

  int steps(int group) const { return 1 + static_cast<int>(draw(group, -1) % 9); }
  /// Longer at first; later mostly 1, but also 0 and 3.
  std::size_t rows(int group, int step) const {
    const std::uint64_t number = draw(group, step);
    if (step == 0) return 1 + number % most_rows;
    return number % 4 == 0 ? number / 4 % 4 : 1;
  }
  static constexpr std::size_t most_rows = 6;

  int first_number(int group) const { return static_cast<int>(draw(group, -2) % 8191); }

  /// The number fed back after each step.
  std::vector<std::int64_t> serial_feedback(int group, int stages) const {
    std::vector<std::int64_t> feedback;
    std::vector<std::int64_t> seen(static_cast<std::size_t>(stages));
    std::int64_t number = first_number(group);
    for (int step = 0; step < steps(group); ++step) {
      std::int64_t sum = 0;
      for (std::size_t i = 0; i < rows(group, step); ++i)
        for (std::size_t k = 0; k < width; ++k) {
          std::int64_t v = (number + 31 * static_cast<std::int64_t>(i) + static_cast<std::int64_t>(k)) % 8191;
          for (int s = 0; s < stages; ++s) v = (v * (s + 2) + s + 1 + seen[static_cast<std::size_t>(s)]) % 8191;
          sum += v;
        }
      for (auto& one : seen) one += static_cast<std::int64_t>(rows(group, step));
      feedback.push_back(sum);
      number = sum % 8191;
    }
    return feedback;
  }

 private:
  std::uint64_t draw(int group, int step) const {
    return mixed(seed, mixed(static_cast<std::uint64_t>(group), static_cast<std::uint64_t>(step + 2)));
  }
};

inline std::vector<port> ring_ports() {
  return {{"hidden", dtype::f32, width, decoding::most_rows}, {"position", dtype::i32, 1, decoding::most_rows}};
}
/// Two rows, larger than what thread ranks deliver without meeting.
inline port ring_feedback() { return {"sum", dtype::i64, 20, 2}; }

/// Decodes on all stages and compares every number fed back with the serial run.
template <class Communicator>
void ring_equals_serial(decode_ring<Communicator>& ring, const decoding& all) {
  const auto index = [](int group) { return static_cast<std::size_t>(group); };
  std::vector<std::vector<std::int64_t>> fed_back(index(all.groups));
  std::vector<std::size_t> seen(index(all.groups));
  std::vector<int> next_step(index(all.groups));
  std::vector<std::int64_t> number(index(all.groups));
  for (int group = 0; group < all.groups; ++group) number[index(group)] = all.first_number(group);

  ring.run(
      all.groups, [&](int group, int step) { return all.rows(group, step); },
      [&](int group, int step, const hop<>& in, hop<>& out, hop<>& feedback) {
        pause_at_random(mixed(all.seed, static_cast<std::uint64_t>((step * 64 + group) * 8 + ring.index())));
        const std::size_t rows = all.rows(group, step);
        bool right = step == next_step[index(group)]++ && out.rows() == rows;
        right = right && in.rows() == (ring.is_first() ? 0 : rows) && feedback.rows() == (ring.is_last() ? 2 : 0);
        const auto x = in.matrix<float>("hidden");
        const auto y = out.matrix<float>("hidden");
        const auto position = out.matrix<std::int32_t>("position");
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < rows; ++i) {
          position(i, 0) = step * 100 + static_cast<std::int32_t>(i);
          right = right && (ring.is_first() || in.matrix<std::int32_t>(1)(i, 0) == position(i, 0));
          for (std::size_t k = 0; k < width; ++k) {
            const std::size_t start = static_cast<std::size_t>(number[index(group)]) + 31 * i + k;
            const float v = ring.is_first() ? static_cast<float>(start % 8191) : x(i, k);
            const auto mine = static_cast<std::size_t>(v) * static_cast<std::size_t>(ring.index() + 2) +
                              static_cast<std::size_t>(ring.index() + 1) + seen[index(group)];
            y(i, k) = static_cast<float>(mine % 8191);
            sum += static_cast<std::int64_t>(y(i, k));
          }
        }
        seen[index(group)] += rows;
        if (ring.is_last()) {
          feedback.matrix<std::int64_t>("sum")(0, 0) = sum;
          feedback.matrix<std::int64_t>(0)(1, 19) = -sum;
        }
        CHECK(right);
      },
      [&](int group, int step, const hop<>& feedback) {
        CHECK(ring.is_first());
        CHECK(static_cast<std::size_t>(step) == fed_back[index(group)].size());
        const auto values = feedback.matrix<std::int64_t>("sum");
        CHECK(values.rows() == 2);
        CHECK(values(1, 19) == -values(0, 0));
        fed_back[index(group)].push_back(values(0, 0));
        number[index(group)] = values(0, 0) % 8191;
        return step + 1 < all.steps(group);
      });

  for (int group = 0; group < all.groups; ++group) {
    CHECK(next_step[index(group)] == all.steps(group));
    if (ring.is_first()) CHECK(fed_back[index(group)] == all.serial_feedback(group, ring.count()));
  }
}

/// One ring for `groups` groups decodes several times, with all groups and with fewer.
template <class Communicator>
void ring_decodes_again_and_again(Communicator& comm, int groups, int times) {
  comm.barrier();  // fails if the ring before has left something unsent
  decode_ring<Communicator> ring(comm, ring_ports(), ring_feedback(), groups);
  CHECK(ring.groups() == groups);
  CHECK(ring.index() == comm.rank());
  for (int time = 0; time < times; ++time) {
    const std::uint64_t draw = mixed(static_cast<std::uint64_t>(time));
    const int active = time == 0 ? groups : static_cast<int>(draw % static_cast<std::uint64_t>(groups + 1));
    CAPTURE(groups);
    CAPTURE(active);
    ring_equals_serial(ring, {mixed(static_cast<std::uint64_t>(time), static_cast<std::uint64_t>(groups)), active});
  }
}

/// From one group, with which every stage waits for the next one's feedback, to more than keep all stages busy.
template <class Communicator>
void ring_over_all_group_counts(Communicator& comm, int times) {
  for (int groups = 1; groups <= 2 * comm.size() + 2; ++groups) ring_decodes_again_and_again(comm, groups, times);
}

}  // namespace pipeline_test
