// The verbs of the TCP backend: what each posts, and what it does with what arrives.
#pragma once

#include <shardkit/backends/detail/tcp_room.hpp>
#include <shardkit/core/detail/element_at.hpp>
#include <shardkit/core/detail/rank_parts.hpp>
#include <shardkit/core/space.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit::detail {

class tcp_calls {
 public:
  using contributions = std::vector<std::vector<char>>;

  explicit tcp_calls(std::shared_ptr<tcp_room> room) : room_(std::move(room)) {}

  request start(const barrier_call& call) {
    return begin(call, 0, everyone(), nullptr, from_each(0), [](contributions&) {});
  }
  request start(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (room_->rank == call.root) return begin(call, bytes, everyone(), call.data, {}, [](contributions&) {});
    return begin(
        call, bytes, {}, nullptr, {{call.root, bytes}},
        [to = call.data, root = call.root](contributions& from) { copy(to, from[static_cast<std::size_t>(root)]); });
  }
  request start(const reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (room_->rank != call.root) return begin(call, bytes, {call.root}, call.in, {}, [](contributions&) {});
    return begin(call, bytes, {}, nullptr, from_each(bytes),
                 [call, rank = room_->rank](contributions& from) { combine(call, call.in, call.count, from, rank); });
  }
  request start(const all_reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    return begin(call, bytes, everyone(), call.in, from_each(bytes),
                 [call, rank = room_->rank](contributions& from) { combine(call, call.in, call.count, from, rank); });
  }
  request start(const all_gather_call& call) { return all_gather(call, parts_of_each(call.count)); }
  request start(const all_gather_uneven_call& call) { return all_gather(call, parts_of(*call.layout)); }
  request start(const reduce_scatter_call& call) { return reduce_scatter(call, parts_of_each(call.count)); }
  request start(const reduce_scatter_uneven_call& call) { return reduce_scatter(call, parts_of(*call.layout)); }
  request start(const gather_call& call) { return gather(call, parts_of_each(call.count)); }
  request start(const gather_uneven_call& call) { return gather(call, parts_of(*call.layout)); }
  request start(const scatter_call& call) { return scatter(call, parts_of_each(call.count)); }
  request start(const scatter_uneven_call& call) { return scatter(call, parts_of(*call.layout)); }
  request start(const all_to_all_call& call) {
    return all_to_all(call, parts_of_each(call.count), parts_of_each(call.count));
  }
  request start(const all_to_all_uneven_call& call) {
    return all_to_all(call, parts_of(*call.send_layout), parts_of(*call.receive_layout));
  }

  request start(const send_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    const auto held = ready(call, bytes);
    tcp_frame frame = room_->frame_to(tcp_frame_kind::message, call.peer);
    frame.fingerprint = message_fingerprint(call);
    frame.words = message_words(call);
    room_->link->post(frame, call.in, bytes);
    return {};
  }
  request start(const recv_call& call) {
    const auto held = ready(call, call.count * size_of(call.type));
    return request(new tcp_receive(room_, call));
  }
  /// Everything is posted in the order listed before anything is waited for.
  request start(const group_call& group) {
    return joined_requests::of([&, this](joined_requests& parts) { start_each(group, parts); });
  }
  void perform(const group_call& group) {
    struct {
      std::vector<request> list;
      void add(request part) { list.push_back(std::move(part)); }
    } parts;
    start_each(group, parts);
    for (request& part : parts.list) part.wait();
  }

 private:
  template <class Parts>
  void start_each(const group_call& group, Parts& parts) {
    tcp_calls& self = *this;
    for (std::size_t i = 0; i < group.count; ++i)
      visit(
          [&](const auto& call) {
            if constexpr (requires { self.start(call); }) parts.add(self.start(call));
          },
          group.calls[i]);
  }
  // `parts(rank)` is what a rank has in a buffer of all: an offset and a count, in elements.

  template <class Call, class Parts>
  request all_gather(const Call& call, Parts parts) {
    const std::size_t size = size_of(call.type), own = parts(room_->rank).count * size;
    return begin(call, own, everyone(), call.in, from_each(parts, size),
                 [call, own, size, parts, rank = room_->rank](contributions& from) {
                   host_space::copy(element_at(call.out, parts(rank).offset, call.type), call.in, own);
                   place(call.out, from, parts, size, rank);
                 });
  }
  template <class Call, class Parts>
  request reduce_scatter(const Call& call, Parts parts) {
    const int rank = room_->rank;
    const rank_part mine = parts(rank);
    const void* const own = element_at(call.in, mine.offset, call.type);
    return begin_with_parts(
        call, call.in, parts, from_each(mine.count * size_of(call.type)),
        [call, rank, own, mine](contributions& from) { combine(call, own, mine.count, from, rank); });
  }
  template <class Call, class Parts>
  request gather(const Call& call, Parts parts) {
    const std::size_t size = size_of(call.type), own = parts(room_->rank).count * size;
    if (room_->rank != call.root) return begin(call, own, {call.root}, call.in, {}, [](contributions&) {});
    return begin(call, own, {}, nullptr, from_each(parts, size),
                 [call, own, size, parts, rank = room_->rank](contributions& from) {
                   host_space::copy(element_at(call.out, parts(rank).offset, call.type), call.in, own);
                   place(call.out, from, parts, size, rank);
                 });
  }
  template <class Call, class Parts>
  request scatter(const Call& call, Parts parts) {
    const auto [offset, count] = parts(room_->rank);
    const std::size_t bytes = count * size_of(call.type);
    if (room_->rank != call.root)
      return begin(call, bytes, {}, nullptr, {{call.root, bytes}},
                   [call](contributions& from) { copy(call.out, from[static_cast<std::size_t>(call.root)]); });
    const void* const own = element_at(call.in, offset, call.type);
    return begin_with_parts(call, call.in, parts, {},
                            [call, own, bytes](contributions&) { host_space::copy(call.out, own, bytes); });
  }
  template <class Call, class Outgoing, class Incoming>
  request all_to_all(const Call& call, Outgoing outgoing, Incoming incoming) {
    const int rank = room_->rank;
    const std::size_t size = size_of(call.type);
    return begin_with_parts(call, call.in, outgoing, from_each(incoming, size),
                            [call, rank, size, outgoing, incoming](contributions& from) {
                              host_space::copy(element_at(call.out, incoming(rank).offset, call.type),
                                               element_at(call.in, outgoing(rank).offset, call.type),
                                               incoming(rank).count * size);
                              place(call.out, from, incoming, size, rank);
                            });
  }

