// How the ranks' contributions to a collective travel: within the published line, in a box, or as the memory that a
// rank shows, which is the caller's or, between far cores, this rank's stage.
#pragma once

#include <shardkit/backends/detail/thread_copies.hpp>
#include <shardkit/backends/detail/thread_distance.hpp>
#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/backends/detail/thread_parts.hpp>
#include <shardkit/core/detail/element_at.hpp>

#include <cstddef>

namespace shardkit::detail {

/// What the verbs of thread_collectives are made of.
class thread_contributions {
 protected:
  explicit thread_contributions(thread_meeting& meeting) : meeting_(meeting) {}

  int rank() const noexcept { return meeting_.rank(); }
  int size() const noexcept { return meeting_.room().size; }
  std::size_t ranks() const noexcept { return index(size()); }
  static std::size_t index(int rank) noexcept { return static_cast<std::size_t>(rank); }
  template <class Call>
  static void copy(const Call& call, void* to, const void* from, std::size_t count) {
    host_space::copy(to, from, count * size_of(call.type));
  }
  template <class Call>
  static void copy(const Call& call, void* to, const void* from, std::size_t count, bool streams) {
    copy_bytes(to, from, count * size_of(call.type), streams);
  }
  // `largest`, the same on every rank, decides where contributions travel: within the line or in a box.
  template <class Call, class Fill>
  void carry(const Call& call, std::size_t largest, Fill fill) {
    const bool alone = size() == 1;  // nobody reads it, and there is no box
    meeting_.publish_copied(call, alone ? 0 : largest, [&](void* place) {
      if (!alone) fill(place);
    });
  }
  template <class Call>
  void carry(const Call& call, const void* in, std::size_t bytes, std::size_t largest) {
    carry(call, largest, [&](void* place) { copy_small(place, in, bytes); });
  }
  template <class Call>
  const void* carried(const Call& call, int peer, std::size_t largest) {
    const thread_line& line = meeting_.await(call, peer);
    return largest <= thread_line::inline_bytes ? line.bytes : meeting_.box(peer);
  }
  // What a peer shows.
  template <class Call>
  const thread_line::buffers& shown(const Call& call, int peer) {
    const thread_line::buffers& buffers = meeting_.await(call, peer).direct;
    distance_.hear(buffers.staged_calls);
    return buffers;
  }

  template <class Call, class Parts>
  void carry_part(const Call& call, Parts parts, std::size_t limit) {
    const std::size_t size = size_of(call.type), largest = parts.largest() * size;
    if (largest > limit) meeting_.publish_buffers(call, {call.in, call.out});
    else carry(call, call.in, parts.count(rank()) * size, largest);
  }
  // A part for each peer, one after the other.
  template <class Call, class Parts>
  void carry_for_each(const Call& call, Parts parts) {
    const std::size_t size = size_of(call.type), largest = parts.largest_for_others() * size;
    if (largest > thread_limits::box) return show(call, parts.total(), parts.offset(rank()), parts.count(rank()));
    carry(call, largest, [&, this](void* place) {
      copy_without_own(call, place, parts.total(), parts.offset(rank()), parts.count(rank()));
    });
  }
  // Shows `count` elements of the input, of which no peer reads the `own` ones that come after `before`: where they
  // lie, or between far cores on the stage.
  template <class Call>
  void show(const Call& call, std::size_t count, std::size_t before, std::size_t own) {
    if (count * size_of(call.type) > thread_limits::stage || !distance_.stages_next())
      return meeting_.publish_buffers(call, shows(call.in, call.out));
    meeting_.publish_staged(call, [&, this] {
      unsigned char* const place = meeting_.stage();
      copy_without_own(call, place, count, before, own);
      thread_line::buffers buffers = shows(place, call.out);
      buffers.without_own = true;
      return buffers;
    });
  }
  thread_line::buffers shows(const void* in, void* out) const noexcept {
    return {in, out, nullptr, false, distance_.staged_calls()};
  }
  template <class Call>
  void copy_without_own(const Call& call, void* place, std::size_t count, std::size_t before, std::size_t own) {
    const std::size_t after = before + own;
    copy(call, place, call.in, before);
    copy(call, element_at(place, before, call.type), element_at(call.in, after, call.type), count - after);
  }
  template <class Call, class Read>
  void measured(const Call& call, std::size_t count, Read read) {
    distance_.measure(count * size_of(call.type), read);
  }
  template <class Call>
  void copy_measured(const Call& call, void* to, const void* from, std::size_t count, bool streams) {
    measured(call, count, [&] { copy(call, to, from, count, streams); });
  }
  template <class Call, class Parts>
  const void* part_for_me(const Call& call, int peer, Parts parts, std::size_t largest) {
    const void* all = nullptr;
    bool without_own = true;
    if (largest <= thread_limits::box) {
      all = carried(call, peer, largest);
    } else {
      const thread_line::buffers& theirs = shown(call, peer);
      all = theirs.in;
      without_own = theirs.without_own;
    }
    const std::size_t skipped = without_own && peer < rank() ? parts.count(peer) : 0;
    return element_at(all, parts.offset(rank()) - skipped, call.type);
  }
  template <class Call>
  void carry_from_root(const Call& call, std::size_t total) {
    const std::size_t bytes = total * size_of(call.type);
    if (bytes > thread_limits::one_way) meeting_.publish_buffers(call, {call.in, call.out});
    else carry(call, call.in, rank() == call.root ? bytes : 0, bytes);
  }

  thread_meeting& meeting_;
  thread_distance distance_;
};

}  // namespace shardkit::detail
