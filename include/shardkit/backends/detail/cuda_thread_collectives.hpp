// The collectives of thread ranks on CUDA memory. The ranks meet on the host as those over host memory do, and only
// enqueue: each rank's stream waits for the event that says that a peer's buffers may be used, does this rank's share,
// and marks its end by an event, for which the streams of those peers wait before the call is complete on them.
//
// Who touches whose buffers is said once for each verb, by `touches`; which streams wait for which follows from it.
#pragma once

#include <shardkit/backends/detail/cuda_thread_reduction.hpp>
#include <shardkit/backends/detail/thread_parts.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace shardkit::detail {

/// The steps of thread_collectives, for the streams of a device.
class cuda_thread_collectives {
 public:
  cuda_thread_collectives(thread_meeting& meeting, const std::shared_ptr<cuda_thread_streams>& streams)
      : meeting_(meeting), streams_(streams), reduce_(*streams) {
    meeting.set_on_withdrawal([](void* self) { static_cast<cuda_thread_collectives*>(self)->leave(); }, this);
  }
  cuda_thread_collectives(const cuda_thread_collectives&) = delete;
  cuda_thread_collectives& operator=(const cuda_thread_collectives&) = delete;

  template <class Call>
  void publish(const Call& call) {
    thread_line::buffers shown{nullptr, nullptr};
    streams_->on_device(meeting_, [&, this] {
      where_ = where_of(call);
      shown.capture = capture_ = streams_->capture_of(where_);
      if constexpr (combines<Call>) reduce_.require(call.type, call.op, size(), capture_ != 0);
      streams_->begin(where_, capture_);
      if (any_peer([&, this](int peer) { return touches(call, peer, rank()); })) streams_->own().ready.record(where_);
    });
    show(call, shown);
    ++calls_;
    under_way_ = true;
    meeting_.publish_buffers(call, shown);
  }

  template <class Call>
  void work(const Call& call) {
    meeting_.await_all(call);
    bool touched = false;
    const auto mark_end = [&, this] {
      if (!touched) return;
      streams_->own().done.record(where_);
      streams_->own().last_done.store(calls_, std::memory_order_release);
    };
    streams_->on_device(
        meeting_,
        [&, this] {
          for_each_peer([&, this](int peer) {
            streams_->require_one_capture(meeting_, capture_, peer, meeting_.line(peer).direct.capture);
          });
          for_each_peer([&, this](int peer) {
            if (!touches(call, rank(), peer)) return;
            const cuda_thread_device& theirs = streams_->peer(peer);
            theirs.ready.order_before(where_);
            touched = true;
          });
          move(call);
          mark_end();
        },
        [&]() noexcept { ignoring_errors(mark_end); });
  }

  template <class Call>
  void conclude(const Call& call) {
    const auto follow_users = [&, this] {
      for_each_peer([&, this](int peer) {
        const cuda_thread_device& theirs = streams_->peer(peer);
        if (uses_buffers<Call> && touches(call, peer, rank())) theirs.done.order_before(where_);
      });
      streams_->end(where_, capture_);
    };
    streams_->on_device(meeting_, follow_users, [&, this]() noexcept { leave(); });
    under_way_ = false;
  }

 private:
  using place = cuda_thread_reduction::place;

  template <class Call>
  static constexpr bool uses_buffers = !std::is_same_v<Call, barrier_call>;
  template <class Call>
  static constexpr bool combines = requires(const Call& call) {
    call.op;
  };

  int rank() const noexcept { return meeting_.rank(); }
  int size() const noexcept { return meeting_.room().size; }

  template <class Visit>
  void for_each_peer(Visit visit) const {
    // Each rank begins with its successor, so that they do not all read the same peer at once.
    for (int step = 1; step < size(); ++step) visit((rank() + step) % size());
  }
  template <class Is>
  bool any_peer(Is is) const {
    bool any = false;
    for_each_peer([&](int peer) { any = any || is(peer); });
    return any;
  }

  // ---- Whether rank `by` reads or writes the buffers of rank `of`, another one ----

