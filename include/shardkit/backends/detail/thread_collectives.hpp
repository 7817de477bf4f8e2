// The collectives of thread ranks, each in the two steps that a blocking call makes at once and a started call one
// after the other: `publish` shows this rank's contribution, `work` reads and writes what is its own to read and write.
// Where the meeting is `exposed` afterwards, peers may still read this rank's buffers, and the call has to be finished.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/core/space.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace shardkit::detail {

class thread_collectives {
 public:
  explicit thread_collectives(thread_meeting& meeting)
      : meeting_(meeting), inputs_(static_cast<std::size_t>(size())), outputs_(static_cast<std::size_t>(size())) {}

  void publish(const barrier_call& call) { meeting_.publish_inline(call, nullptr, 0); }
  void work(const barrier_call& call) { meeting_.await_all(call); }

  void publish(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    share(call, call.data, call.data, rank() == call.root ? bytes : 0, bytes);
  }
  void work(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (rank() != call.root) host_space::copy(call.data, input(meeting_.await(call, call.root), bytes), bytes);
  }

  void publish(const reduce_call& call) { share_whole(call, call.count); }
  void work(const reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (inlined(bytes)) {
      if (rank() == call.root) combine_all(call, 0, call.count, bytes, call.out);
      return;
    }
    // Every rank combines its share and writes it to the root.
    meeting_.await_all(call);
    const partition shares = cut(call.count, call.type);
    void* out = meeting_.line(call.root).direct.out;
    combine_all(call, shares.offset(rank()), shares.count(rank()), bytes, at(out, shares.offset(rank()), call.type));
  }

  void publish(const all_reduce_call& call) { share_whole(call, call.count); }
  void work(const all_reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (inlined(bytes)) return combine_all(call, 0, call.count, bytes, call.out);
    // One pass: every rank combines its share of all inputs and writes it to all outputs.
    meeting_.await_all(call);
    const partition shares = cut(call.count, call.type);
    const std::size_t first = shares.offset(rank());
    for (int peer = 0; peer < size(); ++peer) {
      const auto& buffers = meeting_.line(peer).direct;
      inputs_[index(peer)] = at(buffers.in, first, call.type);
      outputs_[index(peer)] = at(buffers.out, first, call.type);
    }
    call.combine(call.op.kind, inputs_.data(), size(), outputs_.data(), size(), shares.count(rank()));
  }

  void publish(const reduce_scatter_call& call) { share_whole(call, call.count * index(size())); }
  void work(const reduce_scatter_call& call) {
    const std::size_t total = call.count * index(size());
    combine_all(call, index(rank()) * call.count, call.count, total * size_of(call.type), call.out);
  }
  void publish(const reduce_scatter_uneven_call& call) { share_whole(call, call.layout->total()); }
  void work(const reduce_scatter_uneven_call& call) {
    combine_all(call, call.layout->offset(rank()), call.layout->count(rank()),
                call.layout->total() * size_of(call.type), call.out);
  }

  void publish(const all_gather_call& call) { share_part(call, equal_parts{call.count}); }
  void work(const all_gather_call& call) { collect(call, equal_parts{call.count}); }
  void publish(const all_gather_uneven_call& call) { share_part(call, unequal_parts{*call.layout}); }
  void work(const all_gather_uneven_call& call) { collect(call, unequal_parts{*call.layout}); }

  void publish(const gather_call& call) { share_part(call, equal_parts{call.count}); }
  void work(const gather_call& call) {
    if (rank() == call.root) collect(call, equal_parts{call.count});
  }
  void publish(const gather_uneven_call& call) { share_part(call, unequal_parts{*call.layout}); }
  void work(const gather_uneven_call& call) {
    if (rank() == call.root) collect(call, unequal_parts{*call.layout});
  }

  void publish(const scatter_call& call) { share_of_root(call, call.count * index(size())); }
  void work(const scatter_call& call) {
    distribute(call, index(rank()) * call.count, call.count, call.count * index(size()));
  }
  void publish(const scatter_uneven_call& call) { share_of_root(call, call.layout->total()); }
  void work(const scatter_uneven_call& call) {
    distribute(call, call.layout->offset(rank()), call.layout->count(rank()), call.layout->total());
  }

  void publish(const all_to_all_call& call) { share_whole(call, call.count * index(size())); }
  void work(const all_to_all_call& call) {
    const std::size_t bytes = call.count * index(size()) * size_of(call.type);
    each_peer([&](int peer) {
      const void* from = input(meeting_.await(call, peer), bytes);
      copy(call, at(call.out, index(peer) * call.count, call.type), at(from, index(rank()) * call.count, call.type),
           call.count);
    });
  }
  /// Always by pointers: ranks need not agree on any one size.
  void publish(const all_to_all_uneven_call& call) {
    meeting_.publish_buffers(call, {call.in, call.out, call.send_layout});
  }
  void work(const all_to_all_uneven_call& call) {
    each_peer([&](int peer) {
      const auto& theirs = meeting_.await(call, peer).direct;
      const std::size_t count = theirs.layout->count(rank());
      if (count != call.receive_layout->count(peer)) refuse_all_to_all(call, peer, count);
      copy(call, at(call.out, call.receive_layout->offset(peer), call.type),
           at(theirs.in, theirs.layout->offset(rank()), call.type), count);
    });
  }

