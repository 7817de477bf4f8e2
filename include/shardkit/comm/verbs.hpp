// The verbs of the typed face that return when the call has taken effect on this rank: views in, sizes checked, one
// call descriptor out. Those that return a request at once are in started_verbs.hpp.
#pragma once

#include <shardkit/comm/started_verbs.hpp>

#include <type_traits>
#include <utility>

namespace shardkit {

/// What every communicator can call. What each verb exchanges and when a buffer may be in place is documented at its
/// descriptor in calls.hpp. In a group, whose calls are made when its body has ended, inputs and layouts outlive the
/// body.
template <class Backend>
class verbs : public started_verbs<Backend> {
  using base = started_verbs<Backend>;
  static constexpr bool defers = detail::defers_calls<Backend>::value;
  using layout_argument = std::conditional_t<defers, detail::kept_layout, const partition&>;
  template <class In>
  static constexpr bool lasts = std::conditional_t<defers, detail::require_kept<In>, std::true_type>::value;

 public:
  using space = typename base::space;
  using where = typename base::where;

  /// Returns after every rank has called it.
  [[gnu::always_inline]] inline void barrier(where w = {}) { run(describe_barrier(w)); }

  /// Every rank's `data` becomes the root's; sizes are equal.
  template <class Data>
  [[gnu::always_inline]] inline void broadcast(Data&& data, int root, where w = {}) {
    run(describe_broadcast(std::forward<Data>(data), root, w));
  }

  /// The root's `out` = the ranks' `in` combined; elsewhere `out` may be empty.
  template <class In, class Out>
  [[gnu::always_inline]] inline void reduce(In&& in, Out&& out, reduction op, int root, where w = {}) {
    static_assert(lasts<In>);
    run(describe_reduce(in, std::forward<Out>(out), op, root, w));
  }
  /// The same in place.
  template <class T, class Of>
  [[gnu::always_inline]] inline void reduce(in_place_view<T, Of> both, reduction op, int root, where w = {}) {
    run(describe_reduce(detail::in_place_of<space>(both), op, root, w));
  }

  /// `out` = the ranks' `in` combined, the same bits on every rank.
  template <class In, class Out, class = detail::unless_reduction<Out>>
  [[gnu::always_inline]] inline void all_reduce(In&& in, Out&& out, reduction op, where w = {}) {
    static_assert(lasts<In>);
    run(describe_all_reduce(in, std::forward<Out>(out), op, w));
  }
  /// The same in place.
  template <class T, class Of>
  [[gnu::always_inline]] inline void all_reduce(in_place_view<T, Of> both, reduction op, where w = {}) {
    run(describe_all_reduce(detail::in_place_of<space>(both), op, w));
  }
  /// One number from every rank, combined; host communicators.
  template <class T, std::enable_if_t<detail::has_dtype<T>::value, int> = 0>
  [[gnu::always_inline]] inline T all_reduce(T value, reduction op, where w = {}) {
    require_host_result();
    all_reduce(in_place(view(&value, 1)), op, w);
    return value;
  }

  /// `out` (size * in.size()) = the ranks' `in` in rank order.
  template <class In, class Out, class = detail::unless_partition<Out, where>>
  [[gnu::always_inline]] inline void all_gather(In&& in, Out&& out, where w = {}) {
    static_assert(lasts<In>);
    run(describe_all_gather(in, std::forward<Out>(out), w));
  }
  /// In place: each rank's part already lies at its place.
  template <class T, class Of>
  [[gnu::always_inline]] inline void all_gather(in_place_view<T, Of> all, where w = {}) {
    run(describe_all_gather(detail::in_place_of<space>(all), w));
  }
  /// Unequal counts: rank r's `in` has layout.count(r) elements, `out` has layout.total().
  template <class In, class Out>
  void all_gather(In&& in, Out&& out, layout_argument layout, where w = {}) {
    static_assert(lasts<In>);
    run(describe_all_gather(in, std::forward<Out>(out), layout, w));
  }
  /// Unequal counts in place.
  template <class T, class Of>
  void all_gather(in_place_view<T, Of> all, layout_argument layout, where w = {}) {
    run(describe_all_gather(detail::in_place_of<space>(all), layout, w));
  }

