// Marks that a process is inside a call, so that the watchdog can tell where it is stuck. This is all that the
// machinery around failures costs in a call: two loads, a branch and three stores.
#pragma once

#include <shardkit/backends/detail/mpi_failure_board.hpp>
#include <shardkit/comm/calls.hpp>
#include <shardkit/core/detail/atomic.hpp>

#include <cstdint>
#include <type_traits>

namespace shardkit::detail {

/// The calls of a list by number, from 1.
template <class List>
struct numbered_calls;
template <class... Calls>
struct numbered_calls<call_list<Calls...>> {
  template <class Call>
  static constexpr std::uint64_t number() noexcept {
    std::uint64_t at = 0;
    bool found = false;
    ((found = found || std::is_same_v<Call, Calls>, at += found ? 0u : 1u), ...);
    return at + 1;
  }
  static constexpr const char* names[] = {"", Calls::name...};
};

/// The call that a communicator is in. Written by the rank, read by the watchdog. No clock is read here: the watchdog
/// marks a call when it first sees it and counts from then.
struct mpi_call_slot {
  using verbs = numbered_calls<all_calls>;

  mpi_call_slot(const mpi_failure_board* failures, double seconds) noexcept : board(failures), limit(seconds) {}

  atomic<const mpi_failure_board*> board;
  /// Line and number of a verb in one word, which takes one instruction to write: 24 bits and 7. Above them `seen`.
  atomic<std::uint64_t> call{0};
  atomic<const char*> file{""};
  atomic<const char*> name{""};  ///< of a call that is no verb

  const double limit;  ///< the deadline of its calls, in seconds
  double waited = 0;   ///< the watchdog's own: since it first saw the call

  static constexpr std::uint64_t of(std::uint64_t number, int line) noexcept {
    return number << 24 | (static_cast<std::uint64_t>(line) & 0xffffff);
  }
  static constexpr std::uint64_t no_verb = 127, seen = std::uint64_t{1} << 32;

  // What a word says.
  static std::uint64_t number(std::uint64_t word) noexcept { return word >> 24 & 127; }  ///< 0: in no call
  static unsigned line(std::uint64_t word) noexcept { return static_cast<unsigned>(word & 0xffffff); }
  const char* name_of(std::uint64_t word) const noexcept {
    return number(word) == no_verb ? name.load() : verbs::names[number(word)];
  }
};

/// Scope of one call.
class mpi_in_call {
 public:
  /// Throws peer_failed instead of entering where the launch has failed.
  mpi_in_call(mpi_call_slot& slot, const char* name, const call_site& site) : slot_(slot) {
    const mpi_failure_board* board = slot.board.load(memory_order_relaxed);
    if (!board->clear()) [[unlikely]]
      board->throw_failure();
    enter(name, site);
  }

  /// For the calls that end things after a failure.
  struct even_after_failure {};
  mpi_in_call(mpi_call_slot& slot, const char* name, const call_site& site, even_after_failure) noexcept : slot_(slot) {
    enter(name, site);
  }

  /// For a verb that has asked whether it may.
  static bool is_allowed(const mpi_call_slot& slot) noexcept { return slot.board.load(memory_order_relaxed)->clear(); }
  template <class Call>
  [[gnu::always_inline]] mpi_in_call(mpi_call_slot& slot, const Call& call) noexcept : slot_(slot) {
    enter(mpi_call_slot::verbs::number<Call>(), call.site);
  }

  mpi_in_call(const mpi_in_call&) = delete;
  mpi_in_call& operator=(const mpi_in_call&) = delete;
  [[gnu::always_inline]] ~mpi_in_call() { slot_.call.store(0, memory_order_relaxed); }

 private:
  void enter(const char* name, const call_site& site) noexcept {
    slot_.name.store(name, memory_order_relaxed);
    enter(mpi_call_slot::no_verb, site);
  }
  [[gnu::always_inline]] void enter(std::uint64_t number, const call_site& site) noexcept {
    slot_.file.store(site.file, memory_order_relaxed);
    slot_.call.store(mpi_call_slot::of(number, site.line), memory_order_release);
  }

  mpi_call_slot& slot_;
};

}  // namespace shardkit::detail
