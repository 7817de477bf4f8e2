// Where the ranks of a node are, for those who have waited too long for them.
#pragma once

#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace shardkit::detail {

/// Which call a rank is in, as its watchdog has seen it. Lies in shared memory.
class mpi_whereabouts {
 public:
  static constexpr std::size_t length = 160;

  void come(int world_rank) noexcept { rank_.store(world_rank); }
  int rank() const noexcept { return rank_.load(); }

  /// One look of the watchdog: empty text is "in no call".
  void note(const char* place) noexcept {
    for (std::size_t i = 0; i < length; ++i) {
      place_[i].store(place[i], memory_order_relaxed);
      if (place[i] == '\0') break;
    }
    beat();
  }
  void beat() noexcept { beats_.fetch_add(1); }
  std::uint32_t beats() const noexcept { return beats_.load(); }
  /// May be torn where the rank moves on meanwhile; who asks has waited long, and so have the others.
  std::string place() const {
    std::string text;
    for (const auto& character : place_) {
      const char one = character.load(memory_order_relaxed);
      if (one == '\0') break;
      text += one;
    }
    return text;
  }

  /// From now on the end of the process is no failure.
  void leave() noexcept { left_.store(true); }
  bool left() const noexcept { return left_.load(); }

 private:
  atomic<int> rank_{-1};
  atomic<std::uint32_t> beats_{0};
  atomic<bool> left_{false};
  atomic<char> place_[length] = {};
};

/// Who is elsewhere, or silent, from some moment on.
class mpi_roll_call {
 public:
  static constexpr double seconds = 0.5;  ///< until it can be told who is silent: some looks of the watchdogs

  void begin(const mpi_whereabouts* ranks, int size) {
    if (under_way()) return;
    ranks_ = ranks;
    beats_ = list<std::uint32_t>(static_cast<std::size_t>(size));
    for (std::size_t r = 0; r < beats_.size(); ++r) beats_[r] = ranks_[r].beats();
    start_ = now_seconds();
  }
  bool under_way() const noexcept { return ranks_ != nullptr; }
  double passed() const noexcept { return now_seconds() - start_; }

  /// "; rank 1 is in no call; rank 2 gives no sign of life", for all that are not in the call `here`.
  std::string absent(const std::string& here) const {
    std::string text;
    int named = 0;
    for (std::size_t r = 0; r < beats_.size(); ++r) {
      const std::string place = ranks_[r].place();
      const bool silent = ranks_[r].beats() == beats_[r];
      if (!silent && place == here) continue;
      if (++named > most_named) return text + "; and so on";
      text += "; rank " + std::to_string(ranks_[r].rank());
      if (silent) text += silence;
      else if (place.empty()) text += " is in no call";
      else text += " is in " + place;
    }
    return text;
  }
  static constexpr const char* silence = " gives no sign of life";

 private:
  static constexpr int most_named = 16;

  const mpi_whereabouts* ranks_ = nullptr;
  list<std::uint32_t> beats_;
  double start_ = 0;
};

}  // namespace shardkit::detail
