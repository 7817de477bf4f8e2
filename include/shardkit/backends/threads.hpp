// Ranks as threads of one process: they read each other's buffers directly, each element once, and combine in rank
// order, so that results are the same bits on every rank and run. Created by run_ranks (launch/run_ranks.hpp).
#pragma once

#include <shardkit/backends/detail/thread_messages.hpp>
#include <shardkit/comm/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace shardkit {
namespace detail {

/// How the ranks of a split meet.
struct split_call {
  static constexpr const char* name = "split";
  call_site site;
};

}  // namespace detail

/// A rank's end of a communicator of threads. One thread uses it at a time.
///
/// Ranks always compare verb, counts, dtype, reduction and root, and throw mismatch_error naming both ranks where they
/// differ. A rank that throws out of a call has made sure that no peer still touches its buffers.
class thread_backend {
 public:
  using space = host_space;

  thread_backend(std::shared_ptr<detail::thread_room> room, int rank)
      : messages_(std::make_shared<detail::thread_messages>(std::move(room), rank)),
        inputs_(static_cast<std::size_t>(size())),
        outputs_(static_cast<std::size_t>(size())) {}

  int rank() const noexcept { return meeting().rank(); }
  int size() const noexcept { return meeting().room().size; }

  void perform(const barrier_call& call) {
    meeting().publish_inline(call, nullptr, 0);
    meeting().await_all(call);
  }

  void perform(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    share(call, call.data, call.data, rank() == call.root ? bytes : 0, bytes);
    if (rank() != call.root) host_space::copy(call.data, input(meeting().await(call, call.root), bytes), bytes);
    finish(call, bytes);
  }

  void perform(const reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    share(call, call.in, call.out, bytes, bytes);
    if (inlined(bytes)) {
      if (rank() == call.root) combine_all(call, 0, call.count, bytes, call.out);
      return;
    }
    // Every rank combines its share and writes it to the root.
    meeting().await_all(call);
    const partition shares = cut(call.count, call.type);
    void* out = meeting().line(call.root).direct.out;
    combine_all(call, shares.offset(rank()), shares.count(rank()), bytes, at(out, shares.offset(rank()), call.type));
    finish(call, bytes);
  }

  void perform(const all_reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    share(call, call.in, call.out, bytes, bytes);
    if (inlined(bytes)) return combine_all(call, 0, call.count, bytes, call.out);
    // One pass: every rank combines its share of all inputs and writes it to all outputs.
    meeting().await_all(call);
    const partition shares = cut(call.count, call.type);
    const std::size_t first = shares.offset(rank());
    for (int peer = 0; peer < size(); ++peer) {
      const auto& buffers = meeting().line(peer).direct;
      inputs_[index(peer)] = at(buffers.in, first, call.type);
      outputs_[index(peer)] = at(buffers.out, first, call.type);
    }
    call.combine(call.op.kind, inputs_.data(), size(), outputs_.data(), size(), shares.count(rank()));
    finish(call, bytes);
  }

  void perform(const reduce_scatter_call& call) {
    reduce_scatter(call, index(rank()) * call.count, call.count, call.count * index(size()));
  }
  void perform(const reduce_scatter_uneven_call& call) {
    reduce_scatter(call, call.layout->offset(rank()), call.layout->count(rank()), call.layout->total());
  }

  void perform(const all_gather_call& call) {
    collect(call, call.count * size_of(call.type), [&](int peer) { return index(peer) * call.count; },
            [&](int) { return call.count; });
  }
  void perform(const all_gather_uneven_call& call) {
    collect(call, call.layout->padded_count() * size_of(call.type), [&](int peer) { return call.layout->offset(peer); },
            [&](int peer) { return call.layout->count(peer); });
  }
  void perform(const gather_call& call) {
    collect(call, call.count * size_of(call.type), [&](int peer) { return index(peer) * call.count; },
            [&](int) { return call.count; }, call.root);
  }
  void perform(const gather_uneven_call& call) {
    collect(call, call.layout->padded_count() * size_of(call.type), [&](int peer) { return call.layout->offset(peer); },
            [&](int peer) { return call.layout->count(peer); }, call.root);
  }

  void perform(const scatter_call& call) { distribute(call, index(rank()) * call.count, call.count, call.count * index(size())); }
  void perform(const scatter_uneven_call& call) {
    distribute(call, call.layout->offset(rank()), call.layout->count(rank()), call.layout->total());
  }

