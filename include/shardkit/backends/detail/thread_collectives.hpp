// The collectives of thread ranks, each in the two steps that a blocking call makes at once and a started call one
// after the other: `publish` shows this rank's contribution, `work` reads and writes what is its own to read and write.
// Where the meeting is `exposed` afterwards, peers may still read this rank's buffers, and the call has to be finished;
// then nothing is left to `conclude`.
#pragma once

#include <shardkit/backends/detail/thread_contributions.hpp>
#include <shardkit/core/space.hpp>

#include <cstddef>

namespace shardkit::detail {

/// A template, so that a program compiles only the verbs that it uses.
template <class Meeting>
class basic_thread_collectives : private thread_contributions {
 public:
  explicit basic_thread_collectives(Meeting& meeting)
      : thread_contributions(meeting),
        inputs_(static_cast<std::size_t>(size())),
        outputs_(static_cast<std::size_t>(size())) {}

  template <class Call>
  void conclude(const Call&) noexcept {}

  void publish(const barrier_call& call) { meeting_.publish_inline(call, nullptr, 0); }
  void work(const barrier_call& call) { meeting_.await_all(call); }

  void publish(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (bytes > broadcast_limit()) return meeting_.publish_buffers(call, {call.data, call.data});
    carry(call, call.data, rank() == call.root ? bytes : 0, bytes);
  }
  void work(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (bytes <= broadcast_limit()) {
      if (rank() != call.root) host_space::copy(call.data, carried(call, call.root, bytes), bytes);
      return;
    }
    // Every rank copies its share of the root's data to all others.
    meeting_.await_all(call);
    const share mine = share_of(bytes, dtype::u8);
    spread(static_cast<const char*>(meeting_.line(call.root).direct.in) + mine.first, mine.first, mine.count,
           goes_past_caches(bytes * (ranks() - 1)), [&](int peer) { return peer != call.root; });
  }

  void publish(const reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (!in_one_step(bytes)) meeting_.publish_buffers(call, {call.in, call.out});
    else carry(call, call.in, rank() == call.root ? 0 : bytes, bytes);
  }
  void work(const reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (in_one_step(bytes)) {
      if (rank() == call.root) combine_carried(call, bytes);
      return;
    }
    // Every rank combines its share and writes it to the root.
    meeting_.await_all(call);
    const share mine = share_of(call.count, call.type);
    outputs_[0] = element_at(meeting_.line(call.root).direct.out, mine.first, call.type);
    combine_shown(call, mine, 1);
  }

  void publish(const all_reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (in_one_step(bytes)) return carry(call, call.in, bytes, bytes);
    if (call.in == call.out || bytes > thread_limits::staged_far ||
        (bytes > thread_limits::staged && !distance_.stages_next()))
      return meeting_.publish_buffers(call, shows(call.in, call.out));
    // What the peers will read, they will also overwrite: data that goes back and forth between two cores travels much
    // faster than data that goes one way.
    const share mine = share_of(call.count, call.type);
    const std::size_t after = mine.first + mine.count;
    copy(call, call.out, call.in, mine.first);
    copy(call, element_at(call.out, after, call.type), element_at(call.in, after, call.type), call.count - after);
    meeting_.publish_buffers(call, shows(call.out, call.out));
  }
  void work(const all_reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (in_one_step(bytes)) return combine_carried(call, bytes);
    // One pass: every rank combines its share of all inputs and writes it to all outputs.
    const share mine = share_of(call.count, call.type);
    for (int peer = 0; peer < size(); ++peer)
      outputs_[index(peer)] = element_at(shown(call, peer).out, mine.first, call.type);
    measured(call, mine.count, [&, this] { combine_shown(call, mine, size()); });
  }

  void publish(const reduce_scatter_call& call) { carry_for_each(call, equal_parts{call.count, size()}); }
  void work(const reduce_scatter_call& call) { combine_parts(call, equal_parts{call.count, size()}); }
  void publish(const reduce_scatter_uneven_call& call) { carry_for_each(call, unequal_parts{*call.layout}); }
  void work(const reduce_scatter_uneven_call& call) { combine_parts(call, unequal_parts{*call.layout}); }

