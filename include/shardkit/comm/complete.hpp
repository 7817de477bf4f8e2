// Gives a backend the verbs it lacks, composed from those it has: gather, scatter, all_to_all and send_recv from a
// group of sends and receives, unequal counts from groups of broadcasts and reductions. What such a verb sends matches
// in program order with other messages between the same two ranks; inside one group it follows them.
#pragma once

#include <shardkit/comm/backend.hpp>
#include <shardkit/core/at.hpp>
#include <shardkit/core/detail/element_at.hpp>
#include <shardkit/core/detail/rank_parts.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

/// A backend with every verb: native where B performs the call itself, else composed.
template <class Backend>
class complete {
  static_assert(is_backend<Backend>, "shardkit: this class lacks a required verb; see shardkit/comm/backend.hpp");

 public:
  using space = typename Backend::space;

  explicit complete(Backend base) : base_(std::move(base)) {}

  int rank() const noexcept { return base_.rank(); }
  int size() const noexcept { return base_.size(); }
  /// The backend itself.
  Backend& base() noexcept { return base_; }

  template <class Call>
  [[gnu::always_inline]] inline void perform(const Call& call) {
    if constexpr (detail::performs<Backend, Call>::value) {
      base_.perform(call);
    } else {
      calls_.clear();
      expand(call);
      base_.perform(group_call{calls_.data(), calls_.size(), call.stream, call.site});
    }
  }

  void perform(const group_call& group) { base_.perform(expanded(group)); }

  template <class Call>
  request start(const Call& call) {
    if constexpr (detail::starts<Backend, Call>::value) {
      return base_.start(call);
    } else {
      calls_.clear();
      expand(call);
      return base_.start(group_call{calls_.data(), calls_.size(), call.stream, call.site});
    }
  }
  request start(const group_call& group) { return base_.start(expanded(group)); }

  Backend split(int colour, int key, const call_site& site) { return base_.split(colour, key, site); }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    base_.exchange(in, out, bytes, site);
  }
  void fail(const std::string& reason) noexcept { base_.fail(reason); }

 private:
  group_call expanded(const group_call& group) {
    calls_.clear();
    // The caller's messages first: ranks may list them anywhere among the collectives.
    for (const bool messages : {true, false})
      for (std::size_t i = 0; i < group.count; ++i)
        visit(
            [&, this](const auto& call) {
              using call_type = std::decay_t<decltype(call)>;
              if (detail::is_message<call_type> != messages) return;
              if constexpr (detail::performs<Backend, call_type>::value) calls_.emplace_back(call);
              else expand(call);
            },
            group.calls[i]);
    return {calls_.data(), calls_.size(), group.stream, group.site};
  }

  template <class Call>
  void add_send(const Call& call, const void* in, std::size_t count, int peer) {
    if (count != 0) calls_.emplace_back(send_call{in, count, call.type, peer, call.stream, call.site});
  }
  template <class Call>
  void add_recv(const Call& call, void* out, std::size_t count, int peer) {
    if (count != 0) calls_.emplace_back(recv_call{out, count, call.type, peer, call.stream, call.site});
  }
  template <class Call>
  void copy(const Call& call, void* to, const void* from, std::size_t count) {
    space::copy(to, from, count * size_of(call.type), shardkit::at<space>(space::from_native(call.stream), call.site));
  }

  // `expand` appends the calls that a verb consists of to `calls_` and copies what a rank gives to itself.

  void expand(const send_recv_call& call) {
    add_send(call, call.in, call.send_count, call.to);
    add_recv(call, call.out, call.recv_count, call.from);
  }

  template <class Call, class Parts>
  void expand_gather(const Call& call, Parts parts) {
    const auto [offset, count] = parts(rank());
    if (rank() != call.root) return add_send(call, call.in, count, call.root);
    copy(call, detail::element_at(call.out, offset, call.type), call.in, count);
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank())
        add_recv(call, detail::element_at(call.out, parts(peer).offset, call.type), parts(peer).count, peer);
  }
  template <class Call, class Parts>
  void expand_scatter(const Call& call, Parts parts) {
    const auto [offset, count] = parts(rank());
    if (rank() != call.root) return add_recv(call, call.out, count, call.root);
    copy(call, call.out, detail::element_at(call.in, offset, call.type), count);
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank())
        add_send(call, detail::element_at(call.in, parts(peer).offset, call.type), parts(peer).count, peer);
  }
  template <class Call, class Outgoing, class Incoming>
  void expand_all_to_all(const Call& call, Outgoing outgoing, Incoming incoming) {
    copy(call, detail::element_at(call.out, incoming(rank()).offset, call.type),
         detail::element_at(call.in, outgoing(rank()).offset, call.type), outgoing(rank()).count);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      add_send(call, detail::element_at(call.in, outgoing(peer).offset, call.type), outgoing(peer).count, peer);
      add_recv(call, detail::element_at(call.out, incoming(peer).offset, call.type), incoming(peer).count, peer);
    }
  }

  void expand(const gather_call& call) { expand_gather(call, detail::parts_of_each(call.count)); }
  void expand(const gather_uneven_call& call) { expand_gather(call, detail::parts_of(*call.layout)); }
  void expand(const scatter_call& call) { expand_scatter(call, detail::parts_of_each(call.count)); }
  void expand(const scatter_uneven_call& call) { expand_scatter(call, detail::parts_of(*call.layout)); }
  void expand(const all_to_all_call& call) {
    expand_all_to_all(call, detail::parts_of_each(call.count), detail::parts_of_each(call.count));
  }
  void expand(const all_to_all_uneven_call& call) {
    expand_all_to_all(call, detail::parts_of(*call.send_layout), detail::parts_of(*call.receive_layout));
  }

  void expand(const all_gather_uneven_call& call) {
    const partition& layout = *call.layout;
    copy(call, detail::element_at(call.out, layout.offset(rank()), call.type), call.in, layout.count(rank()));
    for (int root = 0; root < size(); ++root)
      if (layout.count(root) != 0)
        calls_.emplace_back(broadcast_call{detail::element_at(call.out, layout.offset(root), call.type),
                                           layout.count(root), call.type, root, call.stream, call.site});
  }

  void expand(const reduce_scatter_uneven_call& call) {
    const partition& layout = *call.layout;
    for (int root = 0; root < size(); ++root)
      if (layout.count(root) != 0)
        calls_.emplace_back(reduce_call{detail::element_at(call.in, layout.offset(root), call.type), call.out,
                                        layout.count(root), call.type, call.op, call.combine, root, call.stream,
                                        call.site});
  }

  Backend base_;
  detail::list<any_call> calls_;  // kept, so that a steady state allocates nothing
};

}  // namespace shardkit
