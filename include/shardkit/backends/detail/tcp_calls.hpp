// The verbs of the TCP backend: what each posts, and what it does with what arrives.
#pragma once

#include <shardkit/backends/detail/tcp_room.hpp>
#include <shardkit/core/space.hpp>

#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class tcp_calls {
 public:
  using contributions = std::vector<std::vector<char>>;

  explicit tcp_calls(std::shared_ptr<tcp_room> room) : room_(std::move(room)) {}

  request start(const barrier_call& call) {
    return begin(call, 0, everyone(), nullptr, everyone(), [](contributions&) {});
  }
  request start(const broadcast_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (room_->rank == call.root) return begin(call, bytes, everyone(), call.data, {}, [](contributions&) {});
    return begin(call, bytes, {}, nullptr, {call.root}, [to = call.data, root = call.root](contributions& from) {
      copy(to, from[static_cast<std::size_t>(root)]);
    });
  }
  request start(const reduce_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    if (room_->rank != call.root) return begin(call, bytes, {call.root}, call.in, {}, [](contributions&) {});
    return begin(call, bytes, {}, nullptr, everyone(),
                 [call, rank = room_->rank](contributions& from) { combine(call, call.in, from, rank); });
  }
  request start(const all_reduce_call& call) {
    return begin(call, call.count * size_of(call.type), everyone(), call.in, everyone(),
                 [call, rank = room_->rank](contributions& from) { combine(call, call.in, from, rank); });
  }
  request start(const all_gather_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    return begin(call, bytes, everyone(), call.in, everyone(), [call, bytes, rank = room_->rank](contributions& from) {
      char* to = static_cast<char*>(call.out);
      host_space::copy(to + static_cast<std::size_t>(rank) * bytes, call.in, bytes);
      for (std::size_t r = 0; r < from.size(); ++r)
        if (r != static_cast<std::size_t>(rank)) copy(to + r * bytes, from[r]);
    });
  }
  request start(const reduce_scatter_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    const char* const in = static_cast<const char*>(call.in);
    const auto held = ready(call, bytes);
    tcp_frame frame = numbered(call);
    for (const int peer : everyone()) {
      frame.targets.assign(1, static_cast<std::uint32_t>(room_->launch_rank(peer)));
      room_->link->post(frame, in + static_cast<std::size_t>(peer) * bytes, bytes);
    }
    const int rank = room_->rank;
    return expect(call, everyone(),
                  [call, rank, own = in + static_cast<std::size_t>(rank) * bytes](contributions& from) {
                    combine(call, own, from, rank);
                  });
  }

  request start(const send_call& call) {
    const std::size_t bytes = call.count * size_of(call.type);
    const auto held = ready(call, bytes);
    tcp_frame frame = room_->frame_to(tcp_frame_kind::message, call.peer);
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
  std::vector<int> everyone() const {
    std::vector<int> others;
    for (int peer = 0; peer < room_->size; ++peer)
      if (peer != room_->rank) others.push_back(peer);
    return others;
  }

  template <class Call, class Finish>
  request begin(const Call& call, std::size_t bytes, const std::vector<int>& to, const void* data,
                std::vector<int> from, Finish finish) {
    const auto held = ready(call, bytes);
    tcp_frame frame = numbered(call);
    for (const int peer : to) frame.targets.push_back(static_cast<std::uint32_t>(room_->launch_rank(peer)));
    room_->link->post(frame, data, data == nullptr ? 0 : bytes);
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
    frame.sequence = ++room_->calls;
    frame.fingerprint = fingerprint(call);
    return frame;
  }
  template <class Call, class Finish>
  request expect(const Call& call, std::vector<int> from, Finish finish) {
    return request(new tcp_collective<Finish>(room_, call, room_->calls, std::move(from), std::move(finish)));
  }

  static void copy(void* to, const std::vector<char>& from) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
  }
  /// In rank order, which gives the same bits as thread ranks.
  template <class Call>
  static void combine(const Call& call, const void* own, const contributions& from, int rank) {
    std::vector<const void*> inputs;
    for (const auto& one : from) inputs.push_back(one.data());
    inputs[static_cast<std::size_t>(rank)] = own;
    void* const outputs[] = {call.out};
    call.combine(call.op.kind, inputs.data(), static_cast<int>(inputs.size()), outputs, 1, call.count);
  }

  std::shared_ptr<tcp_room> room_;
};

}  // namespace shardkit::detail