  /// `out` on rank r = block r of the ranks' `in` (size * out.size()) combined. In place: `out` is this rank's block of
  /// `in`.
  template <class In, class Out, class = detail::unless_reduction<Out>>
  [[gnu::always_inline]] inline void reduce_scatter(In&& in, Out&& out, reduction op, where w = {}) {
    static_assert(lasts<In>);
    run(describe_reduce_scatter(in, std::forward<Out>(out), op, w));
  }
  /// Unequal counts: rank r gets layout's range r, `in` has layout.total() elements.
  template <class In, class Out>
  void reduce_scatter(In&& in, Out&& out, reduction op, layout_argument layout, where w = {}) {
    static_assert(lasts<In>);
    run(describe_reduce_scatter(in, std::forward<Out>(out), op, layout, w));
  }

  /// The root's `out` (size * in.size()) = the ranks' `in` in rank order; elsewhere `out` may be empty.
  template <class In, class Out>
  [[gnu::always_inline]] inline void gather(In&& in, Out&& out, int root, where w = {}) {
    static_assert(lasts<In>);
    run(describe_gather(in, std::forward<Out>(out), root, w));
  }
  /// Unequal counts: rank r's `in` has layout.count(r) elements, the root's `out` layout.total().
  template <class In, class Out>
  void gather(In&& in, Out&& out, layout_argument layout, int root, where w = {}) {
    static_assert(lasts<In>);
    run(describe_gather(in, std::forward<Out>(out), layout, root, w));
  }

  /// `out` on rank r = block r of the root's `in` (size * out.size()); elsewhere `in` may be empty.
  template <class In, class Out>
  [[gnu::always_inline]] inline void scatter(In&& in, Out&& out, int root, where w = {}) {
    static_assert(lasts<In>);
    run(describe_scatter(in, std::forward<Out>(out), root, w));
  }
  /// Unequal counts: the root's `in` has layout.total() elements, rank r's `out` layout.count(r).
  template <class In, class Out>
  void scatter(In&& in, Out&& out, layout_argument layout, int root, where w = {}) {
    static_assert(lasts<In>);
    run(describe_scatter(in, std::forward<Out>(out), layout, root, w));
  }

  /// Block r of `in` goes to rank r, block r of `out` comes from it; the sizes are equal multiples of size().
  template <class In, class Out>
  [[gnu::always_inline]] inline void all_to_all(In&& in, Out&& out, where w = {}) {
    static_assert(lasts<In>);
    run(describe_all_to_all(in, std::forward<Out>(out), w));
  }
  /// Unequal counts: rank s's to_each.count(r) equals rank r's from_each.count(s).
  template <class In, class Out>
  void all_to_all(In&& in, layout_argument to_each, Out&& out, layout_argument from_each, where w = {}) {
    static_assert(lasts<In>);
    run(describe_all_to_all(in, to_each, std::forward<Out>(out), from_each, w));
  }

  /// Sends `in` to `peer`, which has to receive exactly so many elements. Messages between two ranks arrive in order.
  template <class In>
  [[gnu::always_inline]] inline void send(In&& in, int peer, where w = {}) {
    static_assert(lasts<In>);
    run(describe_send(in, peer, w));
  }
  /// Receives exactly out.size() elements from `peer`.
  template <class Out>
  [[gnu::always_inline]] inline void recv(Out&& out, int peer, where w = {}) {
    run(describe_recv(std::forward<Out>(out), peer, w));
  }
  /// Sends to `to` while receiving from `from`, which may be the same rank, or this one.
  template <class In, class Out>
  [[gnu::always_inline]] inline void send_recv(In&& in, int to, Out&& out, int from, where w = {}) {
    static_assert(lasts<In>);
    run(describe_send_recv(in, to, std::forward<Out>(out), from, w));
  }

 protected:
  using base::base;
  using base::describe_all_gather;
  using base::describe_all_reduce;
  using base::describe_all_to_all;
  using base::describe_barrier;
  using base::describe_broadcast;
  using base::describe_gather;
  using base::describe_recv;
  using base::describe_reduce;
  using base::describe_reduce_scatter;
  using base::describe_scatter;
  using base::describe_send;
  using base::describe_send_recv;
  using base::run;

 private:
  static constexpr void require_host_result() {
    static_assert(std::is_same<space, host_space>::value, "shardkit: single values travel on host communicators only");
    static_assert(!defers, "shardkit: a call inside group has no result yet; pass a buffer");
  }
};

}  // namespace shardkit
