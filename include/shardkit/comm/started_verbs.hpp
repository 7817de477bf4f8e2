// The verbs of the typed face that return a request at once, without waiting: each has the arguments of its verb in
// verbs.hpp, and on a device may name a fork of two streams.
#pragma once

#include <shardkit/comm/detail/describing.hpp>
#include <shardkit/comm/detail/forked.hpp>
#include <shardkit/comm/detail/kept_arguments.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

/// What every communicator has beside its plain verbs: X_async starts what X does. Buffers, and a layout, stay as they
/// are until the request is complete; calls under way go on in every later call and wait of this rank.
template <class Backend>
class started_verbs : public detail::describing<Backend> {
  using base = detail::describing<Backend>;

 public:
  using space = typename base::space;
  using where = typename base::where;
  /// Where a call is started: a stream, on a device also a fork of two.
  using start_where = typename detail::forks_of<Backend>::where;

  /// communicator::barrier without waiting.
  request barrier_async(start_where w = {}) { return launch(describe_barrier(w), w); }

  /// communicator::broadcast without waiting.
  template <class Data>
  request broadcast_async(Data&& data, int root, start_where w = {}) {
    return launch(describe_broadcast(std::forward<Data>(data), root, w), w);
  }

  /// communicator::reduce without waiting.
  template <class In, class Out>
  request reduce_async(In&& in, Out&& out, reduction op, int root, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_reduce(in, std::forward<Out>(out), op, root, w), w);
  }
  /// communicator::reduce without waiting, in place.
  template <class T, class Of>
  request reduce_async(in_place_view<T, Of> both, reduction op, int root, start_where w = {}) {
    return launch(describe_reduce(detail::in_place_of<space>(both), op, root, w), w);
  }

  /// communicator::all_reduce without waiting.
  template <class In, class Out, class = detail::unless_reduction<Out>>
  request all_reduce_async(In&& in, Out&& out, reduction op, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_all_reduce(in, std::forward<Out>(out), op, w), w);
  }
  /// communicator::all_reduce without waiting, in place.
  template <class T, class Of>
  request all_reduce_async(in_place_view<T, Of> both, reduction op, start_where w = {}) {
    return launch(describe_all_reduce(detail::in_place_of<space>(both), op, w), w);
  }

  /// communicator::all_gather without waiting.
  template <class In, class Out, class = detail::unless_partition<Out, start_where>>
  request all_gather_async(In&& in, Out&& out, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_all_gather(in, std::forward<Out>(out), w), w);
  }
  /// communicator::all_gather without waiting, in place.
  template <class T, class Of>
  request all_gather_async(in_place_view<T, Of> all, start_where w = {}) {
    return launch(describe_all_gather(detail::in_place_of<space>(all), w), w);
  }
  /// communicator::all_gather without waiting, unequal counts.
  template <class In, class Out>
  request all_gather_async(In&& in, Out&& out, detail::kept_layout layout, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_all_gather(in, std::forward<Out>(out), layout, w), w);
  }
  /// communicator::all_gather without waiting, unequal counts in place.
  template <class T, class Of>
  request all_gather_async(in_place_view<T, Of> all, detail::kept_layout layout, start_where w = {}) {
    return launch(describe_all_gather(detail::in_place_of<space>(all), layout, w), w);
  }

  /// communicator::reduce_scatter without waiting.
  template <class In, class Out, class = detail::unless_reduction<Out>>
  request reduce_scatter_async(In&& in, Out&& out, reduction op, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_reduce_scatter(in, std::forward<Out>(out), op, w), w);
  }
  /// communicator::reduce_scatter without waiting, unequal counts.
  template <class In, class Out>
  request reduce_scatter_async(In&& in, Out&& out, reduction op, detail::kept_layout layout, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_reduce_scatter(in, std::forward<Out>(out), op, layout, w), w);
  }

  /// communicator::gather without waiting.
  template <class In, class Out>
  request gather_async(In&& in, Out&& out, int root, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_gather(in, std::forward<Out>(out), root, w), w);
  }
  /// communicator::gather without waiting, unequal counts.
  template <class In, class Out>
  request gather_async(In&& in, Out&& out, detail::kept_layout layout, int root, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_gather(in, std::forward<Out>(out), layout, root, w), w);
  }

  /// communicator::scatter without waiting.
  template <class In, class Out>
  request scatter_async(In&& in, Out&& out, int root, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_scatter(in, std::forward<Out>(out), root, w), w);
  }
  /// communicator::scatter without waiting, unequal counts.
  template <class In, class Out>
  request scatter_async(In&& in, Out&& out, detail::kept_layout layout, int root, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_scatter(in, std::forward<Out>(out), layout, root, w), w);
  }

  /// communicator::all_to_all without waiting.
  template <class In, class Out>
  request all_to_all_async(In&& in, Out&& out, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_all_to_all(in, std::forward<Out>(out), w), w);
  }
  /// communicator::all_to_all without waiting, unequal counts.
  template <class In, class Out>
  request all_to_all_async(In&& in, detail::kept_layout to_each, Out&& out, detail::kept_layout from_each,
                           start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_all_to_all(in, to_each, std::forward<Out>(out), from_each, w), w);
  }

  /// communicator::send without waiting.
  template <class In>
  request send_async(In&& in, int peer, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_send(in, peer, w), w);
  }

  /// communicator::recv without waiting.
  template <class Out>
  request recv_async(Out&& out, int peer, start_where w = {}) {
    return launch(describe_recv(std::forward<Out>(out), peer, w), w);
  }

  /// communicator::send_recv without waiting.
  template <class In, class Out>
  request send_recv_async(In&& in, int to, Out&& out, int from, start_where w = {}) {
    static_assert(detail::require_kept<In>::value);
    return launch(describe_send_recv(in, to, std::forward<Out>(out), from, w), w);
  }

 protected:
  using base::backend_;
  using base::base;
  using base::begin;
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
  using base::explain;
  using base::self_;

  /// Starts a call that has been described.
  template <class Call>
  request launch(const Call& call, const start_where& w) {
    return forked(Call::name, w, [&, this] { return begin(call); });
  }
  /// Starts what `enqueue` starts; on a device after what the first stream of `w` holds, on the second.
  template <class Begin>
  request forked(const char* operation, const start_where& w, Begin enqueue) {
    if constexpr (std::is_same<start_where, where>::value) {
      return enqueue();
    } else {
      self_.require(operation, w.site);
      try {
        if constexpr (!detail::is_capturable<Backend>::value)
          if (w.compute.is_captured(w.site))
            throw usage_error(
                "this communicator's transport works on the host and cannot be captured into a graph; call it between "
                "graphs, or use one that can");
        return forks_.start(w, enqueue);
      } catch (error& failure) {
        backend_.fail(detail::sentence() << operation << ": " << failure.message());
        explain(failure, operation, w.site);
        throw;
      }
    }
  }

 private:
  detail::forks_of<Backend> forks_;
};

}  // namespace shardkit
