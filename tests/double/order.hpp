// Which access comes before which: a vector clock with one component for each stream, and for each allocation who
// touched which bytes last. A clock advances by stream order, events and synchronisations alone, so that what they do
// not order is found whether or not the timing of this run shows it.
#pragma once

#include <double/operation.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace shardkit_double {

/// Of each stream, by its slot, how many of its operations are known to come before.
class vector_clock {
 public:
  std::uint64_t at(std::size_t slot) const noexcept { return slot < seen_.size() ? seen_[slot] : 0; }

  void join(const vector_clock& other) {
    if (other.seen_.size() > seen_.size()) seen_.resize(other.seen_.size(), 0);
    for (std::size_t slot = 0; slot < other.seen_.size(); ++slot)
      seen_[slot] = std::max(seen_[slot], other.seen_[slot]);
  }

  /// One more operation on the stream of `slot`; its number.
  std::uint64_t advance(std::size_t slot) {
    if (slot >= seen_.size()) seen_.resize(slot + 1, 0);
    return ++seen_[slot];
  }

 private:
  std::vector<std::uint64_t> seen_;
};

/// An operation as the history of memory remembers it.
struct stamp {
  std::size_t slot = 0;
  std::uint64_t number = 0;           ///< 0: nobody
  const std::string* name = nullptr;  ///< for reports; lives until reset()

  bool before(const vector_clock& clock) const noexcept { return clock.at(slot) >= number; }
  friend bool operator==(const stamp& a, const stamp& b) noexcept { return a.slot == b.slot && a.number == b.number; }
};

/// Who wrote the bytes of an allocation last, and who has read them since.
class access_history {
 public:
  /// Enters an access to bytes [begin, end) and calls `conflict(earlier, earlier_mode, first, last)` for each earlier
  /// access that `clock` does not put before it.
  template <class Conflict>
  void enter(std::size_t begin, std::size_t end, access_mode mode, const stamp& by, const vector_clock& clock,
             Conflict conflict) {
    if (begin == end) return;
    split(begin);
    split(end);
    std::size_t reached = begin;
    auto at = pieces_.lower_bound(begin);
    while (reached < end) {
      if (at == pieces_.end() || at->first > reached) {  // bytes that nobody has touched
        const std::size_t until = at == pieces_.end() ? end : std::min(end, at->first);
        at = pieces_.emplace_hint(at, reached, piece{until, {}, {}});
      }
      piece& p = at->second;
      if (p.write.number != 0 && !p.write.before(clock)) conflict(p.write, access_mode::write, at->first, p.end);
      if (mode == access_mode::write) {
        for (const stamp& read : p.reads)
          if (!read.before(clock)) conflict(read, access_mode::read, at->first, p.end);
        p.reads.clear();
        p.write = by;
      } else {
        remember_read(p.reads, by);
      }
      reached = p.end;
      ++at;
    }
    merge(begin, end);
  }

  /// Calls `conflict` as enter() does for every access to any byte that `clock` does not put before now.
  template <class Conflict>
  void ended(const vector_clock& clock, Conflict conflict) const {
    for (const auto& [begin, p] : pieces_) {
      if (p.write.number != 0 && !p.write.before(clock)) conflict(p.write, access_mode::write, begin, p.end);
      for (const stamp& read : p.reads)
        if (!read.before(clock)) conflict(read, access_mode::read, begin, p.end);
    }
  }

 private:
  struct piece {
    std::size_t end;
    stamp write;
    std::vector<stamp> reads;  ///< one for each stream
  };

  static void remember_read(std::vector<stamp>& reads, const stamp& by) {
    for (stamp& read : reads)
      if (read.slot == by.slot) {
        read = by;
        return;
      }
    reads.push_back(by);
  }

  /// Makes `position` a boundary between pieces.
  void split(std::size_t position) {
    auto after = pieces_.upper_bound(position);
    if (after == pieces_.begin()) return;
    auto at = std::prev(after);
    if (at->first == position || at->second.end <= position) return;
    piece rest = at->second;
    at->second.end = position;
    pieces_.emplace_hint(after, position, std::move(rest));
  }

  /// Joins equal neighbours, so that repeated strided copies do not leave ever more pieces.
  void merge(std::size_t begin, std::size_t end) {
    auto at = pieces_.lower_bound(begin);
    if (at != pieces_.begin()) --at;
    while (at != pieces_.end() && at->first <= end) {
      const auto next = std::next(at);
      if (next == pieces_.end()) return;
      const piece& a = at->second;
      const piece& b = next->second;
      if (a.end == next->first && a.write == b.write && a.reads == b.reads) {
        at->second.end = b.end;
        pieces_.erase(next);
      } else {
        at = next;
      }
    }
  }

  std::map<std::size_t, piece> pieces_;
};

}  // namespace shardkit_double