  void perform(const all_to_all_call& call) {
    const std::size_t bytes = call.count * index(size()) * size_of(call.type);
    share(call, call.in, call.out, bytes, bytes);
    each_peer([&](int peer) {
      const void* from = input(meeting().await(call, peer), bytes);
      copy(call, at(call.out, index(peer) * call.count, call.type), at(from, index(rank()) * call.count, call.type),
           call.count);
    });
    finish(call, bytes);
  }
  void perform(const all_to_all_uneven_call& call) {
    // Always by pointers: ranks need not agree on any one size.
    meeting().publish_buffers(call, {call.in, call.out, call.send_layout});
    each_peer([&](int peer) {
      const auto& theirs = meeting().await(call, peer).direct;
      const std::size_t count = theirs.layout->count(rank());
      if (count != call.receive_layout->count(peer)) refuse_all_to_all(call, peer, count);
      copy(call, at(call.out, call.receive_layout->offset(peer), call.type),
           at(theirs.in, theirs.layout->offset(rank()), call.type), count);
    });
    meeting().finish(call);
  }

  void perform(const send_call& call) { messages_->perform(call); }
  void perform(const recv_call& call) { messages_->perform(call); }
  void perform(const send_recv_call& call) {
    const batch_owner owner{batch_};
    begin(call);
    await_batch();
  }

  request start(const send_call& call) { return messages_->start(call); }
  request start(const recv_call& call) { return messages_->start(call); }

  void perform(const group_call& group);

  thread_backend split(int colour, int key, const call_site& site);

  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    perform(all_gather_call{in, out, bytes, dtype::u8, nullptr, site});
  }

  void fail(const std::string& reason) noexcept { meeting().raise(rank(), reason); }

 private:
  detail::thread_meeting& meeting() const noexcept { return messages_->meeting(); }

  static std::size_t index(int rank) noexcept { return static_cast<std::size_t>(rank); }
  static const void* at(const void* base, std::size_t elements, dtype type) noexcept {
    return static_cast<const char*>(base) + elements * size_of(type);
  }
  static void* at(void* base, std::size_t elements, dtype type) noexcept {
    return static_cast<char*>(base) + elements * size_of(type);
  }

  // `largest` is what decides, the same on every rank, whether contributions travel inside the lines.
  static bool inlined(std::size_t largest) noexcept { return largest <= detail::thread_line::inline_bytes; }
  template <class Call>
  void share(const Call& call, const void* in, void* out, std::size_t bytes, std::size_t largest) {
    if (inlined(largest)) meeting().publish_inline(call, in, bytes);
    else meeting().publish_buffers(call, {in, out, nullptr});
  }
  static const void* input(const detail::thread_line& line, std::size_t largest) noexcept {
    return inlined(largest) ? line.bytes : line.direct.in;
  }
  template <class Call>
  void finish(const Call& call, std::size_t largest) {
    if (inlined(largest)) return;
    meeting().await_all(call);
    meeting().finish(call);
  }

  // Shares of whole cache lines, so that no line is written by two ranks.
  partition cut(std::size_t count, dtype type) const {
    return partition::balanced(count, size(), host_space::alignment / size_of(type));
  }

  // Begins with the next rank, so that the ranks do not all read the same peer at once.
  template <class Visit>
  void each_peer(Visit visit) {
    for (int step = 0; step < size(); ++step) visit((rank() + step) % size());
  }

  template <class Call>
  static void copy(const Call& call, void* to, const void* from, std::size_t count) {
    host_space::copy(to, from, count * size_of(call.type));
  }

  // Elements [first, first + count) of all inputs, combined into `out`.
  template <class Call>
  void combine_all(const Call& call, std::size_t first, std::size_t count, std::size_t largest, void* out) {
    for (int peer = 0; peer < size(); ++peer)
      inputs_[index(peer)] = at(input(meeting().await(call, peer), largest), first, call.type);
    call.combine(call.op.kind, inputs_.data(), size(), &out, 1, count);
  }

  template <class Call>
  void reduce_scatter(const Call& call, std::size_t first, std::size_t count, std::size_t total) {
    const std::size_t bytes = total * size_of(call.type);
    share(call, call.in, call.out, bytes, bytes);
    combine_all(call, first, count, bytes, call.out);
    finish(call, bytes);
  }

  // Every rank's part to its place in `out`, on one rank or on all.
  template <class Call, class Offset, class Count>
  void collect(const Call& call, std::size_t largest, Offset offset, Count count, int only = -1) {
    share(call, call.in, call.out, count(rank()) * size_of(call.type), largest);
    if (only < 0 || only == rank())
      each_peer([&](int peer) {
        copy(call, at(call.out, offset(peer), call.type), input(meeting().await(call, peer), largest), count(peer));
      });
    finish(call, largest);
  }

  template <class Call>
  void distribute(const Call& call, std::size_t first, std::size_t count, std::size_t total) {
    const std::size_t bytes = total * size_of(call.type);
    share(call, call.in, call.out, rank() == call.root ? bytes : 0, bytes);
    copy(call, call.out, at(input(meeting().await(call, call.root), bytes), first, call.type), count);
    finish(call, bytes);
  }

  [[noreturn]] void refuse_all_to_all(const all_to_all_uneven_call& call, int peer, std::size_t sent) {
    const auto named = [&](int rank) { return "rank " + std::to_string(meeting().room().launch_rank(rank)); };
    meeting().leave_mismatched_call("all_to_all: " + named(peer) + " sends " + std::to_string(sent) + " elements to " +
                                    named(rank()) + detail::describe_site(meeting().line(peer).site) +
                                    ", which expects " + std::to_string(call.receive_layout->count(peer)) +
                                    detail::describe_site(call.site));
  }

  // Several messages under way together; whatever happens, none is left behind.
  struct batch_owner {
    std::vector<detail::thread_request*>& messages;
    ~batch_owner() {
      for (auto* message : messages) message->release();
      messages.clear();
    }
  };
  template <class Call>
  void begin(const Call& call) {
    batch_.push_back(messages_->prepare(call));
  }
  void begin(const send_recv_call& call) {
    begin(recv_call{call.out, call.recv_count, call.type, call.from, call.stream, call.site});
    begin(send_call{call.in, call.send_count, call.type, call.to, call.stream, call.site});
  }
  void await_batch() {
    for (auto* message : batch_) messages_->wait(*message);
  }

  std::shared_ptr<detail::thread_messages> messages_;
  // Scratch of one call, kept so that a steady state allocates nothing.
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  std::vector<detail::thread_request*> batch_;
};