  void publish(const all_gather_call& call) { carry_part(call, equal_parts{call.count, size()}, thread_limits::box); }
  void work(const all_gather_call& call) { collect(call, equal_parts{call.count, size()}); }
  void publish(const all_gather_uneven_call& call) {
    carry_part(call, unequal_parts{*call.layout}, thread_limits::box);
  }
  void work(const all_gather_uneven_call& call) { collect(call, unequal_parts{*call.layout}); }

  void publish(const gather_call& call) { carry_part(call, equal_parts{call.count, size()}, thread_limits::one_way); }
  void work(const gather_call& call) { collect_at_root(call, equal_parts{call.count, size()}); }
  void publish(const gather_uneven_call& call) {
    carry_part(call, unequal_parts{*call.layout}, thread_limits::one_way);
  }
  void work(const gather_uneven_call& call) { collect_at_root(call, unequal_parts{*call.layout}); }

  void publish(const scatter_call& call) { carry_from_root(call, call.count * ranks()); }
  void work(const scatter_call& call) {
    distribute(call, index(rank()) * call.count, call.count, call.count * ranks());
  }
  void publish(const scatter_uneven_call& call) { carry_from_root(call, call.layout->total()); }
  void work(const scatter_uneven_call& call) {
    distribute(call, call.layout->offset(rank()), call.layout->count(rank()), call.layout->total());
  }

  void publish(const all_to_all_call& call) { carry_for_each(call, equal_parts{call.count, size()}); }
  void work(const all_to_all_call& call) {
    const equal_parts parts{call.count, size()};
    const std::size_t count = call.count, largest = parts.largest_for_others() * size_of(call.type);
    const bool streams = goes_past_caches(2 * parts.total() * ranks() * size_of(call.type));
    each_peer([&, this](int peer) {
      void* to = element_at(call.out, index(peer) * count, call.type);
      if (peer == rank()) return copy(call, to, element_at(call.in, parts.offset(peer), call.type), count, streams);
      copy_measured(call, to, part_for_me(call, peer, parts, largest), count, streams);
    });
  }
  /// Always by pointers: ranks need not agree on any one size.
  void publish(const all_to_all_uneven_call& call) {
    meeting_.publish_buffers(call, {call.in, call.out, call.send_layout});
  }
  void work(const all_to_all_uneven_call& call) {
    each_peer([&, this](int peer) {
      const auto& theirs = meeting_.await(call, peer).direct;
      const std::size_t count = theirs.layout->count(rank());
      if (count != call.receive_layout->count(peer)) refuse_all_to_all(call, peer, count);
      copy(call, element_at(call.out, call.receive_layout->offset(peer), call.type),
           element_at(theirs.in, theirs.layout->offset(rank()), call.type), count);
    });
  }

 private:
  // What this rank works on: whole cache lines, so that none is written by two ranks.
  struct share {
    std::size_t first, count;
  };
  [[gnu::noinline]] share share_of(std::size_t count, dtype type) const {
    const partition shares = partition::balanced(count, size(), host_space::alignment / size_of(type));
    return {shares.offset(rank()), shares.count(rank())};
  }
  // Begins with this rank and its successor, so that the ranks do not all read the same peer at once.
  template <class Visit>
  void each_peer(Visit visit) {
    for (int step = 0, peer = rank(); step < size(); ++step, peer = peer + 1 == size() ? 0 : peer + 1) visit(peer);
  }

  // Up to where the root's box is best: ranks that share cores wait for each other only once then.
  std::size_t broadcast_limit() const noexcept {
    return meeting_.room().crowded ? thread_limits::box : thread_limits::broadcast;
  }
  // Whether each rank should combine everything by itself: one exchange instead of two, and more to read.
  bool in_one_step(std::size_t bytes) const noexcept {
    return bytes * (ranks() - 1) <= thread_limits::one_step || bytes <= thread_line::inline_bytes;
  }