  bool touches(const barrier_call&, int, int) const { return true; }
  bool touches(const broadcast_call& call, int, int of) const { return of == call.root && call.count != 0; }
  // Every rank combines its share of all inputs.
  bool touches(const reduce_call& call, int by, int) const { return shares(call).count(by) != 0; }
  bool touches(const all_reduce_call& call, int by, int) const { return shares(call).count(by) != 0; }
  bool touches(const reduce_scatter_call& call, int, int) const { return call.count != 0; }
  bool touches(const reduce_scatter_uneven_call& call, int by, int) const { return call.layout->count(by) != 0; }
  bool touches(const all_gather_call& call, int, int) const { return call.count != 0; }
  bool touches(const all_gather_uneven_call& call, int, int of) const { return call.layout->count(of) != 0; }
  bool touches(const gather_call& call, int by, int) const { return by == call.root && call.count != 0; }
  bool touches(const gather_uneven_call& call, int by, int of) const {
    return by == call.root && call.layout->count(of) != 0;
  }
  bool touches(const scatter_call& call, int, int of) const { return of == call.root && call.count != 0; }
  bool touches(const scatter_uneven_call& call, int by, int of) const {
    return of == call.root && call.layout->count(by) != 0;
  }
  bool touches(const all_to_all_call& call, int, int) const { return call.count != 0; }
  bool touches(const all_to_all_uneven_call& call, int by, int of) const {
    return by == rank() ? call.receive_layout->count(of) != 0 : call.send_layout->count(by) != 0;
  }

  // ---- What a rank shows ----

  template <class Call>
  static void show(const Call& call, thread_line::buffers& shown) noexcept {
    if constexpr (std::is_same_v<Call, broadcast_call>) {
      shown.in = shown.out = call.data;
    } else if constexpr (uses_buffers<Call>) {
      shown.in = call.in;
      shown.out = call.out;
    }
    if constexpr (std::is_same_v<Call, all_to_all_uneven_call>) shown.layout = call.send_layout;
  }
  const void* input_of(int peer) const { return meeting_.line(peer).direct.in; }

  // ---- This rank's share of the work, enqueued on where_ ----

  void move(const barrier_call&) {}
  void move(const broadcast_call& call) {
    if (rank() != call.root) copy(call, call.data, input_of(call.root), call.count);
  }
  void move(const reduce_call& call) {
    outputs_.assign(1, {call.root, meeting_.line(call.root).direct.out});
    combine_share(call);
  }
  void move(const all_reduce_call& call) {
    outputs_.clear();
    for (int peer = 0; peer < size(); ++peer) outputs_.push_back({peer, meeting_.line(peer).direct.out});
    combine_share(call);
  }
  void move(const reduce_scatter_call& call) { combine_part(call, equal_parts{call.count, size()}); }
  void move(const reduce_scatter_uneven_call& call) { combine_part(call, unequal_parts{*call.layout}); }
  void move(const all_gather_call& call) { collect(call, equal_parts{call.count, size()}); }
  void move(const all_gather_uneven_call& call) { collect(call, unequal_parts{*call.layout}); }
  void move(const gather_call& call) {
    if (rank() == call.root) collect(call, equal_parts{call.count, size()});
  }
  void move(const gather_uneven_call& call) {
    if (rank() == call.root) collect(call, unequal_parts{*call.layout});
  }
  void move(const scatter_call& call) { deal_out(call, equal_parts{call.count, size()}); }
  void move(const scatter_uneven_call& call) { deal_out(call, unequal_parts{*call.layout}); }
  void move(const all_to_all_call& call) {
    const equal_parts parts{call.count, size()};
    for_all([&, this](int peer) {
      copy(call, element_at(call.out, parts.offset(peer), call.type),
           element_at(input_of(peer), parts.offset(rank()), call.type), call.count);
    });
  }
  void move(const all_to_all_uneven_call& call) {
    for_each_peer([&, this](int peer) {
      const std::size_t sent = meeting_.line(peer).direct.layout->count(rank());
      if (sent != call.receive_layout->count(peer)) refuse_all_to_all(call, peer, sent);
    });
    for_all([&, this](int peer) {
      const partition& theirs = *meeting_.line(peer).direct.layout;
      copy(call, element_at(call.out, call.receive_layout->offset(peer), call.type),
           element_at(input_of(peer), theirs.offset(rank()), call.type), theirs.count(rank()));
    });
  }