/// Messages are started in the order listed; while collectives, in their order, wait for peers, the messages go on.
inline void thread_backend::perform(const group_call& group) {
  const batch_owner owner{batch_};
  const auto each = [&](auto&& visit) {
    for (std::size_t i = 0; i < group.count; ++i) std::visit(visit, group.calls[i]);
  };
  each([&](const auto& call) {
    if constexpr (detail::is_message<std::decay_t<decltype(call)>>) begin(call);
  });
  each([&](const auto& call) {
    if constexpr (!detail::is_message<std::decay_t<decltype(call)>>) perform(call);
  });
  await_batch();
}

/// The leader of each colour, its lowest rank, makes the room; the others take it while the leader waits.
inline thread_backend thread_backend::split(int colour, int key, const call_site& site) {
  struct choice {
    int colour, key, rank;
  };
  const choice mine{colour, key, rank()};
  const detail::split_call call{site};
  meeting().publish_inline(call, &mine, sizeof mine);
  std::vector<choice> members;
  for (int peer = 0; peer < size(); ++peer) {
    choice theirs = mine;
    if (peer != rank()) std::memcpy(&theirs, meeting().await(call, peer).bytes, sizeof theirs);
    if (theirs.colour == colour) members.push_back(theirs);
  }
  const int leader = members.front().rank;
  std::sort(members.begin(), members.end(), [](const choice& a, const choice& b) {
    return a.key != b.key ? a.key < b.key : a.rank < b.rank;
  });

  int child_rank = 0;
  std::vector<int> launch_ranks;
  for (const choice& one : members) {
    if (one.rank == rank()) child_rank = static_cast<int>(launch_ranks.size());
    launch_ranks.push_back(meeting().room().launch_rank(one.rank));
  }
  std::shared_ptr<detail::thread_room> child;
  if (leader == rank()) child = std::make_shared<detail::thread_room>(meeting().room().launch, std::move(launch_ranks));

  // Shown like a buffer: a leader that has to give up stays until nobody copies its pointer.
  const void* const offered = &child;
  meeting().publish_buffers(call, {offered, nullptr, nullptr});
  if (leader != rank()) {
    const void* const theirs = meeting().await(call, leader).direct.in;
    child = *static_cast<const std::shared_ptr<detail::thread_room>*>(theirs);
  }
  meeting().await_all(call);
  meeting().finish(call);
  return thread_backend(std::move(child), child_rank);
}

using thread_communicator = communicator<thread_backend>;

}  // namespace shardkit