  std::vector<int> everyone() const {
    std::vector<int> others;
    for (int peer = 0; peer < room_->size; ++peer)
      if (peer != room_->rank) others.push_back(peer);
    return others;
  }
  std::vector<tcp_awaited> from_each(std::size_t bytes) const {
    std::vector<tcp_awaited> others;
    for (const int peer : everyone()) others.push_back({peer, bytes});
    return others;
  }
  template <class Parts>
  std::vector<tcp_awaited> from_each(Parts parts, std::size_t size) const {
    std::vector<tcp_awaited> others;
    for (const int peer : everyone()) others.push_back({peer, parts(peer).count * size});
    return others;
  }

  /// The same bytes for all of `to`.
  template <class Call, class Finish>
  request begin(const Call& call, std::size_t bytes, const std::vector<int>& to, const void* data,
                std::vector<tcp_awaited> from, Finish finish) {
    const auto held = ready(call, bytes);
    tcp_frame frame = numbered(call);
    for (const int peer : to) frame.targets.push_back(static_cast<std::uint32_t>(room_->launch_rank(peer)));
    room_->link->post(frame, data, data == nullptr ? 0 : bytes);
    return expect(call, std::move(from), std::move(finish));
  }
  /// A part of `in` for each.
  template <class Call, class Parts, class Finish>
  request begin_with_parts(const Call& call, const void* in, Parts parts, std::vector<tcp_awaited> from,
                           Finish finish) {
    const std::size_t size = size_of(call.type);
    std::size_t largest = 0;
    for (int peer = 0; peer < room_->size; ++peer) largest = std::max(largest, parts(peer).count * size);
    const auto held = ready(call, largest);
    tcp_frame frame = numbered(call);
    for (const int peer : everyone()) {
      frame.targets.assign(1, static_cast<std::uint32_t>(room_->launch_rank(peer)));
      room_->link->post(frame, element_at(in, parts(peer).offset, call.type), parts(peer).count * size);
    }
    return expect(call, std::move(from), std::move(finish));
  }
  /// The lock, once it is clear that this call may be made. The same answer on every rank for one collective.
  template <class Call>
  tcp_link::lock ready(const Call& call, std::size_t bytes) {
    auto held = room_->link->acquire();
    room_->link->require_alive();
    if (bytes > tcp_largest_payload) {
      const std::string text = describe(call) + " has messages of " + std::to_string(bytes) +
                               " bytes; the TCP backend is for small ones and takes at most " +
                               std::to_string(tcp_largest_payload) + "; use MPI or NCCL, or several calls";
      room_->link->fail_locked(room_->link->rank(), text);
      throw unsupported_error(text);
    }
    return held;
  }
  template <class Call>
  tcp_frame numbered(const Call& call) {
    tcp_frame frame;
    frame.kind = tcp_frame_kind::collective;
    frame.communicator = room_->number;
    frame.sequence = ++room_->mailbox->calls;
    frame.fingerprint = room_->mailbox->fingerprint = fingerprint(call);
    tcp_frame announcement = frame;
    announcement.kind = tcp_frame_kind::announced;
    announcement.source = static_cast<std::uint32_t>(room_->link->rank());
    announcement.targets.assign(room_->members.begin(), room_->members.end());
    const std::string words = describe(call) + describe_site(call.site);
    if (room_->size > 1) room_->link->announce(announcement, words);
    // Only here can ranks that the hub finds in agreement differ in what goes from one to another.
    if constexpr (std::is_same<Call, all_to_all_uneven_call>::value) frame.words = words;
    return frame;
  }
  template <class Call, class Finish>
  request expect(const Call& call, std::vector<tcp_awaited> from, Finish finish) {
    return request(new tcp_collective<Finish>(room_, call, room_->mailbox->calls, std::move(from), std::move(finish)));
  }

  static void copy(void* to, const std::vector<char>& from) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
  }
  template <class Parts>
  static void place(void* out, const contributions& from, Parts parts, std::size_t size, int rank) {
    for (int peer = 0; peer < static_cast<int>(from.size()); ++peer)
      if (peer != rank) copy(static_cast<char*>(out) + parts(peer).offset * size, from[static_cast<std::size_t>(peer)]);
  }
  /// In rank order, which gives the same bits as thread ranks.
  template <class Call>
  static void combine(const Call& call, const void* own, std::size_t count, const contributions& from, int rank) {
    std::vector<const void*> inputs;
    for (const auto& one : from) inputs.push_back(one.data());
    inputs[static_cast<std::size_t>(rank)] = own;
    void* const outputs[] = {call.out};
    call.combine(call.op.kind, inputs.data(), static_cast<int>(inputs.size()), outputs, 1, count);
  }

  std::shared_ptr<tcp_room> room_;
};

}  // namespace shardkit::detail