  // This rank last: its own part waits for nobody.
  template <class Visit>
  void for_all(Visit visit) const {
    for_each_peer(visit);
    visit(rank());
  }
  template <class Call>
  void copy(const Call& call, void* to, const void* from, std::size_t count) {
    // Where the two lie on different devices, this is cudaMemcpyPeerAsync, and it takes pinned and managed memory, too.
    cuda_space::copy(to, from, count * size_of(call.type), where_);
  }
  template <class Call, class Parts>
  void collect(const Call& call, Parts parts) {
    for_all([&, this](int peer) {
      copy(call, element_at(call.out, parts.offset(peer), call.type), input_of(peer), parts.count(peer));
    });
  }
  template <class Call, class Parts>
  void deal_out(const Call& call, Parts parts) {
    copy(call, call.out, element_at(input_of(call.root), parts.offset(rank()), call.type), parts.count(rank()));
  }

  // Whole sectors, so that kernels write none together and keep their wide loads.
  template <class Call>
  partition shares(const Call& call) const {
    return partition::balanced(call.count, size(), 128 / size_of(call.type));
  }
  /// This rank's share of all inputs into the outputs. Nobody else reads or writes those elements: each rank may have
  /// its result in the place of its input.
  template <class Call>
  void combine_share(const Call& call) {
    const partition parts = shares(call);
    const std::size_t first = parts.offset(rank());
    for (place& one : outputs_) one.data = element_at(one.data, first, call.type);
    combine(call, first, parts.count(rank()));
  }
  template <class Call, class Parts>
  void combine_part(const Call& call, Parts parts) {
    outputs_.assign(1, {rank(), call.out});
    combine(call, parts.offset(rank()), parts.count(rank()));
  }
  template <class Call>
  void combine(const Call& call, std::size_t first, std::size_t count) {
    if (count == 0) return;
    inputs_.clear();
    for (int peer = 0; peer < size(); ++peer)
      inputs_.push_back({peer, const_cast<char*>(element_at(input_of(peer), first, call.type))});
    reduce_(call.type, call.op, inputs_, outputs_, count, where_);
  }

  [[noreturn]] void refuse_all_to_all(const all_to_all_uneven_call& call, int peer, std::size_t sent) const {
    const auto named = [&, this](int rank) { return "rank " + std::to_string(meeting_.room().launch_rank(rank)); };
    throw mismatch_error("all_to_all: " + named(peer) + " sends " + std::to_string(sent) + " elements to " +
                         named(rank()) + describe_site(meeting_.site(peer)) + ", which expects " +
                         std::to_string(call.receive_layout->count(peer)) + describe_site(call.site));
  }

  // ---- Where a call fails ----

  /// Nobody enqueues anything more on this rank's buffers; what was enqueued still uses them, so this rank's stream
  /// goes on after it.
  void leave() noexcept {
    if (!under_way_) return;
    under_way_ = false;
    ignoring_errors([&, this] {
      const cuda_device_guard device(streams_->own().number);
      for_each_peer([&, this](int peer) {
        const cuda_thread_device& theirs = streams_->peer(peer);
        if (theirs.last_done.load(std::memory_order_acquire) == calls_) theirs.done.order_before(where_);
      });
    });
  }

  thread_meeting& meeting_;
  std::shared_ptr<cuda_thread_streams> streams_;
  cuda_thread_reduction reduce_;
  at<cuda_space> where_;  // of the call under way
  std::uint64_t capture_ = 0;
  std::uint64_t calls_ = 0;
  bool under_way_ = false;
  std::vector<place> inputs_, outputs_;  // kept, so that a steady state allocates nothing
};

}  // namespace shardkit::detail
