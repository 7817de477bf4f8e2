// What the pipeline tests share: numbers that look random and are the same everywhere, pauses, and a serial model.
//
// The model: stage s maps a number v to (v * (s + 2) + s + 1) mod 8191. All values are whole and exact in a float, so
// results of any schedule equal the serial ones bit for bit.
#pragma once

#include <shardkit/launch/run_ranks.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace pipeline_test {

/// Reaches far beyond the 128 bytes that thread ranks deliver without meeting.
inline constexpr std::size_t width = 64;

inline std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
inline std::uint64_t mixed(std::uint64_t a, std::uint64_t b) { return mixed(mixed(a) ^ b); }

/// Seldom, and for differing times, lets the other ranks go ahead.
inline void pause_at_random(std::uint64_t seed) {
  const std::uint64_t draw = mixed(seed) % 64;
  if (draw < 3) std::this_thread::sleep_for(std::chrono::microseconds(50 + 100 * draw));
}

inline float input(std::size_t row, std::size_t column) {
  return static_cast<float>((row * 67 + column * 5 + 3) % 8191);
}

/// What stage s makes of v.
inline float staged(float v, int s) { return static_cast<float>((static_cast<int>(v) * (s + 2) + s + 1) % 8191); }

/// What a row of the batch has become behind all stages; another way to the same number.
inline double serial(std::size_t row, std::size_t column, int stages) {
  std::int64_t v = static_cast<std::int64_t>(row) * 67 + static_cast<std::int64_t>(column) * 5 + 3;
  for (std::int64_t factor = 2; factor < stages + 2; ++factor) v = (v * factor + factor - 1) % 8191;
  return static_cast<double>(v % 8191);
}

inline shardkit::launch_options within(double seconds) {
  shardkit::launch_options options;
  options.limits.operation = seconds;
  options.on_failure = nullptr;
  return options;
}

/// Until `done()`, at most so many seconds; whether it was.
template <class Done>
bool wait_until(Done done, double seconds = 20) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return true;
}

}  // namespace pipeline_test
