// How a rank waits for another, or for a device: briefly by spinning, then by yielding, so that more ranks than cores
// make progress, at last by sleeping for a small share of the time already waited.
#pragma once

#include <sched.h>
#include <time.h>

#include <cstddef>

namespace shardkit::detail {

[[gnu::noinline]] inline double now_seconds() noexcept {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

inline timespec timespec_of(double seconds) noexcept {
  timespec time{};
  time.tv_sec = static_cast<time_t>(seconds);
  time.tv_nsec = static_cast<long>((seconds - static_cast<double>(time.tv_sec)) * 1e9);
  return time;
}
[[gnu::noinline]] inline void sleep_seconds(double seconds) noexcept {
  const timespec time = timespec_of(seconds);
  nanosleep(&time, nullptr);
}

inline void pause_core() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Whether there are cores for that many ranks.
inline bool have_cores(int ranks) noexcept {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 && ranks <= CPU_COUNT(&allowed);
}
/// How often to look before giving up the core: not at all worth it where ranks share cores.
constexpr int spins_for(bool crowded) noexcept { return crowded ? 20 : 20000; }

enum class wait_result { ready, interrupted, expired };

/// A question that a wait asks again and again, by reference: what waits for long is then compiled once.
class condition {
 public:
  template <class Holds>
  condition(Holds& holds) noexcept
      : of_(const_cast<void*>(static_cast<const void*>(&holds))),
        holds_([](void* of) -> bool { return (*static_cast<Holds*>(of))(); }) {}
  bool operator()() const { return holds_(of_); }

 private:
  void* of_;
  bool (*holds_)(void*);
};

/// Asks at most `spins` times whether `ready()`.
template <class Ready>
bool spin_until(int spins, Ready&& ready) {
  // A pause takes about as long as a line takes from one core to another: at first there is none.
  constexpr int eager = 1000;
  for (int i = 0; i < spins; ++i) {
    if (ready()) return true;
    if (i >= eager) pause_core();
  }
  return false;
}

/// Waits until `ready`, without spinning.
[[gnu::noinline]] inline wait_result yield_until(double seconds, const condition& ready, const condition& interrupted) {
  const double start = now_seconds();
  for (;;) {
    // In this order: what is ready by the time of an interruption still counts as ready.
    const bool stop = interrupted();
    if (ready()) return wait_result::ready;
    if (stop) return wait_result::interrupted;
    const double waited = now_seconds() - start;
    if (waited > seconds) return wait_result::expired;
    constexpr double yielding = 20e-3, longest_sleep = 1e-3;
    if (waited < yielding) sched_yield();
    else sleep_seconds(waited / 16 < longest_sleep ? waited / 16 : longest_sleep);
  }
}

/// Waits until `ready()`. `interrupted()` is asked only off the fast path. `seconds` may be infinite.
template <class Ready, class Interrupted>
wait_result wait_for(int spins, double seconds, Ready&& ready, Interrupted&& interrupted) {
  return spin_until(spins, ready) ? wait_result::ready : yield_until(seconds, ready, interrupted);
}

}  // namespace shardkit::detail