 private:
  struct equal_parts {
    std::size_t each;
    std::size_t offset(int rank) const noexcept { return index(rank) * each; }
    std::size_t count(int) const noexcept { return each; }
    std::size_t largest() const noexcept { return each; }
  };
  struct unequal_parts {
    const partition& layout;
    std::size_t offset(int rank) const noexcept { return layout.offset(rank); }
    std::size_t count(int rank) const noexcept { return layout.count(rank); }
    std::size_t largest() const noexcept { return layout.padded_count(); }
  };

  int rank() const noexcept { return meeting_.rank(); }
  int size() const noexcept { return meeting_.room().size; }
  static std::size_t index(int rank) noexcept { return static_cast<std::size_t>(rank); }
  static const void* at(const void* base, std::size_t elements, dtype type) noexcept {
    return static_cast<const char*>(base) + elements * size_of(type);
  }
  static void* at(void* base, std::size_t elements, dtype type) noexcept {
    return static_cast<char*>(base) + elements * size_of(type);
  }
  template <class Call>
  static void copy(const Call& call, void* to, const void* from, std::size_t count) {
    host_space::copy(to, from, count * size_of(call.type));
  }

  // `largest` is what decides, the same on every rank, whether contributions travel inside the lines.
  static bool inlined(std::size_t largest) noexcept { return largest <= thread_line::inline_bytes; }
  static const void* input(const thread_line& line, std::size_t largest) noexcept {
    return inlined(largest) ? line.bytes : line.direct.in;
  }
  template <class Call>
  void share(const Call& call, const void* in, void* out, std::size_t bytes, std::size_t largest) {
    if (inlined(largest)) meeting_.publish_inline(call, in, bytes);
    else meeting_.publish_buffers(call, {in, out, nullptr});
  }
  template <class Call>
  void share_whole(const Call& call, std::size_t count) {
    const std::size_t bytes = count * size_of(call.type);
    share(call, call.in, call.out, bytes, bytes);
  }
  template <class Call, class Parts>
  void share_part(const Call& call, Parts parts) {
    const std::size_t size = size_of(call.type);
    share(call, call.in, call.out, parts.count(rank()) * size, parts.largest() * size);
  }
  template <class Call>
  void share_of_root(const Call& call, std::size_t total) {
    const std::size_t bytes = total * size_of(call.type);
    share(call, call.in, call.out, rank() == call.root ? bytes : 0, bytes);
  }

  // Shares of whole cache lines, so that no line is written by two ranks.
  partition cut(std::size_t count, dtype type) const {
    return partition::balanced(count, size(), host_space::alignment / size_of(type));
  }

  // Begins with this rank and its successor, so that the ranks do not all read the same peer at once.
  template <class Visit>
  void each_peer(Visit visit) {
    for (int step = 0; step < size(); ++step) visit((rank() + step) % size());
  }

  // Elements [first, first + count) of all inputs, combined into `out`.
  template <class Call>
  void combine_all(const Call& call, std::size_t first, std::size_t count, std::size_t largest, void* out) {
    for (int peer = 0; peer < size(); ++peer)
      inputs_[index(peer)] = at(input(meeting_.await(call, peer), largest), first, call.type);
    call.combine(call.op.kind, inputs_.data(), size(), &out, 1, count);
  }

  // Every rank's part to its place in `out`.
  template <class Call, class Parts>
  void collect(const Call& call, Parts parts) {
    const std::size_t largest = parts.largest() * size_of(call.type);
    each_peer([&](int peer) {
      copy(call, at(call.out, parts.offset(peer), call.type), input(meeting_.await(call, peer), largest),
           parts.count(peer));
    });
  }

  template <class Call>
  void distribute(const Call& call, std::size_t first, std::size_t count, std::size_t total) {
    const void* from = input(meeting_.await(call, call.root), total * size_of(call.type));
    copy(call, call.out, at(from, first, call.type), count);
  }

  [[noreturn]] void refuse_all_to_all(const all_to_all_uneven_call& call, int peer, std::size_t sent) {
    const auto named = [&](int rank) { return "rank " + std::to_string(meeting_.room().launch_rank(rank)); };
    meeting_.leave_mismatched_call("all_to_all: " + named(peer) + " sends " + std::to_string(sent) + " elements to " +
                                   named(rank()) + describe_site(meeting_.line(peer).site) + ", which expects " +
                                   std::to_string(call.receive_layout->count(peer)) + describe_site(call.site));
  }

  thread_meeting& meeting_;
  // Scratch of one call, kept so that a steady state allocates nothing.
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
};

}  // namespace shardkit::detail