  // All contributions, combined into this rank's `out`.
  template <class Call>
  void combine_carried(const Call& call, std::size_t bytes) {
    for (int peer = 0; peer < size(); ++peer)
      inputs_[index(peer)] = peer == rank() ? call.in : carried(call, peer, bytes);
    outputs_[0] = call.out;
    call.combine(call.op.kind, inputs_.data(), size(), outputs_.data(), 1, call.count);
  }
  template <class Call, class Parts>
  void combine_parts(const Call& call, Parts parts) {
    const std::size_t largest = parts.largest_for_others() * size_of(call.type);
    for (int peer = 0; peer < size(); ++peer)
      inputs_[index(peer)] =
          peer == rank() ? element_at(call.in, parts.offset(peer), call.type) : part_for_me(call, peer, parts, largest);
    outputs_[0] = call.out;
    measured(call, parts.count(rank()), [&, this] {
      call.combine(call.op.kind, inputs_.data(), size(), outputs_.data(), 1, parts.count(rank()));
    });
  }
  // This rank's share of what all ranks show, combined into the first `outputs`.
  template <class Call>
  void combine_shown(const Call& call, share mine, int outputs) {
    for (int peer = 0; peer < size(); ++peer) {
      const void* in = peer == rank() ? call.in : meeting_.line(peer).direct.in;
      inputs_[index(peer)] = element_at(in, mine.first, call.type);
    }
    call.combine(call.op.kind, inputs_.data(), size(), outputs_.data(), outputs, mine.count);
  }

  // Copies to the same place in the outputs of those ranks of which `takes(rank)` holds, at `first`, reading once.
  template <class Take>
  void spread(const void* from, std::size_t first, std::size_t bytes, bool streams, Take takes) {
    for (std::size_t at = 0; at < bytes; at += thread_limits::piece)
      for (int peer = 0; peer < size(); ++peer)
        if (takes(peer))
          copy_bytes(static_cast<char*>(meeting_.line(peer).direct.out) + first + at,
                     static_cast<const char*>(from) + at,
                     bytes - at < thread_limits::piece ? bytes - at : thread_limits::piece, streams);
  }
  // This rank's part to the outputs of those that take it.
  template <class Call, class Parts, class Take>
  void deliver(const Call& call, Parts parts, std::size_t outputs, Take takes) {
    meeting_.await_all(call);
    const std::size_t size = size_of(call.type);
    spread(call.in, parts.offset(rank()) * size, parts.count(rank()) * size,
           goes_past_caches(parts.total() * (1 + outputs) * size), takes);
  }
  // Every rank's part to its place in every `out`.
  template <class Call, class Parts>
  void collect(const Call& call, Parts parts) {
    const std::size_t largest = parts.largest() * size_of(call.type);
    if (largest > thread_limits::box) return deliver(call, parts, ranks(), [](int) { return true; });
    take_parts(call, parts, largest);
  }
  template <class Call, class Parts>
  void collect_at_root(const Call& call, Parts parts) {
    const std::size_t largest = parts.largest() * size_of(call.type);
    if (largest > thread_limits::one_way) deliver(call, parts, 1, [&](int peer) { return peer == call.root; });
    else if (rank() == call.root) take_parts(call, parts, largest);
  }
  template <class Call, class Parts>
  void take_parts(const Call& call, Parts parts, std::size_t largest) {
    each_peer([&, this](int peer) {
      copy(call, element_at(call.out, parts.offset(peer), call.type),
           peer == rank() ? call.in : carried(call, peer, largest), parts.count(peer));
    });
  }

  template <class Call>
  void distribute(const Call& call, std::size_t first, std::size_t count, std::size_t total) {
    const std::size_t bytes = total * size_of(call.type);
    const void* from = rank() == call.root               ? call.in
                       : bytes <= thread_limits::one_way ? carried(call, call.root, bytes)
                                                         : shown(call, call.root).in;
    copy(call, call.out, element_at(from, first, call.type), count, goes_past_caches(2 * bytes));
  }

  [[noreturn, gnu::cold, gnu::noinline]] void refuse_all_to_all(const all_to_all_uneven_call& call, int peer,
                                                                std::size_t sent) {
    const thread_room& room = meeting_.room();
    meeting_.leave_mismatched_call(sentence() << "all_to_all: rank " << room.launch_rank(peer) << " sends " << sent
                                              << " elements to rank " << room.launch_rank(rank())
                                              << describe_site(meeting_.site(peer)) << ", which expects "
                                              << call.receive_layout->count(peer) << describe_site(call.site));
  }

  // Scratch of one call, kept so that a steady state allocates nothing.
  list<const void*> inputs_;
  list<void*> outputs_;
};
using thread_collectives = basic_thread_collectives<thread_meeting>;

}  // namespace shardkit::detail
